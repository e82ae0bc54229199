import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { GiB, MiB, sectorSizeBytes } from '../../../daemon/base/limits.ts';
import { bench, cdb10, cdb12, cdb16, outcome, pattern } from '../initiator.ts';

const endBlock = GiB / sectorSizeBytes;
const forms = [
  { verify: 0x2f, writeAndVerify: 0x2e, cdb: cdb10 },
  { verify: 0xaf, writeAndVerify: 0xae, cdb: cdb12 },
  { verify: 0x8f, writeAndVerify: 0x8e, cdb: cdb16 },
];

t.test('VERIFY with BYTCHK compares with the data-out', async (t) => {
  for (const { verify, cdb } of forms) {
    const { first } = bench();
    const data = pattern(5000);
    await first.write(10, data);
    t.equal(await first.result(cdb(verify, 0x02, 10, 5000), data), 'GOOD');
    data[4_999 * 512 + 3]! ^= 1;
    t.equal(await first.result(cdb(verify, 0x02, 10, 5000), data), '0e/1d/00');
    t.equal(await first.result(cdb(verify, 0x02, 10, 0)), 'GOOD');
    t.equal(await first.result(cdb(verify, 0x04, 10, 1)), '05/24/00', 'BYTCHK 10b');
    t.equal(await first.result(cdb(verify, 0x02, endBlock, 1), data), '05/21/00');
    t.equal(await first.result(cdb(verify, 0x02, endBlock + 1, 0)), '05/21/00');
  }
});

t.test('VERIFY with BYTCHK 11b compares one block with each', async (t) => {
  for (const { verify, cdb } of forms) {
    const { first } = bench();
    const sector = pattern(1, 9);
    await first.result(cdb16(0x93, 0, 7, 5000), sector);
    const reply = await first.send(cdb(verify, 0x06, 7, 5000), { dataOut: sector });
    t.equal(outcome(reply), 'GOOD');
    t.equal(reply.wantedOutBytes, 512);
    t.equal(await first.result(cdb(verify, 0x06, 7, 5001), sector), '0e/1d/00', 'the last differs');
    t.equal(await first.result(cdb(verify, 0x06, 6, 2), sector), '0e/1d/00', 'the first differs');
    t.equal(await first.result(cdb(verify, 0x06, 7, 0)), 'GOOD');
  }
});

t.test('VERIFY without BYTCHK reads the medium in steps and asks for no data-out', async (t) => {
  const { device, first } = bench();
  const reply = await first.send(cdb10(0x2f, 0, 0, 4097), { dataOut: pattern(1) });
  t.equal(reply.wantedOutBytes, 0);
  t.same(device.calls, [`read 0+${MiB}`, `read ${MiB}+${MiB}`, `read ${2 * MiB}+512`]);
  device.failure = { operation: 'read', error: new WeftError('CORRUPT', 'x') };
  t.equal(await first.result(cdb10(0x2f, 0, 0, 1)), '03/11/00');
});

t.test('WRITE AND VERIFY writes through the cache, and reads back', async (t) => {
  for (const { writeAndVerify, cdb } of forms) {
    for (const flags of [0x00, 0x02, 0x10]) {
      const { device, first } = bench();
      t.equal(await first.result(cdb(writeAndVerify, flags, 2, 2), pattern(2)), 'GOOD');
      t.same(device.calls, ['write 1024+1024 fua', 'read 1024+1024']);
      t.same(await first.read(2, 2), pattern(2));
    }
  }
});

t.test('WRITE AND VERIFY refuses what WRITE refuses, and reports failures of both halves', async (t) => {
  for (const { writeAndVerify, cdb } of forms) {
    const { device, first } = bench();
    t.equal(await first.result(cdb(writeAndVerify, 0, endBlock, 1), pattern(1)), '05/21/00');
    for (const reserved of [0x04, 0x06])
      t.equal(await first.result(cdb(writeAndVerify, reserved, 0, 1), pattern(1)), '05/24/00');
    t.equal(await first.result(cdb(writeAndVerify, 0, 0, 0)), 'GOOD');
    const short = await first.send(cdb(writeAndVerify, 0, 0, 2), { dataOut: pattern(1) });
    t.equal(short.wantedOutBytes, 1024);
    device.failure = { operation: 'write', error: new WeftError('IO_ERROR', 'x') };
    t.equal(await first.result(cdb(writeAndVerify, 0, 0, 1), pattern(1)), '03/0c/00');
    device.failure = { operation: 'read', error: new WeftError('IO_ERROR', 'x') };
    t.equal(await first.result(cdb(writeAndVerify, 2, 0, 1), pattern(1)), '03/11/00');
    device.failure = null;
    t.equal(await first.write(0, pattern(1)), 'GOOD', 'the range is free again');
  }
});
