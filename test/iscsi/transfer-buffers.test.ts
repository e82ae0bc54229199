import t from 'tap';
import { KiB, MiB } from '../../daemon/base/limits.ts';
import { TransferBuffers } from '../../daemon/iscsi/transfer-buffers.ts';

t.test('buffers are as long as asked for, and reused by size class', async (t) => {
  const pool = new TransferBuffers();
  const share = pool.share('a');
  const first = share.take(5000)!;
  t.equal(first.length, 5000);
  t.equal(pool.usedBytes, 8 * KiB);
  share.give(first);
  t.equal(pool.usedBytes, 0);
  const second = share.take(8 * KiB)!;
  t.equal(second.buffer, first.buffer);
  t.equal(second.length, 8 * KiB);
  t.not(share.take(8 * KiB)!.buffer, second.buffer, 'a buffer in use is not given twice');
});

t.test(
  'the limit holds over all sizes, and a session that holds nothing may take what is there',
  async (t) => {
    const pool = new TransferBuffers(MiB);
    const share = pool.share('a');
    const big = share.take(MiB)!;
    t.equal(pool.share('a').take(1), null);
    share.give(big);
    t.ok(pool.share('a').take(1));
  },
);

t.test(
  'one session alone gets half; of several that take all they can get, each gets as much as stays free',
  async (t) => {
    const takeAll = (share: ReturnType<TransferBuffers['share']>) => {
      let bytes = 0;
      while (share.take(64 * KiB) !== null) bytes += 64 * KiB;
      return bytes;
    };
    t.equal(takeAll(new TransferBuffers(64 * MiB).share('a')), 32 * MiB);
    const pool = new TransferBuffers(64 * MiB);
    const greedy = pool.share('a');
    const held: Buffer[] = [];
    for (let buffer = greedy.take(64 * KiB); buffer !== null; buffer = greedy.take(64 * KiB))
      held.push(buffer);
    const others = Array.from({ length: 62 }, () => pool.share('a'));
    for (const other of others) t.ok(other.take(64 * KiB), 'everyone gets on');
    t.ok(greedy.isOver, 'and who holds more than its share is told so');
    while (greedy.isOver) greedy.give(held.pop()!);
    t.ok(pool.usedBytes < 48 * MiB);
  },
);

t.test(
  'sessions of one source never take all, however many they are; when they end, nothing is left',
  async (t) => {
    const pool = new TransferBuffers(512 * MiB);
    const held = Array.from({ length: 128 }, () => {
      const share = pool.share('a');
      return { share, buffers: [share.take(8 * MiB), share.take(64 * KiB)] };
    });
    t.equal(pool.share('a').take(64 * KiB), null);
    const other = pool.share('b');
    t.ok(other.take(8 * MiB), 'others have theirs');
    t.ok(other.take(8 * MiB));
    for (const { share, buffers } of held) {
      for (const buffer of buffers) if (buffer !== null) share.give(buffer);
      pool.leave('a');
    }
    t.equal(pool.usedBytes, 16 * MiB);
    pool.leave('a');
    t.throws(() => pool.leave('a'));
  },
);

t.test('a forgotten buffer is counted as given back and never reused', async (t) => {
  const pool = new TransferBuffers();
  const share = pool.share('a');
  const buffer = share.take(4 * KiB)!;
  share.forget(buffer);
  t.equal(pool.usedBytes, 0);
  t.not(share.take(4 * KiB)!.buffer, buffer.buffer);
});
