import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { GiB, KiB, MiB, sectorSizeBytes } from '../../../daemon/base/limits.ts';
import { DeviceServer } from '../../../daemon/scsi/device-server.ts';
import { maxUnmapBlocks, maxUnmapDescriptors, maxWriteSameBlocks } from '../../../daemon/scsi/limits.ts';
import { LogicalUnit } from '../../../daemon/scsi/logical-unit.ts';
import { bench, cdb10, cdb16, Initiator, outcome, pattern, testUuid } from '../initiator.ts';
import { MemoryDevice } from '../memory-device.ts';

const endBlock = GiB / sectorSizeBytes;

function unmapList(ranges: [block: number | bigint, blocks: number][]): Buffer {
  const list = Buffer.alloc(8 + ranges.length * 16);
  list.writeUInt16BE(list.length - 2, 0);
  list.writeUInt16BE(ranges.length * 16, 2);
  for (const [index, [block, blocks]] of ranges.entries()) {
    list.writeBigUInt64BE(BigInt(block), 8 + index * 16);
    list.writeUInt32BE(blocks, 16 + index * 16);
  }
  return list;
}

function unmapCdb(listBytes: number, anchor = 0): Buffer {
  const cdb = Buffer.alloc(10);
  cdb[0] = 0x42;
  cdb[1] = anchor;
  cdb.writeUInt16BE(listBytes, 7);
  return cdb;
}

function unmap(list: Buffer): [Buffer, Buffer] {
  return [unmapCdb(list.length), list];
}

t.test('UNMAP makes its ranges read as zeros, and no other block', async (t) => {
  const { device, first } = bench();
  const data = pattern(200);
  await first.write(0, data);
  t.equal(
    await first.result(
      ...unmap(
        unmapList([
          [10, 20],
          [40, 0],
          [100, 64],
          [endBlock - 1, 1],
        ]),
      ),
    ),
    'GOOD',
  );
  data.fill(0, 10 * 512, 30 * 512).fill(0, 100 * 512, 164 * 512);
  t.same(await first.read(0, 200), data);
  t.equal(device.calls.filter((call) => call.startsWith('unmap')).length, 3, 'an empty range is no call');
});

t.test('UNMAP of nothing is no error', async (t) => {
  const { first } = bench();
  t.equal(await first.result(unmapCdb(0)), 'GOOD');
  t.equal(await first.result(...unmap(unmapList([]))), 'GOOD');
  t.equal(await first.result(...unmap(unmapList([[endBlock, 0]]))), 'GOOD');
  const many: [number, number][] = Array.from({ length: maxUnmapDescriptors }, (_, index) => [index, 0]);
  t.equal(await first.result(...unmap(unmapList(many))), 'GOOD');
});

t.test('UNMAP checks the whole list before it unmaps anything', async (t) => {
  const { device, first } = bench();
  const good: [number, number] = [0, 8];
  t.equal(await first.result(unmapCdb(24, 1), unmapList([good])), '05/24/00', 'ANCHOR');
  t.equal(await first.result(...unmap(unmapList([good, [endBlock, 1]]))), '05/21/00');
  t.equal(await first.result(...unmap(unmapList([good, [2n ** 64n - 1n, 1]]))), '05/21/00');
  t.equal(await first.result(unmapCdb(7), Buffer.alloc(7)), '05/1a/00');
  t.equal(await first.result(unmapCdb(24), unmapList([good]).subarray(0, 20)), '05/1a/00', 'less came');
  t.equal(await first.result(unmapCdb(24), unmapList([good, good]).subarray(0, 24)), '05/1a/00', 'cut list');
  const tooMany: [number, number][] = Array.from({ length: maxUnmapDescriptors + 1 }, (_, index) => [
    index,
    1,
  ]);
  t.equal(await first.result(...unmap(unmapList(tooMany))), '05/26/00');
  t.equal(
    await first.result(...unmap(unmapList([good, [0, maxUnmapBlocks - 7]]))),
    '05/26/00',
    'too many blocks',
  );
  t.same(device.calls, []);
  t.equal(await first.result(...unmap(unmapList([[0, maxUnmapBlocks]]))), 'GOOD');
});

t.test('an incomplete last descriptor is ignored', async (t) => {
  const { device, first } = bench();
  const list = Buffer.concat([unmapList([[0, 1]]), Buffer.alloc(8, 0xff)]);
  list.writeUInt16BE(24, 2);
  t.equal(await first.result(...unmap(list)), 'GOOD');
  t.same(device.calls, ['unmap 0+512']);
});

t.test('a failed UNMAP is reported once all its ranges have ended', async (t) => {
  const { device, first } = bench();
  device.failure = { operation: 'unmap', error: new WeftError('IO_ERROR', 'x') };
  t.equal(
    await first.result(
      ...unmap(
        unmapList([
          [0, 1],
          [8, 1],
        ]),
      ),
    ),
    '03/0c/00',
  );
});

