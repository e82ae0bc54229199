import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { GiB } from '../../../daemon/base/limits.ts';
import { bench, cdb10, type Initiator, outcome, pattern } from '../initiator.ts';

const zeros = (bytes: number): string => '00'.repeat(bytes);
/** PS, D_SENSE and SWP off; GLTSD, unrestricted reordering, TAS. */
const control = '8a0a021000400000ffff0000';
const recovery = `810a80${zeros(9)}`;
const caching = `881204${zeros(17)}`;
const exceptions = `9c0a08${zeros(9)}`;
const all = `${recovery}${caching}${control}${exceptions}`;

/** The control page as MODE SELECT takes it; SWP is 08h, D_SENSE is 04h. */
const controlWith = (descriptorSense: string, writeProtect: string): string =>
  `0a0a${descriptorSense}10${writeProtect}400000ffff0000`;

/** MODE SELECT(6) of pages without a block descriptor. */
function select(from: Initiator, pages: string, flags = '10'): Promise<string> {
  const bytes = Buffer.from(`00000000${pages}`, 'hex');
  return from.result(Buffer.from([0x15, Number.parseInt(flags, 16), 0, 0, bytes.length]), bytes);
}

t.test('MODE SENSE returns header, block descriptor and pages', async (t) => {
  const { first } = bench();
  t.equal((await first.data('1a 00 3f 00 ff')).toString('hex'), `43001008${'0020000000000200'}${all}`);
  t.equal((await first.data('1a 08 3f 00 ff')).toString('hex'), `3b001000${all}`, 'DBD');
  t.equal((await first.data('1a 08 3f ff ff')).length, 60, 'all subpages');
  t.equal((await first.data('1a 08 08 00 ff')).toString('hex'), `17001000${caching}`);
  t.equal((await first.data('1a 08 3f 00 04')).toString('hex'), '3b001000', 'cut');
  t.equal(
    (await first.data('5a 00 0a 00 00 00 00 10 00')).toString('hex'),
    `001a001000000008${'0020000000000200'}${control}`,
  );
  t.equal(
    (await first.data('5a 10 0a 00 00 00 00 10 00')).toString('hex'),
    `0022001001000010${'00000000002000000000000000000200'}${control}`,
    'LLBAA',
  );
  t.equal((await first.data('5a 18 0a 00 00 00 00 10 00')).toString('hex', 0, 8), '0012001000000000', 'DBD');
});

t.test('MODE SENSE of changeable, default and saved values', async (t) => {
  const { first } = bench();
  const page = async (control: string): Promise<string> =>
    (await first.data(`1a 08 ${control} 00 ff`)).toString('hex', 4);
  t.equal(await select(first, controlWith('02', '08'), '11'), 'GOOD', 'saved');
  t.equal(await select(first, controlWith('06', '00')), 'GOOD', 'not saved');
  t.equal(await page('0a'), '8a0a061000400000ffff0000', 'current');
  t.equal(await page('4a'), `8a0a04000800${zeros(6)}`, 'changeable');
  t.equal(await page('8a'), control, 'default');
  t.equal(await page('ca'), '8a0a021008400000ffff0000', 'saved');
  for (const [code, bytes] of [
    ['01', 10],
    ['08', 18],
    ['1c', 10],
  ] as const) {
    const changeable = (0x40 | Number.parseInt(code, 16)).toString(16);
    t.equal((await page(changeable)).slice(4), zeros(bytes), `nothing of ${code} can be changed`);
  }
  t.equal((await page('ff')).length, all.length, 'all saved pages');
  t.equal(await first.result('1a 08 02 00 ff'), '05/24/00', 'no such page');
  t.equal(await first.result('1a 08 0a 01 ff'), '05/24/00', 'no such subpage');
});

t.test('without a place to save them, saved values are refused', async (t) => {
  const { first } = bench({ kept: null });
  t.equal(await first.result('1a 08 ca 00 ff'), '05/39/00');
  t.equal(await select(first, controlWith('02', '08'), '11'), '05/24/00', 'SP');
  t.equal((await first.data('1a 08 0a 00 ff')).toString('hex', 4, 5), '0a', 'PS says so');
  t.equal(await select(first, controlWith('02', '08')), 'GOOD');
});

