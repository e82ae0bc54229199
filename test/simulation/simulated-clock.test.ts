import t from 'tap';
import { SeededRandom } from './seeded-random.ts';
import { SimulatedClock } from './simulated-clock.ts';

function simulation(seed = 1) {
  const random = new SeededRandom(seed);
  return { random, clock: new SimulatedClock(random.fork()) };
}

t.test('a seed repeats its numbers, and another gives others', async (t) => {
  const draw = (seed: number) => {
    const random = new SeededRandom(seed);
    return [random.word(), random.next(), random.below(1000), random.bytes(8).toString('hex')];
  };
  t.same(draw(7), draw(7));
  t.notSame(draw(7), draw(8));
  t.notSame(draw(0), draw(1));
});

t.test('numbers are spread evenly', async (t) => {
  const random = new SeededRandom(3);
  const counts = new Array<number>(10).fill(0);
  for (let draw = 0; draw < 20_000; draw++) counts[random.below(10)]! += 1;
  for (const count of counts) t.ok(count > 1800 && count < 2200, `${count} of about 2000`);
});

t.test('timers fire in the order of their times, and only as time passes', async (t) => {
  const { clock } = simulation();
  const fired: string[] = [];
  clock.after(30, () => fired.push(`c at ${clock.monotonicMs()}`));
  clock.after(10, () => fired.push(`a at ${clock.monotonicMs()}`));
  const cancelled = clock.after(20, () => fired.push('b'));
  cancelled.cancel();
  await clock.idle();
  t.same(fired, [], 'timers are no work');
  await clock.advance(10);
  t.same(fired, ['a at 10']);
  await clock.advance(100);
  t.same(fired, ['a at 10', 'c at 30']);
  t.equal(clock.monotonicMs(), 110);
});

t.test('works in flight overtake each other, the same way for the same seed', async (t) => {
  const orderOf = async (seed: number) => {
    const { clock } = simulation(seed);
    const order: number[] = [];
    for (let work = 0; work < 20; work++) clock.schedule(() => order.push(work));
    t.same(order, [], 'nothing happens at once');
    await clock.idle();
    return order;
  };
  const first = await orderOf(5);
  t.same(first, await orderOf(5));
  t.notSame(first, await orderOf(6));
  t.notSame(
    first,
    first.toSorted((a, b) => a - b),
  );
});

t.test('idle lets chains of promises and works come to their end', async (t) => {
  const { clock } = simulation();
  let steps = 0;
  const chain = async () => {
    for (let step = 0; step < 50; step++) {
      await new Promise<void>((resolve) => clock.schedule(resolve));
      await Promise.resolve();
      if (step % 10 === 0) await new Promise<void>((resolve) => setImmediate(resolve));
      steps += 1;
    }
  };
  const done = chain();
  await clock.idle();
  t.equal(steps, 50);
  await done;
});

t.test('run stops where the condition holds, and says when it never will', async (t) => {
  const { clock } = simulation();
  let count = 0;
  const again = () => {
    count += 1;
    clock.after(100, again);
  };
  clock.after(100, again);
  t.equal(await clock.run(() => count === 3), true);
  t.equal(clock.monotonicMs(), 300);
  const { clock: empty } = simulation();
  t.equal(await empty.run(() => false), false);
  await t.rejects(empty.settle(new Promise(() => {})), { message: /has not settled/ });
  t.equal(await clock.settle(new Promise((resolve) => clock.after(5, () => resolve('x')))), 'x');
});

t.test('a simulation that turns in a circle ends with an error', async (t) => {
  const { clock } = simulation();
  const again = () => clock.schedule(again);
  again();
  await t.rejects(clock.idle(1000), { message: /within 1000 events/ });
});

t.test('the wall clock jumps, durations do not', async (t) => {
  const { clock } = simulation();
  const before = clock.nowMs();
  clock.jumpWallClock(-5000);
  t.equal(clock.nowMs(), before - 5000);
  t.equal(clock.monotonicMs(), 0);
});
