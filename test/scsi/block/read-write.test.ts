import t from 'tap';
import { BufferPool } from '../../../daemon/base/buffer-pool.ts';
import { WeftError } from '../../../daemon/base/errors.ts';
import { GiB, MiB, maxTransferBytes, sectorSizeBytes } from '../../../daemon/base/limits.ts';
import { DeviceServer } from '../../../daemon/scsi/device-server.ts';
import { LogicalUnit } from '../../../daemon/scsi/logical-unit.ts';
import { bench, cdb6, cdb10, cdb12, cdb16, Initiator, outcome, pattern, testUuid } from '../initiator.ts';
import { MemoryDevice } from '../memory-device.ts';

const lastBlock = GiB / sectorSizeBytes - 1;
const maxBlocks = maxTransferBytes / sectorSizeBytes;

const forms = [
  {
    read: 0x08,
    write: 0x0a,
    cdb: (opcode: number, _flags: number, block: number, blocks: number) => cdb6(opcode, block, blocks),
  },
  { read: 0x28, write: 0x2a, cdb: cdb10 },
  { read: 0xa8, write: 0xaa, cdb: cdb12 },
  { read: 0x88, write: 0x8a, cdb: cdb16 },
];

t.test('what each WRITE wrote, each READ reads', async (t) => {
  for (const { write, cdb } of forms) {
    const { first } = bench();
    const data = pattern(9, write);
    t.equal(await first.result(cdb(write, 0, 1000, 9), data), 'GOOD');
    for (const form of forms)
      t.same(await first.data(form.cdb(form.read, 0, 1000, 9)), data, `${write} ${form.read}`);
    t.ok((await first.read(1009, 1)).equals(Buffer.alloc(512)), 'unwritten space reads as zeros');
  }
});

t.test('a transfer length of zero is 256 blocks in READ(6), and nothing elsewhere', async (t) => {
  const { device, first } = bench();
  t.equal((await first.data(cdb6(0x08, 0, 0))).length, 256 * 512);
  device.calls.length = 0;
  for (const { read, write, cdb } of forms.slice(1)) {
    t.equal(await first.result(cdb(read, 0, 0, 0)), 'GOOD');
    t.equal(await first.result(cdb(write, 0, 0, 0)), 'GOOD');
    t.equal(await first.result(cdb(read, 0, lastBlock + 2, 0)), '05/21/00');
  }
  t.same(device.calls, []);
});

t.test('blocks beyond the end are out of range, and nothing is touched', async (t) => {
  const { device, first } = bench();
  for (const { read, write, cdb } of forms.slice(1)) {
    for (const opcode of [read, write]) {
      t.equal(await first.result(cdb(opcode, 0, lastBlock + 1, 1), pattern(1)), '05/21/00');
      t.equal(await first.result(cdb(opcode, 0, lastBlock, 2), pattern(2)), '05/21/00');
      t.equal(await first.result(cdb(opcode, 0, 0xffffffff, 1), pattern(1)), '05/21/00');
    }
  }
  t.equal(await first.result(cdb16(0x88, 0, 2n ** 64n - 1n, 1)), '05/21/00');
  t.equal(await first.result(cdb16(0x8a, 0, 2n ** 63n, 1), pattern(1)), '05/21/00');
  t.same(device.calls, []);
  const small = bench({ sizeBytes: MiB });
  t.equal(await small.first.result(cdb6(0x08, 2047, 2)), '05/21/00');
  t.equal(await small.first.result(cdb6(0x0a, 2048, 1), pattern(1)), '05/21/00');
});

t.test('no transfer is longer than VPD page B0h says', async (t) => {
  const { first } = bench();
  t.equal((await first.data(cdb10(0x28, 0, 0, maxBlocks))).length, maxTransferBytes);
  for (const [opcode, cdb] of [
    [0x28, cdb10],
    [0x2a, cdb10],
    [0x88, cdb16],
    [0x8a, cdb16],
    [0xa8, cdb12],
  ] as const) {
    t.equal(await first.result(cdb(opcode, 0, 0, maxBlocks + 1)), '05/24/00');
  }
});

