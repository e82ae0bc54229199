import t from 'tap';
import type { LifeReport } from './crash-points.ts';
import { liveOnFullDisk, liveThroughErrors, liveWithRot } from './faults.ts';

type Life = (seed: number, durability: 'flush' | 'sync') => Promise<LifeReport>;

async function expectNoFaults(t: Tap, seeds: number, scenario: string, life: Life): Promise<void> {
  for (let seed = 1; seed <= seeds; seed++) {
    const durability = seed % 2 === 0 ? 'flush' : 'sync';
    const { faults } = await life(seed, durability);
    const replay = `npm run sim -- --scenario ${scenario} --seeds 1 --from ${seed} --durability ${durability}`;
    if (faults.length > 0) t.fail(`${replay}: ${faults.slice(0, 3).join('; ')}`);
  }
  t.pass(`${seeds} seeds`);
}
type Tap = { fail(message: string): boolean; pass(message: string): boolean };

t.test('errors of the disk lose nothing that was promised', (t) =>
  expectNoFaults(t, 12, 'errors', liveThroughErrors),
);
t.test('on a full disk nothing is lost, and room that is added is used', (t) =>
  expectNoFaults(t, 10, 'full', liveOnFullDisk),
);
t.test('what rotted reads as CORRUPT or as it was, never as anything else', (t) =>
  expectNoFaults(t, 12, 'rot', liveWithRot),
);
