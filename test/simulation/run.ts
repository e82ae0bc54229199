/** npm run sim: lives from many seeds, and for each that fails how to replay it. */
import { parseArgs } from 'node:util';
import { type LifeReport, liveThroughCrashes } from './crash-points.ts';
import { liveOnFullDisk, liveOnGivenBackRoom, liveThroughErrors, liveWithRot } from './faults.ts';

type Durability = 'flush' | 'sync';

const scenarios: Record<string, (seed: number, durability: Durability) => Promise<LifeReport>> = {
  crash: liveThroughCrashes,
  errors: liveThroughErrors,
  full: liveOnFullDisk,
  'give-back': liveOnGivenBackRoom,
  rot: liveWithRot,
};

const usage = `npm run sim -- [--seeds N] [--from S] [--durability flush|sync] [--scenario ${Object.keys(scenarios).join('|')}]

Lives through N seeds (100) from S (1) on, in both durabilities and all scenarios unless told otherwise.`;

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '100' },
    from: { type: 'string', default: '1' },
    durability: { type: 'string' },
    scenario: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  },
});
const [count, from] = [Number(values.seeds), Number(values.from)];
const { durability, scenario } = values;
const isRight =
  Number.isSafeInteger(count) &&
  Number.isSafeInteger(from) &&
  (durability === undefined || durability === 'flush' || durability === 'sync') &&
  (scenario === undefined || scenario in scenarios);
if (values.help || !isRight) {
  process.stderr.write(`${usage}\n`);
  process.exit(values.help ? 0 : 2);
}

let [lives, failed, crashes, operations, adoptions] = [0, 0, 0, 0, 0];
for (let seed = from; seed < from + count; seed++) {
  for (const name of scenario === undefined ? Object.keys(scenarios) : [scenario]) {
    for (const mode of durability === undefined ? (['flush', 'sync'] as const) : [durability as Durability]) {
      const faults = await faultsOf(name, seed, mode);
      lives += 1;
      if (faults.length === 0) continue;
      failed += 1;
      process.stdout.write(`FAILED ${name}, seed ${seed}, ${mode}:\n`);
      for (const fault of faults.slice(0, 5)) process.stdout.write(`  ${fault}\n`);
      process.stdout.write(
        `  replay: npm run sim -- --seeds 1 --from ${seed} --durability ${mode} --scenario ${name}\n`,
      );
    }
  }
}
process.stdout.write(
  `${lives} lives, ${crashes} crashes, ${operations} operations, ${adoptions} journal files kept: ${failed} failed\n`,
);
process.exit(failed > 0 ? 1 : 0);

async function faultsOf(name: string, seed: number, mode: Durability): Promise<string[]> {
  try {
    const report = await scenarios[name]!(seed, mode);
    crashes += report.crashes;
    operations += report.operations;
    adoptions += report.adoptions;
    return report.faults;
  } catch (error) {
    return [(error as Error).stack ?? String(error)];
  }
}
