import t from 'tap';
import { BufferPool } from '../../daemon/base/buffer-pool.ts';
import { KiB, MiB } from '../../daemon/base/limits.ts';

const largestBytes = 8 * MiB;

t.test('a buffer is of the smallest class that holds what is asked for', async (t) => {
  const pool = new BufferPool(largestBytes, MiB);
  const table = [
    [512, 4 * KiB],
    [4 * KiB, 4 * KiB],
    [4 * KiB + 1, 8 * KiB],
    [8 * KiB, 8 * KiB],
    [MiB, MiB],
    [MiB + 1, 2 * MiB],
    [largestBytes, largestBytes],
  ] as const;
  for (const [asked, size] of table) t.equal(pool.take(asked).length, size, `${asked}`);
  t.throws(() => pool.take(largestBytes * 2), /the largest/);
});

t.test('a buffer given back is taken again', async (t) => {
  const pool = new BufferPool(largestBytes, MiB);
  const buffer = pool.take(10 * KiB);
  pool.give(buffer);
  t.equal(pool.idleBytes, 16 * KiB);
  t.equal(pool.take(16 * KiB), buffer);
  t.equal(pool.idleBytes, 0);
});

t.test('no more rests in the pool than its limit', async (t) => {
  const pool = new BufferPool(MiB, 8 * KiB);
  const buffers = [pool.take(4 * KiB), pool.take(4 * KiB), pool.take(4 * KiB)];
  for (const buffer of buffers) pool.give(buffer);
  t.equal(pool.idleBytes, 8 * KiB);
});
