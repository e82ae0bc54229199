import t from 'tap';
import { GiB, MiB, TiB } from '../../../daemon/base/limits.ts';
import { DeviceServer } from '../../../daemon/scsi/device-server.ts';
import { LogicalUnit } from '../../../daemon/scsi/logical-unit.ts';
import { bench, cdb10, Initiator, testUuid } from '../initiator.ts';
import { MemoryDevice } from '../memory-device.ts';

/** `page`: PC and code; then subpage and parameter pointer. */
const logSense = (page: string, subpage = '00', pointer = '0000'): string =>
  `4d 00 ${page} ${subpage} 00 ${pointer} 00 ff`;

function thin(availableBytes: number, usedBytes: number): Initiator {
  const device = new MemoryDevice({ sizeBytes: GiB });
  const provisioning = () => ({ availableBytes, usedBytes });
  const unit = new LogicalUnit({ device, identity: { uuid: testUuid }, provisioning });
  return new Initiator(new DeviceServer({ units: new Map([[0, unit]]) }), 'a');
}

t.test('the lists name the pages that are there', async (t) => {
  const first = thin(0, 0);
  t.equal((await first.data(logSense('00'))).toString('hex'), '00000004' + '000c192f');
  t.equal((await first.data(logSense('40'))).toString('hex'), '00000004' + '000c192f', 'whatever PC says');
  t.equal((await first.data(logSense('40', 'ff'))).toString('hex'), '40ff000a' + '000000ff0c0019002f00');
  const plain = bench().first;
  t.equal((await plain.data(logSense('40'))).toString('hex'), '00000003' + '00192f');
  t.equal(await plain.result(logSense('4c')), '05/24/00', 'a unit that cannot tell has no such page');
});

t.test('page 0Ch tells what is left and what is taken, in blocks', async (t) => {
  const first = thin(3 * MiB + 511, MiB);
  const available = '00010308' + '00001800' + '02000000';
  const used = '00020308' + '00000800' + '01000000';
  t.equal((await first.data(logSense('4c'))).toString('hex'), `8c000018${available}${used}`);
  t.equal(
    (await first.data(logSense('4c', '00', '0002'))).toString('hex'),
    `8c00000c${used}`,
    'from a parameter on',
  );
  const large = await thin(5 * TiB, 0).data(logSense('4c'));
  t.equal(large.readUInt32BE(8), 0xffffffff);
});

t.test('page 2Fh has nothing to report, and no temperature or limit of it', async (t) => {
  t.equal((await bench().first.data(logSense('6f'))).toString('hex'), 'af000008' + '00000304' + '0000ffff');
});

t.test('what there is not is refused', async (t) => {
  const first = thin(0, 0);
  t.equal(await first.result('4d 01 40 00 00 00 00 00 ff'), '05/24/00', 'SP: nothing is saved');
  t.equal(await first.result(logSense('0c')), '05/24/00', 'threshold values');
  t.equal(await first.result(logSense('cc')), '05/24/00', 'default values');
  t.equal(await first.result(logSense('4d')), '05/24/00', 'temperature');
  t.equal(await first.result(logSense('4c', '01')), '05/24/00', 'a subpage');
  t.equal(
    await first.result(logSense('4c', '00', '0003')),
    '05/24/00',
    'a pointer behind the last parameter',
  );
  t.equal(await first.result(logSense('40', '01')), '05/24/00');
  t.equal(await first.result(logSense('40', '00', '0001')), '05/24/00');
});

t.test('page 19h counts reads, writes, their blocks and their time', async (t) => {
  let nowMs = 1000;
  const device = new MemoryDevice({ sizeBytes: GiB });
  const unit = new LogicalUnit({ device, identity: { uuid: testUuid }, monotonicMs: () => nowMs });
  const first = new Initiator(new DeviceServer({ units: new Map([[0, unit]]) }), 'a', 1);
  const timed = async (ms: number, command: () => Promise<string>): Promise<string> => {
    device.paused = true;
    const result = command();
    nowMs += ms;
    device.release();
    return result;
  };
  const read = (block: number, blocks: number) => () => first.result(cdb10(0x28, 0, block, blocks));
  nowMs += 7;
  t.equal(await timed(2, read(0, 8)), 'GOOD');
  t.equal(await timed(1.5, read(0, 2)), 'GOOD');
  t.equal(await read(GiB / 512, 1)(), '05/21/00', 'one that fails is a command, too');
  t.equal(await timed(4, () => first.result(cdb10(0x2a, 0, 0, 3), Buffer.alloc(1536))), 'GOOD');
  nowMs += 5;
  t.equal(await first.result('00'), 'GOOD', 'TEST UNIT READY is neither');
  const counts = (...values: number[]): string =>
    values.map((value) => value.toString(16).padStart(16, '0')).join('');
  const expected =
    '9900005c' +
    `00010340${counts(3, 1, 3, 10, 3500, 4000, 0, 0)}` +
    `00020308${counts(12_000)}` +
    '00030308' +
    '0000000600000001';
  t.equal((await first.data(logSense('59'))).toString('hex'), expected);
  const both = Promise.all([
    timed(1, () => first.result('88 00 0000000000000000 00000001 00 00')),
    timed(1, () => first.result('0a 00 0000 01 00', Buffer.alloc(512))),
  ]);
  t.same(await both, ['GOOD', 'GOOD']);
  const later = await first.data(logSense('59', '00', '0001'));
  t.equal(later.readBigUInt64BE(8), 4n);
  t.equal(later.readBigUInt64BE(16), 2n);
});
