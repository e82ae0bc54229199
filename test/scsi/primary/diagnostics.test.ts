import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { bench } from '../initiator.ts';

t.test('the default self test reads the unit, and fails when it cannot be read', async (t) => {
  const { device, first } = bench();
  t.equal(await first.result('1d 04'), 'GOOD');
  t.same(device.calls, ['read 0+512']);
  device.failure = { operation: 'read', error: new WeftError('IO_ERROR', 'x') };
  t.equal(await first.result('1d 04'), '04/3e/03');
  device.failure = null;
  t.equal(await first.result('1d 04 00 00 08', Buffer.alloc(8)), '05/24/00', 'a self test takes no list');
  for (const code of ['20', '40', '80', 'a0', 'c0'])
    t.equal(await first.result(`1d ${code}`), '05/24/00', `SELF-TEST CODE ${code}`);
});

t.test('the one diagnostic page is the list of pages', async (t) => {
  const { first } = bench();
  t.equal(await first.result('1d 00'), 'GOOD', 'nothing asked for');
  t.equal(await first.result('1d 10 00 00 04', Buffer.alloc(4)), 'GOOD');
  t.equal(await first.result('1d 10 00 00 04', Buffer.from('10000000', 'hex')), '05/26/00', 'another page');
  t.equal(await first.result('1d 10 00 00 05', Buffer.alloc(5)), '05/26/00', 'more than the page');
  t.equal(await first.result('1d 10 00 00 04', Buffer.alloc(3)), '05/1a/00', 'less came');
  t.equal((await first.data('1c 01 00 00 ff')).toString('hex'), '0000000100');
  t.equal((await first.data('1c 00 00 00 ff')).toString('hex'), '0000000100');
  t.equal((await first.data('1c 01 00 00 04')).toString('hex'), '00000001');
  t.equal(await first.result('1c 01 40 00 ff'), '05/24/00');
});
