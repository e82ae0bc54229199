/**
 * Runs `npm run sim` as a person would, in a process of its own: below a test runner that watches every promise the
 * same lives take ten times as long.
 */
import { join } from 'node:path';
import { execa } from 'execa';

export interface SimulatorRun {
  lives: number;
  crashes: number;
  adoptions: number;
  failed: number;
  /** Every failed seed with its faults and how to replay it. */
  output: string;
}

export async function simulate(
  scenario: string,
  durability: 'flush' | 'sync',
  seeds: number,
): Promise<SimulatorRun> {
  const program = join(import.meta.dirname, 'run.ts');
  const options = ['--scenario', scenario, '--durability', durability, '--seeds', String(seeds)];
  const { stdout } = await execa(process.execPath, [program, ...options], { all: true, reject: false });
  const [, lives, crashes, adoptions, failed] =
    /(\d+) lives, (\d+) crashes, \d+ operations, (\d+) journal files kept: (\d+) failed$/.exec(stdout) ?? [];
  if (failed === undefined) throw new Error(`the simulator ended without a result:\n${stdout}`);
  return {
    lives: Number(lives),
    crashes: Number(crashes),
    adoptions: Number(adoptions),
    failed: Number(failed),
    output: stdout,
  };
}
