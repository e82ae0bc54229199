import t from 'tap';
import { KiB, MiB, maxTransferBytes } from '../../daemon/base/limits.ts';
import { BufferPool } from '../../daemon/scsi/buffer-pool.ts';

t.test('a buffer is of the smallest class that holds what is asked for', async (t) => {
  const pool = new BufferPool();
  const table = [
    [512, 4 * KiB],
    [4 * KiB, 4 * KiB],
    [4 * KiB + 1, 8 * KiB],
    [8 * KiB, 8 * KiB],
    [MiB, MiB],
    [MiB + 1, 2 * MiB],
    [maxTransferBytes, maxTransferBytes],
  ] as const;
  for (const [asked, size] of table) t.equal(pool.take(asked).length, size, `${asked}`);
  t.throws(() => pool.take(maxTransferBytes * 2), /maxTransferBytes/);
});

t.test('a buffer given back is taken again', async (t) => {
  const pool = new BufferPool();
  const buffer = pool.take(10 * KiB);
  pool.give(buffer);
  t.equal(pool.idleBytes, 16 * KiB);
  t.equal(pool.take(16 * KiB), buffer);
  t.equal(pool.idleBytes, 0);
});

t.test('no more rests in the pool than its limit', async (t) => {
  const pool = new BufferPool(8 * KiB);
  const buffers = [pool.take(4 * KiB), pool.take(4 * KiB), pool.take(4 * KiB)];
  for (const buffer of buffers) pool.give(buffer);
  t.equal(pool.idleBytes, 8 * KiB);
});
