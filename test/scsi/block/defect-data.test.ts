import t from 'tap';
import { bench } from '../initiator.ts';

t.test('READ DEFECT DATA(10) has an empty list in every format of addresses', async (t) => {
  const { first } = bench();
  for (const format of [0, 3, 4, 5]) {
    const asked = (0x18 | format).toString(16);
    t.equal((await first.data(`37 00 ${asked} 00 00 00 00 00 ff`)).toString('hex'), `00${asked}0000`);
  }
  t.equal((await first.data('37 00 08 00 00 00 00 00 02')).toString('hex'), '0008');
  for (const format of [1, 2, 6, 7])
    t.equal(await first.result(`37 00 ${(0x18 | format).toString(16)} 00 00 00 00 00 ff`), '05/24/00');
});

t.test('READ DEFECT DATA(12) has a longer header', async (t) => {
  const { first } = bench();
  t.equal((await first.data('b7 1b 00 00 00 00 00 00 00 ff')).toString('hex'), '001b000000000000');
  t.equal((await first.data('b7 18 00 00 00 00 00 00 00 04')).toString('hex'), '00180000');
  t.equal(await first.result('b7 1f 00 00 00 00 00 00 00 ff'), '05/24/00');
});