t.test('WP and DPOFUA are in the device-specific parameter', async (t) => {
  const { first } = bench();
  t.equal((await first.data('1a 08 0a 00 ff'))[2], 0x10);
  t.equal(await select(first, controlWith('02', '08')), 'GOOD');
  t.equal((await first.data('1a 08 0a 00 ff'))[2], 0x90);
  t.equal((await first.data('5a 08 0a 00 00 00 00 10 00'))[3], 0x90);
});

t.test('WCE is the durability of the volume', async (t) => {
  for (const [durability, bits] of [
    ['flush', 4],
    ['sync', 0],
  ] as const) {
    const { first } = bench({ durability });
    t.equal((await first.data('1a 08 08 00 ff'))[6], bits, durability);
  }
});

t.test('MODE SELECT sets and clears write protection, and the others hear of it', async (t) => {
  const { first, second } = bench();
  await second.result('00');
  const list = (swp: string): Buffer => Buffer.from(`00000000${controlWith('02', swp)}`, 'hex');
  t.equal(await first.result('15 10 00 00 10', list('08')), 'GOOD');
  t.equal(await first.result('00'), 'GOOD');
  t.equal(await second.result('00'), '06/2a/01');
  t.equal(await second.write(0, pattern(1)), '07/27/00');
  t.equal((await second.read(0, 1)).length, 512);
  const long = Buffer.concat([Buffer.alloc(8), list('00').subarray(4)]);
  t.equal(await first.result('55 10 00 00 00 00 00 00 14', long), 'GOOD');
  t.equal(await second.result('00'), '06/2a/01');
  t.equal(await second.write(0, pattern(1)), 'GOOD');
});

t.test('MODE SELECT takes what MODE SENSE gave, with either block descriptor', async (t) => {
  const { unit, first } = bench();
  unit.control.descriptorSense = true;
  const six = await first.data('1a 00 3f 00 ff');
  six[0] = 0;
  t.equal(await first.result(Buffer.from([0x15, 0x10, 0, 0, six.length]), six), 'GOOD');
  for (const flags of ['00', '10', '08']) {
    const ten = await first.data(`5a ${flags} 3f 00 00 00 00 10 00`);
    t.equal(await first.result(Buffer.from([0x55, 0x10, 0, 0, 0, 0, 0, 0, ten.length]), ten), 'GOOD', flags);
  }
  t.ok(unit.control.descriptorSense);
});

t.test('MODE SELECT refuses what it cannot take, whole', async (t) => {
  const { unit, first } = bench();
  const send = (list: string): Promise<string> => {
    const bytes = Buffer.from(list, 'hex');
    return first.result(Buffer.from([0x15, 0x10, 0, 0, bytes.length]), bytes);
  };
  const protect = controlWith('02', '08');
  t.equal(await first.result('15 00 00 00 00'), '05/24/00', 'PF');
  t.equal(await first.result('15 12 00 00 00'), '05/24/00', 'RTD');
  t.equal(await first.result('15 10 00 00 00'), 'GOOD', 'nothing');
  t.equal(await first.result('15 10 00 00 10', Buffer.alloc(8)), '05/1a/00', 'less came');
  t.equal(await send('000000'), '05/1a/00');
  t.equal(await send('00000008'), '05/1a/00', 'cut in the block descriptor');
  t.equal(await send('00000000' + '0a'), '05/1a/00', 'cut in a page');
  t.equal(await send('00000000' + '0a0a00'), '05/1a/00', 'cut in a page');
  t.equal(await send(`00000008${'0020000000001000'}${protect}`), '05/26/00', 'another block length');
  t.equal(await send(`00000008${'0010000000000200'}${protect}`), '05/26/00', 'another capacity');
  t.equal(await send(`00000004${'00000200'}${protect}`), '05/26/00', 'a descriptor of no known length');
  t.equal(await send('00000000' + '0202aabb'), '05/26/00', 'no such page');
  t.equal(await send('00000000' + '0a020000'), '05/26/00', 'a page of the wrong length');
  t.equal(await send(`00000000${protect}0812${zeros(18)}`), '05/26/00', 'WCE cannot be cleared');
  t.equal(await send(`00000000${'0a0a021008000000ffff0000'}`), '05/26/00', 'nor TAS');
  t.notOk(unit.control.softwareWriteProtect, 'none of it was taken');
  t.equal(await send(`00000008${'0000000000000200'}${protect}`), 'GOOD', 'zero blocks: as it is');
  t.ok(unit.control.softwareWriteProtect);
});

