import t from 'tap';
import { KiB } from '../../daemon/base/limits.ts';
import { TransferBuffers } from '../../daemon/iscsi/transfer-buffers.ts';

t.test('buffers are as long as asked for, and reused by size class', async (t) => {
  const pool = new TransferBuffers();
  const first = pool.take(5000)!;
  t.equal(first.length, 5000);
  t.equal(pool.usedBytes, 8 * KiB);
  pool.give(first);
  t.equal(pool.usedBytes, 0);
  const second = pool.take(8192)!;
  t.equal(second.buffer, first.buffer);
  t.equal(second.length, 8192);
  t.not(pool.take(8192)!.buffer, first.buffer, 'a buffer in use is not given twice');
});

t.test('the limit holds over all sizes', async (t) => {
  const pool = new TransferBuffers(64 * KiB);
  const buffers = Array.from({ length: 16 }, () => pool.take(512)!);
  t.equal(pool.take(1), null);
  pool.give(buffers.pop()!);
  t.ok(pool.take(4096));
  t.equal(pool.take(1), null);
});

t.test('a forgotten buffer is counted as given back and never reused', async (t) => {
  const pool = new TransferBuffers();
  const first = pool.take(4096)!;
  pool.forget(first);
  t.equal(pool.usedBytes, 0);
  t.not(pool.take(4096)!.buffer, first.buffer);
});
