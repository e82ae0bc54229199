import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { GiB, MiB, sectorSizeBytes } from '../../../daemon/base/limits.ts';
import { maxPreFetchBytes, maxPreFetches } from '../../../daemon/scsi/block/pre-fetch.ts';
import { bench, cdb10, cdb16 } from '../initiator.ts';

const endBlock = GiB / sectorSizeBytes;
const immediate = 0x02;
const perMiB = MiB / sectorSizeBytes;

t.test('PRE-FETCH reads its range in steps, and says that it is there', async (t) => {
  const { device, first } = bench();
  t.equal(await first.result(cdb10(0x34, 0, 8, perMiB + 8)), 'CONDITION MET');
  t.same(device.calls, [`read 4096+${MiB}`, `read ${MiB + 4096}+4096`]);
  t.equal(await first.result(cdb16(0x90, 0, 0, 1)), 'CONDITION MET');
  t.equal(await first.result(cdb16(0x90, 0, endBlock - 8, 0)), 'CONDITION MET', 'zero: up to the end');
  t.same(device.calls.slice(2), ['read 0+512', `read ${GiB - 4096}+4096`]);
});

t.test('it reads so much and no more, and says that it is not all', async (t) => {
  const { device, first } = bench();
  t.equal(await first.result(cdb16(0x90, 0, 0, 0)), 'GOOD');
  t.equal(device.calls.length, maxPreFetchBytes / MiB);
  t.equal(await first.result(cdb16(0x90, immediate, 0, endBlock)), 'GOOD');
  while (device.calls.length < (2 * maxPreFetchBytes) / MiB) await new Promise(setImmediate);
  await new Promise(setImmediate);
});

t.test('a range that is not on the unit is refused', async (t) => {
  const { device, first } = bench();
  t.equal(await first.result(cdb10(0x34, 0, endBlock, 1)), '05/21/00');
  t.equal(await first.result(cdb16(0x90, immediate, endBlock - 1, 2)), '05/21/00');
  t.equal(await first.result(cdb16(0x90, 0, endBlock, 0)), 'GOOD', 'nothing, at the end');
  t.same(device.calls, []);
});

t.test('with IMMED it answers first and reads then; so many at once, one step of each', async (t) => {
  const { device, first } = bench();
  device.paused = true;
  for (let n = 0; n < maxPreFetches; n += 1) {
    t.equal(await first.result(cdb10(0x34, immediate, n * 8, 2 * perMiB)), 'CONDITION MET');
  }
  t.equal(device.calls.length, maxPreFetches, 'one step of each');
  t.equal(await first.result(cdb10(0x34, immediate, 0, 8)), 'GOOD', 'one more is not read');
  t.equal(await first.result(cdb10(0x34, 0, 0, 8)), 'GOOD');
  t.equal(device.calls.length, maxPreFetches);
  device.release();
  while (device.calls.length < 2 * maxPreFetches) await new Promise(setImmediate);
  await new Promise(setImmediate);
  t.equal(await first.result(cdb10(0x34, 0, 0, 8)), 'CONDITION MET', 'there is room again');
});

t.test('what cannot be read is no error, and ends it', async (t) => {
  const { device, first } = bench();
  device.failure = { operation: 'read', error: new WeftError('CORRUPT', 'x') };
  t.equal(await first.result(cdb10(0x34, 0, 0, 2 * perMiB)), 'GOOD');
  t.equal(await first.result(cdb10(0x34, immediate, 0, 2 * perMiB)), 'CONDITION MET');
  t.equal(device.calls.length, 2);
});

t.test('an aborted one ends with the step in hand', async (t) => {
  const { device, server, first } = bench();
  const request = { isAborted: false };
  device.paused = true;
  const cdb = Buffer.concat([cdb10(0x34, 0, 0, 8 * perMiB)], 16);
  const command = {
    lun: Buffer.alloc(8),
    cdb,
    dataOut: Buffer.alloc(0),
    expectedInBytes: 0,
    port: 1,
    request,
  };
  const ended = new Promise((resolve) => server.execute({ ...command, nexus: first.nexus }, resolve));
  request.isAborted = true;
  device.release();
  await ended;
  t.equal(device.calls.length, 1);
});