t.test('the others hear of a change, and of none where nothing changed', async (t) => {
  const { first, second } = bench();
  for (const each of [first, second]) await each.result('00');
  t.equal(await select(first, controlWith('02', '00')), 'GOOD');
  t.equal(await second.result('00'), 'GOOD');
  t.equal(await select(first, controlWith('06', '00')), 'GOOD');
  t.equal(await first.result('00'), 'GOOD', 'not who did it');
  t.equal(await second.result('00'), '06/2a/01');
});

t.test('D_SENSE gives sense data the descriptor format, for everybody', async (t) => {
  const { first, second } = bench();
  const format = async (): Promise<number> => {
    const reply = await second.send('1a 08 02 00 ff');
    t.equal(outcome(reply), '05/24/00');
    return reply.sense![0]!;
  };
  t.equal(await format(), 0x70);
  t.equal(await select(first, controlWith('06', '00')), 'GOOD');
  t.equal(await second.result('00'), '06/2a/01');
  t.equal(await format(), 0x72);
  t.equal(await select(first, controlWith('02', '00')), 'GOOD');
  await second.result('00');
  t.equal(await format(), 0x70);
});

t.test(
  'write protection waits until what was written is durable, and refuses writes meanwhile',
  async (t) => {
    const { device, unit, first, second } = bench();
    t.equal(await first.write(0, pattern(1)), 'GOOD');
    device.paused = true;
    device.calls.length = 0;
    let answer = '';
    const selected = select(first, controlWith('02', '08')).then((result) => {
      answer = result;
    });
    t.equal(await second.write(8, pattern(1)), '07/27/00');
    t.same(device.calls, ['flush']);
    t.equal(answer, '');
    device.release();
    await selected;
    t.equal(answer, 'GOOD');
    t.equal(await first.result(cdb10(0x35, 0, 0, 0)), 'GOOD', 'SYNCHRONIZE CACHE writes nothing new');
    t.equal(await select(first, controlWith('02', '00')), 'GOOD');
    t.same(device.calls, ['flush', 'flush'], 'nothing to flush when it is taken off');
    device.failure = { operation: 'flush', error: new WeftError('IO_ERROR', 'x') };
    t.equal(await select(first, controlWith('02', '08')), '03/0c/00');
    t.notOk(unit.control.softwareWriteProtect, 'a flush that fails protects nothing');
  },
);

t.test('saved values are there after a restart and a reset, unsaved ones are not', async (t) => {
  const { server, first, kept } = bench();
  t.equal(await select(first, controlWith('06', '08')), 'GOOD');
  t.equal(kept.saves, 0);
  t.equal(await bench({ kept }).first.write(0, pattern(1)), 'GOOD', 'not saved');
  server.resetUnit(Buffer.alloc(8));
  await first.result('00');
  t.equal((await first.data('1a 08 0a 00 ff')).toString('hex', 4), control, 'after a reset: the defaults');

  t.equal(await select(first, controlWith('06', '08'), '11'), 'GOOD');
  t.equal(kept.saves, 1);
  const saved = '8a0a061008400000ffff0000';
  const again = bench({ kept });
  t.equal((await again.first.data('1a 08 0a 00 ff')).toString('hex', 2, 3), '90', 'WP');
  t.equal((await again.first.data('1a 08 0a 00 ff')).toString('hex', 4), saved);
  t.equal(await again.first.write(0, pattern(1)), '07/27/00', 'write-protected from the first command');
  t.equal(await select(again.first, controlWith('02', '00')), 'GOOD');
  t.equal(await again.first.write(0, pattern(1)), 'GOOD');
  again.server.resetUnit(Buffer.alloc(8));
  await again.first.result('00');
  t.equal(
    (await again.first.data('1a 08 0a 00 ff')).toString('hex', 4),
    saved,
    'after a reset: the saved ones',
  );
});

