import t from 'tap';
import { type Job, VolumeQueue } from '../../plugin/volume-queue.ts';

const job = (): Job => ({ step: 'test', abandoned: false });
const nobody = new AbortController().signal;

function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

t.test('operations of a volume run one after the other, those of others do not wait', async (t) => {
  const queue = new VolumeQueue();
  const { open, opened } = gate();
  const order: string[] = [];
  const first = queue.run('a', job(), async () => {
    await opened;
    order.push('a1');
    throw new Error('failed');
  });
  const second = queue.run('a', job(), async () => order.push('a2'));
  await queue.run('b', job(), async () => order.push('b1'));
  t.equal(queue.waiting('a'), 1);
  open();
  await t.rejects(first, /failed/);
  await second;
  await queue.idle();
  t.same(order, ['b1', 'a1', 'a2']);
  t.equal(queue.busy, false);
});

t.test('a caller is told what it waited for, and the operation goes on without it', async (t) => {
  const queue = new VolumeQueue();
  const { open, opened } = gate();
  let wasAbandoned = false;
  const slow = queue.runBounded('a', 20, nobody, async (running) => {
    running.step = 'the check of its filesystem';
    await opened;
    wasAbandoned = running.abandoned;
  });
  const behind = queue.runBounded('a', 20, nobody, async () => {});
  await t.rejects(slow, {
    code: 'TIMEOUT',
    message: /waited 0.02 s for the check of its filesystem; it goes on/,
  });
  await t.rejects(behind, {
    code: 'TIMEOUT',
    message: /an earlier operation \(the check of its filesystem\)/,
  });
  open();
  await queue.idle();
  t.equal(wasAbandoned, true);
});

t.test('a caller that goes away abandons its operation', async (t) => {
  const queue = new VolumeQueue();
  const caller = new AbortController();
  const { open, opened } = gate();
  let wasAbandoned = false;
  const call = queue.runBounded('a', 10_000, caller.signal, async (running) => {
    await opened;
    wasAbandoned = running.abandoned;
  });
  caller.abort();
  await t.rejects(call, /the caller went away/);
  open();
  await queue.idle();
  t.equal(wasAbandoned, true);
});

t.test('a volume that nobody gets through to refuses more work', async (t) => {
  const queue = new VolumeQueue();
  const { open, opened } = gate();
  const calls = Array.from({ length: 64 }, () => queue.run('a', job(), () => opened));
  await t.rejects(
    queue.run('a', job(), async () => {}),
    { code: 'UNAVAILABLE' },
  );
  open();
  await Promise.all(calls);
});
