import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { GiB, MiB, sectorSizeBytes } from '../../../daemon/base/limits.ts';
import { bench, cdb10, outcome, pattern } from '../initiator.ts';

const maxBlocks = MiB / sectorSizeBytes;

function writeAtomic(block: number | bigint, blocks: number, flags = 0, boundary = 0): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x9c;
  cdb[1] = flags;
  cdb.writeBigUInt64BE(BigInt(block), 2);
  cdb.writeUInt16BE(boundary, 10);
  cdb.writeUInt16BE(blocks, 12);
  return cdb;
}

t.test('WRITE ATOMIC is one write of the device', async (t) => {
  const { device, first } = bench();
  t.equal(await first.result(writeAtomic(8, maxBlocks), pattern(maxBlocks)), 'GOOD');
  t.equal(await first.result(writeAtomic(0, 8, 0x18), pattern(8)), 'GOOD');
  t.same(device.calls, [`write 4096+${MiB}`, 'write 0+4096 fua']);
  t.same(await first.read(8, maxBlocks), pattern(maxBlocks));
  t.equal(await first.result(writeAtomic(0, 0)), 'GOOD', 'of nothing');
});

t.test('what could be torn is refused before anything is written', async (t) => {
  const { device, first } = bench({ sizeBytes: 2 * GiB });
  const slice = GiB / sectorSizeBytes;
  const refused: [cdb: Buffer, blocks: number, why: string][] = [
    [writeAtomic(1, 8), 8, 'alignment'],
    [writeAtomic(8, 7), 7, 'granularity'],
    [writeAtomic(0, maxBlocks + 8), maxBlocks + 8, 'length'],
    [writeAtomic(slice - 8, 16), 16, 'over the border of two slices'],
    [writeAtomic(0, 8, 0, 8), 8, 'an atomic boundary'],
    [writeAtomic(0, 16), 8, 'less data than announced'],
  ];
  for (const [cdb, blocks, why] of refused)
    t.equal(await first.result(cdb, pattern(blocks)), '05/24/00', why);
  t.equal(await first.result(writeAtomic(2 * slice - 8, 16), pattern(16)), '05/21/00');
  t.equal(await first.result(writeAtomic(2n ** 63n, 8), pattern(8)), '05/21/00');
  t.equal(await first.result(writeAtomic(2 * slice + 8, 0)), '05/21/00');
  t.same(device.calls, []);
  t.equal(await first.result(writeAtomic(slice - 8, 8), pattern(8)), 'GOOD', 'up to the border');
});

t.test('a READ sees an atomic write as a whole, and other blocks at once', async (t) => {
  const { device, first, second } = bench();
  device.paused = true;
  const writing = first.result(writeAtomic(0, 16), pattern(16, 3));
  const overlapping = second.read(8, 16);
  const apart = second.send(cdb10(0x28, 0, 24, 1));
  t.same(device.calls, ['write 0+8192', 'read 12288+512']);
  device.release();
  t.equal(await writing, 'GOOD');
  t.same((await overlapping).subarray(0, 4096), pattern(16, 3).subarray(4096));
  t.equal(outcome(await apart), 'GOOD');
});

t.test('an atomic write waits for the READs in the device, and for none that comes later', async (t) => {
  const { device, first, second } = bench();
  device.paused = true;
  const before = second.read(0, 16);
  const writing = first.result(writeAtomic(0, 16), pattern(16, 3));
  const after = second.read(8, 16);
  const apart = second.read(24, 1);
  t.same(device.calls, ['read 0+8192', 'read 12288+512'], 'the write, and what overlaps it, wait');
  device.release();
  t.same(await before, Buffer.alloc(8192), 'nothing of it');
  t.equal(await writing, 'GOOD');
  t.same((await after).subarray(0, 4096), pattern(16, 3).subarray(4096), 'all of it');
  await apart;
  t.same(device.calls.slice(2), ['write 0+8192', 'read 4096+8192']);
});

t.test('READs that keep coming do not keep an atomic write waiting', async (t) => {
  const { device, first, second } = bench();
  let isWritten = false;
  let reads = 0;
  const readOn = async (): Promise<void> => {
    for (; !isWritten && reads < 10_000; reads += 1) await second.read(64, 1);
  };
  const reading = Promise.all([readOn(), readOn(), readOn()]);
  await second.read(0, 1);
  t.equal(await first.result(writeAtomic(0, 16), pattern(16)), 'GOOD');
  isWritten = true;
  await reading;
  t.ok(reads < 1000, `${reads} reads`);
  t.ok(device.calls.includes('write 0+8192'));
});

t.test('a failed atomic write is reported and frees its range', async (t) => {
  const { device, first } = bench();
  device.failure = { operation: 'write', error: new WeftError('NO_SPACE', 'x') };
  t.equal(await first.result(writeAtomic(0, 8), pattern(8)), '07/27/07');
  device.failure = null;
  t.equal(await first.write(0, pattern(1)), 'GOOD');
});