t.test('SP saves the current values, also those that came without a page', async (t) => {
  const { first, kept } = bench();
  t.equal(await select(first, controlWith('06', '00')), 'GOOD');
  t.equal(await first.result('15 11 00 00 00'), 'GOOD', 'an empty list');
  t.same(kept.durable?.modeParameters, { descriptorSense: true, softwareWriteProtect: false });
});

t.test('a MODE SELECT that cannot be saved has changed nothing', async (t) => {
  const { unit, first, second, kept } = bench();
  for (const each of [first, second]) await each.result('00');
  kept.failure = new WeftError('IO_ERROR', 'x');
  t.equal(await select(first, controlWith('06', '08'), '11'), '04/44/00');
  t.same(unit.control, { descriptorSense: false, softwareWriteProtect: false });
  t.equal(await second.result('00'), 'GOOD', 'nobody hears of it');
  t.equal(await second.write(0, pattern(1)), 'GOOD');
  kept.failure = null;
  t.equal(await select(first, controlWith('02', '08'), '11'), 'GOOD');
  kept.failure = new WeftError('UNAVAILABLE', 'x');
  t.equal(await select(first, controlWith('02', '00'), '11'), '02/04/01');
  t.ok(unit.control.softwareWriteProtect, 'protected as before');
});

t.test('what could not be saved does not come with the next save, nor after a reset', async (t) => {
  const { server, first, kept } = bench();
  kept.failure = new WeftError('IO_ERROR', 'x');
  t.equal(await select(first, controlWith('06', '08'), '11'), '04/44/00');
  kept.failure = null;
  const register = Buffer.alloc(24);
  register[15] = 1;
  register[20] = 1;
  t.equal(await first.result('5f 00 00 00 00 00 00 00 18 00', register), 'GOOD');
  t.equal(kept.durable?.modeParameters, null);
  server.resetUnit(Buffer.alloc(8));
  await first.result('00');
  t.equal((await first.data('1a 08 0a 00 ff')).toString('hex', 4), control);
});

t.test('write protection ends when its end is durable', async (t) => {
  const { first, second, kept } = bench();
  await select(first, controlWith('02', '08'), '11');
  await second.result('00');
  kept.paused = true;
  const selected = select(first, controlWith('02', '00'), '11');
  t.equal(await second.write(0, pattern(1)), '07/27/00');
  kept.release();
  t.equal(await selected, 'GOOD');
  t.equal(await second.result('00'), '06/2a/01');
  t.equal(await second.write(0, pattern(1)), 'GOOD');
});

t.test('MODE SELECT and PERSISTENT RESERVE OUT do not lose each other’s state', async (t) => {
  const { first, kept } = bench();
  kept.paused = true;
  const register = Buffer.alloc(24);
  register[15] = 1;
  register[20] = 1;
  const registering = first.result('5f 00 00 00 00 00 00 00 18 00', register);
  const selecting = select(first, controlWith('06', '00'), '11');
  await new Promise(setImmediate);
  t.equal(kept.waiting, 1, 'one at a time');
  kept.release();
  t.same(await Promise.all([registering, selecting]), ['GOOD', 'GOOD']);
  t.equal(kept.durable?.persistentReservations?.registrations.length, 1);
  t.equal(kept.durable?.modeParameters?.descriptorSense, true);
});

t.test('a capacity of more than 32 bits is shown as such', async (t) => {
  const { first } = bench({ sizeBytes: 4096 * GiB });
  t.equal((await first.data('1a 00 0a 00 ff')).toString('hex', 4, 8), 'ffffffff');
  t.equal((await first.data('5a 10 0a 00 00 00 00 10 00')).toString('hex', 8, 16), '0000000200000000');
});
