import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { GiB, sectorSizeBytes } from '../../../daemon/base/limits.ts';
import { bench, cdb10, cdb16, outcome, pattern } from '../initiator.ts';

const endBlock = GiB / sectorSizeBytes;

function compareAndWriteCdb(block: number | bigint, blocks: number, flags = 0): Buffer {
  return cdb16(0x89, flags, block, blocks);
}

t.test('COMPARE AND WRITE writes when the blocks are as expected', async (t) => {
  for (const blocks of [1, 3, 255]) {
    const { device, first } = bench();
    const old = pattern(blocks, 1);
    const fresh = pattern(blocks, 2);
    await first.write(7, old);
    const reply = await first.send(compareAndWriteCdb(7, blocks, 0x08), {
      dataOut: Buffer.concat([old, fresh]),
    });
    t.equal(outcome(reply), 'GOOD');
    t.equal(reply.wantedOutBytes, 2 * blocks * 512);
    t.same(await first.read(7, blocks), fresh);
    t.match(device.calls.at(-2), /fua$/);
  }
});

t.test('COMPARE AND WRITE changes nothing when they are not, and says where they differ', async (t) => {
  const { first } = bench();
  const old = pattern(2);
  await first.write(0, old);
  const expected = Buffer.from(old);
  expected[700]! ^= 0xff;
  const reply = await first.send(compareAndWriteCdb(0, 2), {
    dataOut: Buffer.concat([expected, pattern(2, 9)]),
  });
  t.equal(outcome(reply), '0e/1d/00');
  t.equal(reply.sense!.readUInt32BE(3), 700);
  t.same(await first.read(0, 2), old);
  t.equal(
    await first.result(compareAndWriteCdb(0, 2), Buffer.concat([old, old])),
    'GOOD',
    'the range is free',
  );
});

t.test('COMPARE AND WRITE checks its range and the size of its data-out', async (t) => {
  const { device, first } = bench();
  t.equal(await first.result(compareAndWriteCdb(endBlock, 1), pattern(2)), '05/21/00');
  t.equal(await first.result(compareAndWriteCdb(2n ** 63n, 1), pattern(2)), '05/21/00');
  for (const blocks of [1, 3])
    t.equal(await first.result(compareAndWriteCdb(0, blocks), pattern(4)), '05/24/00');
  t.equal(await first.result(compareAndWriteCdb(0, 1), Buffer.alloc(1000)), '05/24/00');
  t.equal(await first.result(compareAndWriteCdb(0, 256), pattern(512)), '05/24/00', 'the field has one byte');
  t.equal(await first.result(compareAndWriteCdb(0, 0)), 'GOOD');
  t.same(device.calls, []);
});

t.test('of many COMPARE AND WRITE of one block, each sees what the one before it wrote', async (t) => {
  const { first, second } = bench();
  const counter = (value: number): Buffer => Buffer.alloc(512, value);
  await first.write(0, counter(0));
  // Each tries to go from n to n+1; all are in flight at once, in order, so all must succeed.
  const sent = Array.from({ length: 100 }, (_, index) =>
    (index % 2 ? first : second).result(
      compareAndWriteCdb(0, 1),
      Buffer.concat([counter(index), counter(index + 1)]),
    ),
  );
  t.ok((await Promise.all(sent)).every((result) => result === 'GOOD'));
  t.same(await first.read(0, 1), counter(100));
});

t.test('no write, unmap or WRITE SAME comes between compare and write', async (t) => {
  const intruders: Record<string, [Buffer, Buffer]> = {
    write: [cdb10(0x2a, 0, 1, 1), pattern(1, 77)],
    unmap: [
      Buffer.from('4200000000000000180000000000', 'hex'),
      Buffer.from('00160010000000000000000000000001' + '0000000100000000', 'hex'),
    ],
    'write same': [cdb10(0x41, 0, 1, 1), pattern(1, 77)],
    'write and verify': [cdb10(0x2e, 0, 1, 1), pattern(1, 77)],
    orwrite: [cdb16(0x8b, 0, 1, 1), pattern(1, 77)],
  };
  for (const [name, [cdb, dataOut]] of Object.entries(intruders)) {
    const { device, first, second } = bench();
    const old = pattern(2);
    await first.write(0, old);
    device.calls.length = 0;
    const compared = first.result(compareAndWriteCdb(0, 2), Buffer.concat([old, pattern(2, 5)]));
    const intruded = second.result(cdb, dataOut);
    t.equal(await compared, 'GOOD', name);
    t.equal(await intruded, 'GOOD', name);
    t.same(device.calls.slice(0, 2), ['read 0+1024', 'write 0+1024'], name);
    t.ok(device.calls.length > 2, name);
  }
});

t.test('ORWRITE sets bits', async (t) => {
  const { first } = bench();
  await first.write(0, Buffer.alloc(1024, 0x0f));
  t.equal(await first.result(cdb16(0x8b, 0, 0, 2), Buffer.alloc(1024, 0x31)), 'GOOD');
  t.same(await first.read(0, 2), Buffer.alloc(1024, 0x3f));
  t.equal(await first.result(cdb16(0x8b, 0, endBlock, 1), pattern(1)), '05/21/00');
  t.equal(await first.result(cdb16(0x8b, 0, 0, 0)), 'GOOD');
});

t.test('a failure of either half is reported and frees the range', async (t) => {
  const { device, first } = bench();
  const zeros = Buffer.alloc(1024);
  device.failure = { operation: 'read', error: new WeftError('IO_ERROR', 'x') };
  t.equal(await first.result(compareAndWriteCdb(0, 1), zeros), '03/11/00');
  device.failure = { operation: 'write', error: new WeftError('NO_SPACE', 'x') };
  t.equal(await first.result(compareAndWriteCdb(0, 1), zeros), '07/27/07');
  device.failure = null;
  t.equal(await first.result(compareAndWriteCdb(0, 1), zeros), 'GOOD');
});
