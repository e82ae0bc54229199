import t from 'tap';
import { simulate } from './simulator.ts';

const promises = {
  errors: 'errors of the disk lose nothing that was promised',
  full: 'on a full disk nothing is lost, and room that is added is used',
  'give-back': 'on a full disk, room that unmaps give back is used',
  rot: 'what rotted reads as CORRUPT or as it was, never as anything else',
};
const seeds = 8;

for (const [scenario, promise] of Object.entries(promises)) {
  for (const durability of ['flush', 'sync'] as const) {
    t.test(`${promise} (${durability})`, async (t) => {
      const run = await simulate(scenario, durability, seeds);
      t.equal(run.failed, 0, run.output);
      t.equal(run.lives, seeds);
    });
  }
}
