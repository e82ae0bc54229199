import t from 'tap';
import { KiB, MiB } from '../../daemon/base/limits.ts';
import { TransferBuffers } from '../../daemon/iscsi/transfer-buffers.ts';
import { ManualClock } from './fixture.ts';

function open(limitBytes?: number, clock = new ManualClock(), refused = () => {}): TransferBuffers {
  return new TransferBuffers(clock, refused, limitBytes);
}

t.test('buffers are as long as asked for, and reused by size class', async (t) => {
  const pool = open();
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
    const pool = open(MiB);
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
    t.equal(takeAll(open(64 * MiB).share('a')), 32 * MiB);
    const pool = open(64 * MiB);
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
    const pool = open(512 * MiB);
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
  const pool = open();
  const share = pool.share('a');
  const buffer = share.take(4 * KiB)!;
  share.forget(buffer);
  t.equal(pool.usedBytes, 0);
  t.not(share.take(4 * KiB)!.buffer, buffer.buffer);
});

t.test('a small part is reserved for each source, whatever others hold', async (t) => {
  const pool = open(512 * MiB);
  const hostile = Array.from({ length: 40 }, (_, n) => pool.share(`hostile-${n}`));
  for (const share of hostile) while (share.take(2 * MiB) !== null) {}
  for (const share of hostile) while (share.take(4 * KiB) !== null) {}
  t.ok(pool.usedBytes <= 576 * MiB, 'which has a limit of its own');
  const few = open(512 * MiB);
  for (let n = 0; n < 20; n += 1) while (few.share(`hostile-${n}`).take(8 * MiB) !== null) {}
  const healthy = few.share('healthy');
  const first = healthy.take(MiB)!;
  const second = healthy.take(MiB)!;
  t.ok(first && second, '2 MiB');
  t.equal(few.share('healthy').take(4 * KiB), null, 'for all sessions of the source');
  healthy.give(first);
  healthy.give(second);
  for (let n = 0; n < 1000; n += 1) healthy.give(healthy.take(2 * MiB)!);
});

t.test('a source that is curbed holds little for a minute, also when it comes back', async (t) => {
  const clock = new ManualClock();
  let refusals = 0;
  const pool = open(512 * MiB, clock, () => {
    refusals += 1;
  });
  const takeAll = (source: string) => {
    const share = pool.share(source);
    const buffers: Buffer[] = [];
    for (let buffer = share.take(MiB); buffer !== null; buffer = share.take(MiB)) buffers.push(buffer);
    for (const buffer of buffers) share.give(buffer);
    pool.leave(source);
    return buffers.length;
  };
  t.equal(takeAll('a'), 256);
  t.equal(refusals, 1);
  const staying = pool.share('a');
  pool.curb('a');
  clock.pass(30_000);
  pool.curb('a');
  t.equal(takeAll('a'), 16);
  pool.leave('a');
  clock.pass(59_000);
  t.equal(takeAll('a'), 16, 'the last time counts');
  t.equal(takeAll('b'), 256);
  t.ok(staying.take(MiB));
  clock.pass(1_000);
  t.equal(takeAll('a'), 256);
});