t.test('WRITE SAME writes the sector all over the range', async (t) => {
  for (const [opcode, cdb] of [
    [0x41, cdb10],
    [0x93, cdb16],
  ] as const) {
    const { device, first } = bench();
    const sector = pattern(1, 3);
    await first.write(0, pattern(16));
    const reply = await first.send(cdb(opcode, 0, 5, 3000), { dataOut: sector });
    t.equal(outcome(reply), 'GOOD');
    t.equal(reply.wantedOutBytes, 512);
    t.ok(device.peek(5 * 512, 3000 * 512).equals(Buffer.alloc(3000 * 512, sector)));
    t.same(device.peek(0, 5 * 512), pattern(5));
    t.ok(device.peek(3005 * 512, 512).equals(Buffer.alloc(512)));
  }
});

t.test('WRITE SAME with UNMAP deallocates the blocks, without it zeros are written', async (t) => {
  for (const [opcode, cdb] of [
    [0x41, cdb10],
    [0x93, cdb16],
  ] as const) {
    const { device, first } = bench();
    await first.write(0, pattern(64));
    device.calls.length = 0;
    t.equal(await first.result(cdb(opcode, 0x08, 3, 50), Buffer.alloc(512)), 'GOOD');
    t.equal(await first.result(cdb(opcode, 0x08, 60, 2), pattern(1)), 'GOOD');
    t.equal(await first.result(cdb(opcode, 0x00, 62, 1), Buffer.alloc(512)), 'GOOD');
    t.same(device.calls, [`unmap ${3 * 512}+${50 * 512}`, `unmap ${60 * 512}+1024`, `write ${62 * 512}+512`]);
    t.ok(device.peek(0, 3 * 512).equals(pattern(3)));
    t.ok(device.peek(3 * 512, 50 * 512).equals(Buffer.alloc(50 * 512)), 'also parts of an allocation unit');
  }
});

t.test('WRITE SAME(16) with NDOB takes no data, WRITE SAME(10) knows no NDOB', async (t) => {
  const { device, first } = bench();
  await first.write(0, pattern(8));
  const reply = await first.send(cdb16(0x93, 0x09, 0, 4));
  t.equal(outcome(reply), 'GOOD');
  t.equal(reply.wantedOutBytes, 0);
  t.equal(await first.result(cdb16(0x93, 0x01, 4, 4)), 'GOOD');
  t.ok(device.peek(0, 4096).equals(Buffer.alloc(4096)));
  t.equal(await first.result(cdb10(0x41, 0x01, 0, 4)), '05/24/00');
});

t.test('WRITE SAME checks range, length, data and anchor', async (t) => {
  for (const [opcode, cdb] of [
    [0x41, cdb10],
    [0x93, cdb16],
  ] as const) {
    const { device, first } = bench();
    const sector = pattern(1);
    t.equal(await first.result(cdb(opcode, 0x10, 0, 1), sector), '05/24/00', 'ANCHOR');
    t.equal(await first.result(cdb(opcode, 0, endBlock, 1), sector), '05/21/00');
    t.equal(await first.result(cdb(opcode, 0, endBlock - 1, 2), sector), '05/21/00');
    t.equal(await first.result(cdb(opcode, 0, endBlock + 1, 0), sector), '05/21/00');
    for (const bytes of [0, 256, 1024])
      t.equal(await first.result(cdb(opcode, 0, 0, 1), Buffer.alloc(bytes)), '05/24/00');
    t.equal(await first.result(cdb(opcode, 0, endBlock, 0), sector), '05/21/00');
    t.equal(await first.result(cdb(opcode, 0, 0, 0), sector), '05/24/00', 'to the end is too far');
    t.same(device.calls, []);
  }
  const { first } = bench();
  t.equal(await first.result(cdb16(0x93, 0, 0, maxWriteSameBlocks + 1), pattern(1)), '05/24/00');
  t.equal(await first.result(cdb16(0x93, 0x08, 0, maxWriteSameBlocks), Buffer.alloc(512)), 'GOOD');
});

t.test('WRITE SAME of zero blocks goes to the end of the unit', async (t) => {
  for (const [opcode, cdb] of [
    [0x41, cdb10],
    [0x93, cdb16],
  ] as const) {
    const { device, first } = bench();
    const sector = pattern(1, 5);
    t.equal(await first.result(cdb(opcode, 0, endBlock - 3, 0), sector), 'GOOD');
    t.same(device.peek(GiB - 4 * 512, 4 * 512), Buffer.concat([Buffer.alloc(512), sector, sector, sector]));
    const first1 = endBlock - maxWriteSameBlocks;
    t.equal(await first.result(cdb(opcode, 0x08, first1, 0), Buffer.alloc(512)), 'GOOD');
    t.equal(await first.result(cdb(opcode, 0x08, first1 - 1, 0), Buffer.alloc(512)), '05/24/00');
  }
});

