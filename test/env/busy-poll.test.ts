import { spawnSync } from 'node:child_process';
import t from 'tap';
import { pollBusily } from '../../daemon/env/busy-poll.ts';

t.test('the loop polls for a moment after activity, then sleeps again', async (t) => {
  const before = performance.eventLoopUtilization();
  pollBusily();
  // Longer than it polls: what is idle of this time is the loop asleep.
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const { idle, active } = performance.eventLoopUtilization(before);
      if (idle < 20) return;
      clearInterval(timer);
      t.ok(active < idle, `${active} ms active, ${idle} ms asleep`);
      resolve();
    }, 5);
  });
});

t.test('polling keeps no process alive', async (t) => {
  const module = new URL('../../daemon/env/busy-poll.ts', import.meta.url).href;
  const script = `(await import(${JSON.stringify(module)})).pollBusily()`;
  const ended = spawnSync(process.execPath, ['--input-type=module', '-e', script], { timeout: 20_000 });
  t.equal(ended.status, 0);
});
