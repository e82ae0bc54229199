import t from 'tap';
import { liveThroughKill } from './kill-points.ts';

t.test(
  'killed before any request to the fabric, the plugin carries on: no data lost, nothing left',
  async (t) => {
    const steps: string[] = [];
    for (let at = 1; ; at += 1) {
      const step = await liveThroughKill(t, 'request', { at, when: 'before' });
      if (step === null) break;
      steps.push(step);
    }
    t.ok(steps.length >= 10, steps.join(', '));
  },
);