t.test('a failed WRITE SAME is reported and frees its range', async (t) => {
  const { device, first } = bench();
  device.failure = { operation: 'write', error: new WeftError('NO_SPACE', 'x') };
  t.equal(await first.result(cdb16(0x93, 0, 0, 9000), pattern(1)), '07/27/07');
  device.failure = { operation: 'unmap', error: new WeftError('IO_ERROR', 'x') };
  t.equal(await first.result(cdb16(0x93, 9, 0, 9000)), '03/0c/00');
  device.failure = null;
  t.equal(await first.write(0, pattern(1)), 'GOOD');
});

t.test('GET LBA STATUS tells what is mapped, merging neighbours', async (t) => {
  const { first } = bench();
  const unitBlocks = (16 * KiB) / 512;
  await first.write(0, pattern(2 * unitBlocks));
  await first.write(4 * unitBlocks, pattern(1));
  const cdb = cdb16(0x9e, 0x12, 3, 8 + 16 * 3);
  const data = await first.data(cdb);
  const rows = [0, 1, 2].map((index) => [
    Number(data.readBigUInt64BE(8 + index * 16)),
    data.readUInt32BE(16 + index * 16),
    data[20 + index * 16],
  ]);
  t.same(rows, [
    [3, 2 * unitBlocks - 3, 0],
    [2 * unitBlocks, 2 * unitBlocks, 1],
    [4 * unitBlocks, unitBlocks, 0],
  ]);
  t.equal(data.readUInt32BE(0), data.length - 4);
  t.equal((await first.data(cdb16(0x9e, 0x12, 0, 24))).length, 24, 'as many as there is room for');
  t.equal((await first.data(cdb16(0x9e, 0x12, 0, 4))).length, 4);
});

t.test('GET LBA STATUS ends at the last block, and asks the device a bounded number of times', async (t) => {
  const { device, first } = bench({ sizeBytes: MiB });
  const small = await first.data(cdb16(0x9e, 0x12, 0, 4096));
  t.equal(small.length, 24);
  t.equal(small.readUInt32BE(16), 2048);
  t.equal(await first.result(cdb16(0x9e, 0x12, 2048, 24)), '05/21/00');
  t.equal(await first.result(cdb16(0x9e, 0x12, 2n ** 64n - 1n, 24)), '05/21/00');
  device.failure = { operation: 'allocation', error: new WeftError('UNAVAILABLE', 'x') };
  t.equal(await first.result(cdb16(0x9e, 0x12, 0, 24)), '02/04/01');
  const large = bench();
  const data = await large.first.data(cdb16(0x9e, 0x12, 0, 24));
  t.equal(data.readUInt32BE(16), 1024 * 32, '1024 allocation units');
});

t.test(
  'READ CAPACITY(16) tells a physical block as large as the logical one when the unit has it so',
  async (t) => {
    const device = new MemoryDevice({ sizeBytes: GiB });
    const unit = new LogicalUnit({ device, identity: { uuid: testUuid }, physicalBlockBytes: 512 });
    const first = new Initiator(new DeviceServer({ units: new Map([[0, unit]]) }), 'a');
    t.equal((await first.data(cdb16(0x9e, 0x10, 0, 32)))[13], 0);
  },
);

t.test('READ CAPACITY tells size, block size, physical block and thin provisioning', async (t) => {
  const { first } = bench();
  t.equal((await first.data(cdb10(0x25, 0, 0, 0))).toString('hex'), '001fffff00000200');
  t.equal(await first.result(cdb10(0x25, 0, 1, 0)), '05/24/00');
  const long = await first.data(cdb16(0x9e, 0x10, 0, 32));
  t.equal(long.toString('hex', 0, 16), '00000000001fffff' + '00000200' + '0003c000');
  for (let bytes = 0; bytes < 16; bytes += 1)
    t.equal((await first.data(cdb16(0x9e, 0x10, 0, bytes))).length, bytes);
  const huge = bench({ sizeBytes: 4096 * GiB });
  t.equal((await huge.first.data(cdb10(0x25, 0, 0, 0))).readUInt32BE(0), 0xffffffff);
});

t.test('SYNCHRONIZE CACHE flushes and checks its range', async (t) => {
  const { device, first } = bench();
  for (const [opcode, cdb] of [
    [0x35, cdb10],
    [0x91, cdb16],
  ] as const) {
    t.equal(await first.result(cdb(opcode, 0, 0, 0)), 'GOOD');
    t.equal(await first.result(cdb(opcode, 2, 0, 1)), 'GOOD', 'IMMED');
    t.equal(await first.result(cdb(opcode, 0, endBlock, 1)), '05/21/00');
  }
  t.same(device.calls, ['flush', 'flush', 'flush', 'flush']);
  device.failure = { operation: 'flush', error: new WeftError('IO_ERROR', 'x') };
  t.equal(await first.result(cdb10(0x35, 0, 0, 0)), '03/0c/00');
});
