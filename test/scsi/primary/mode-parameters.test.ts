import t from 'tap';
import { GiB } from '../../../daemon/base/limits.ts';
import { bench, pattern } from '../initiator.ts';

const control = '0a0a00100000' + '0000ffff0000';
const zeros = (bytes: number): string => '00'.repeat(bytes);
const caching = `081204${zeros(17)}`;
const exceptions = `1c0a08${zeros(9)}`;

t.test('MODE SENSE returns header, block descriptor and pages', async (t) => {
  const { first } = bench();
  t.equal(
    (await first.data('1a 00 3f 00 ff')).toString('hex'),
    `37001008${'0020000000000200'}${caching}${control}${exceptions}`,
  );
  t.equal(
    (await first.data('1a 08 3f 00 ff')).toString('hex'),
    `2f001000${caching}${control}${exceptions}`,
    'DBD',
  );
  t.equal((await first.data('1a 08 3f ff ff')).length, 48, 'all subpages');
  t.equal((await first.data('1a 08 08 00 ff')).toString('hex'), `17001000${caching}`);
  t.equal((await first.data('1a 08 3f 00 04')).toString('hex'), '2f001000', 'cut');
  t.equal(
    (await first.data('5a 00 0a 00 00 00 00 10 00')).toString('hex'),
    `001a001000000008${'0020000000000200'}${control}`,
  );
  t.equal(
    (await first.data('5a 10 0a 00 00 00 00 10 00')).toString('hex'),
    `0022001001000010${'00000000002000000000000000000200'}${control}`,
    'LLBAA',
  );
});

t.test('MODE SENSE of changeable, default and saved values', async (t) => {
  const { unit, first } = bench();
  unit.control.softwareWriteProtect = true;
  t.equal((await first.data('1a 08 4a 00 ff')).toString('hex', 4), `0a0a04000800${zeros(6)}`);
  t.equal(
    (await first.data('1a 08 48 00 ff')).toString('hex', 4),
    `0812${zeros(18)}`,
    'WCE cannot be changed',
  );
  t.equal((await first.data('1a 08 8a 00 ff')).toString('hex', 4), control);
  t.equal((await first.data('1a 08 0a 00 ff')).toString('hex', 2, 3), '90', 'WP and DPOFUA');
  t.equal(await first.result('1a 08 ca 00 ff'), '05/39/00');
  t.equal(await first.result('1a 08 01 00 ff'), '05/24/00', 'no such page');
  t.equal(await first.result('1a 08 0a 01 ff'), '05/24/00', 'no such subpage');
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
  const list = (swp: string): Buffer => Buffer.from(`00000000${'0a0a0010'}${swp}00${'0000ffff0000'}`, 'hex');
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
  const select = (list: string): Promise<string> => {
    const bytes = Buffer.from(list, 'hex');
    return first.result(Buffer.from([0x15, 0x10, 0, 0, bytes.length]), bytes);
  };
  const protect = '0a0a001008000000ffff0000';
  t.equal(await first.result('15 00 00 00 00'), '05/24/00', 'PF');
  t.equal(await first.result('15 11 00 00 00'), '05/24/00', 'SP');
  t.equal(await first.result('15 10 00 00 00'), 'GOOD', 'nothing');
  t.equal(await first.result('15 10 00 00 10', Buffer.alloc(8)), '05/1a/00', 'less came');
  t.equal(await select('000000'), '05/1a/00');
  t.equal(await select('00000008'), '05/1a/00', 'cut in the block descriptor');
  t.equal(await select('00000000' + '0a'), '05/1a/00', 'cut in a page');
  t.equal(await select('00000000' + '0a0a00'), '05/1a/00', 'cut in a page');
  t.equal(await select(`00000008${'0020000000001000'}${protect}`), '05/26/00', 'another block length');
  t.equal(await select(`00000008${'0010000000000200'}${protect}`), '05/26/00', 'another capacity');
  t.equal(await select(`00000004${'00000200'}${protect}`), '05/26/00', 'a descriptor of no known length');
  t.equal(await select('00000000' + '0102aabb'), '05/26/00', 'no such page');
  t.equal(await select('00000000' + '0a020000'), '05/26/00', 'a page of the wrong length');
  t.equal(await select(`00000000${protect}0812${zeros(18)}`), '05/26/00', 'WCE cannot be cleared');
  t.notOk(unit.control.softwareWriteProtect, 'none of it was taken');
  t.equal(await select(`00000008${'0000000000000200'}${protect}`), 'GOOD', 'zero blocks: as it is');
  t.ok(unit.control.softwareWriteProtect);
});

t.test('a capacity of more than 32 bits is shown as such', async (t) => {
  const { first } = bench({ sizeBytes: 4096 * GiB });
  t.equal((await first.data('1a 00 0a 00 ff')).toString('hex', 4, 8), 'ffffffff');
  t.equal((await first.data('5a 10 0a 00 00 00 00 10 00')).toString('hex', 8, 16), '0000000200000000');
});
