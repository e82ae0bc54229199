import t from 'tap';
import { simulate } from './simulator.ts';

/** 70 seeds of three crashes each: over 200 crash points in each mode. */
const seeds = 70;

for (const durability of ['flush', 'sync'] as const) {
  t.test(`in ${durability} mode no crash loses what was promised, and no torn block is seen`, async (t) => {
    const run = await simulate('crash', durability, seeds);
    t.equal(run.failed, 0, run.output);
    t.equal(run.lives, seeds);
    t.ok(run.adoptions >= 20, `${run.adoptions} journal files were kept as segments`);
    t.ok(run.crashes >= 200, `${run.crashes} crash points`);
  });
}