t.test('FUA makes a write durable, and a read come from the medium', async (t) => {
  const { device, first } = bench();
  await first.result(cdb10(0x2a, 0x08, 0, 1), pattern(1));
  await first.result(cdb10(0x2a, 0x10, 1, 1), pattern(1)); // DPO
  await first.data(cdb10(0x28, 0x08, 0, 1));
  t.same(device.calls, ['write 0+512 fua', 'write 512+512', 'flush', 'read 0+512']);
  const sync = bench({ durability: 'sync' });
  await sync.first.data(cdb10(0x28, 0x08, 0, 1));
  t.same(sync.device.calls, ['read 0+512'], 'everything is on the medium already');
  await first.result(cdb6(0x0a, 0x080000, 1), pattern(1));
  t.equal(device.calls.at(-1), `write ${0x080000 * 512}+512`, 'in 6 bytes the bit is part of the LBA');
});

t.test('a WRITE takes no more than it asks for and only whole sectors of what came', async (t) => {
  const { device, first } = bench();
  const table: [blocks: number, cameBytes: number, writtenBytes: number][] = [
    [1, 0, 0],
    [1, 200, 0],
    [1, 1024, 512],
    [2, 512, 512],
    [2, 1023, 512],
    [1, 10000, 512],
  ];
  for (const [blocks, came, written] of table) {
    device.calls.length = 0;
    const reply = await first.send(cdb10(0x2a, 0, 0, blocks), { dataOut: Buffer.alloc(came, 1) });
    t.equal(outcome(reply), 'GOOD');
    t.equal(reply.wantedOutBytes, blocks * 512);
    t.same(device.calls, written === 0 ? [] : [`write 0+${written}`]);
  }
});

t.test('a READ reads no more than the initiator takes, and says what it wanted to send', async (t) => {
  const { device, first } = bench();
  const table: [expected: number, read: number][] = [
    [0, 0],
    [200, 512],
    [512, 512],
    [1024, 1024],
    [10000, 1024],
  ];
  for (const [expectedInBytes, readBytes] of table) {
    device.calls.length = 0;
    const reply = await first.send(cdb10(0x28, 0, 0, 2), { expectedInBytes });
    t.equal(reply.wantedInBytes, 1024);
    t.equal(Buffer.concat(reply.dataIn).length, readBytes);
    t.same(device.calls, readBytes === 0 ? [] : [`read 0+${readBytes}`]);
    reply.release?.();
  }
});

t.test('buffers of reads go back to the pool, of failed ones too', async (t) => {
  const device = new MemoryDevice({ sizeBytes: MiB });
  const buffers = new BufferPool(maxTransferBytes, maxTransferBytes);
  const unit = new LogicalUnit({ device, identity: { uuid: testUuid }, buffers });
  const first = new Initiator(new DeviceServer({ units: new Map([[0, unit]]) }), 'a');
  const reply = await first.send(cdb10(0x28, 0, 0, 3));
  t.equal(buffers.idleBytes, 0);
  reply.release?.();
  t.equal(buffers.idleBytes, 4096);
  device.failure = { operation: 'read', error: new WeftError('IO_ERROR', 'x') };
  t.equal(await first.result(cdb10(0x28, 0, 0, 3)), '03/11/00');
  t.equal(await first.result(cdb10(0x2f, 0, 0, 3)), '03/11/00');
  t.equal(buffers.idleBytes, 4096);
});

t.test('what the device cannot do becomes sense data', async (t) => {
  const { device, first } = bench();
  device.failure = { operation: 'write', error: new WeftError('NO_SPACE', 'full') };
  t.equal(await first.write(0, pattern(1)), '07/27/07');
  device.failure = { operation: 'write', error: new WeftError('SHUTTING_DOWN', 'x') };
  t.equal(await first.write(0, pattern(1)), '02/04/01');
  device.failure = { operation: 'flush', error: new WeftError('IO_ERROR', 'x') };
  t.equal(await first.result(cdb10(0x28, 0x08, 0, 1)), '03/11/00', 'FUA');
  device.failure = {
    operation: 'read',
    error: new WeftError('CORRUPT', 'x', { details: { offsetBytes: 8192 } }),
  };
  const reply = await first.send(cdb10(0x28, 0, 8, 16));
  t.equal(outcome(reply), '03/11/00');
  t.equal(reply.sense!.readUInt32BE(3), 16, 'INFORMATION is the LBA');
});
