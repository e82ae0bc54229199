import t from 'tap';
import { liveThroughCrashes } from './crash-points.ts';

/** 70 seeds of three crashes each: over 200 crash points in each mode. */
const seeds = 70;

for (const durability of ['flush', 'sync'] as const) {
  t.test(`in ${durability} mode no crash loses what was promised, and no torn block is seen`, async (t) => {
    let crashes = 0;
    for (let seed = 1; seed <= seeds; seed++) {
      const report = await liveThroughCrashes(seed, durability);
      crashes += report.crashes;
      if (report.faults.length > 0) t.fail(`seed ${seed}: ${report.faults.slice(0, 3).join('; ')}`);
    }
    t.ok(crashes >= 200, `${crashes} crash points`);
  });
}
