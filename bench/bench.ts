/**
 * Weft against tgt on one machine, through the same initiator: `npm run bench`. What is measured, and how to read it,
 * is in docs/bench.md.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { execa } from 'execa';
import { parseSize } from '../daemon/base/size.ts';
import { formatReport, type Report, type Sample } from './report.ts';
import { type Server, startTgt, startWeft, type Target } from './targets.ts';

export interface Line {
  mode: 'randread' | 'randwrite' | 'read' | 'write';
  blockBytes: number;
  queueDepth: number;
}

const lines: Line[] = [
  ...[1, 16, 64].map((queueDepth) => ({ mode: 'randread', blockBytes: 4096, queueDepth }) as const),
  ...[1, 16, 64].map((queueDepth) => ({ mode: 'randwrite', blockBytes: 4096, queueDepth }) as const),
  { mode: 'read', blockBytes: 131_072, queueDepth: 16 },
  { mode: 'write', blockBytes: 131_072, queueDepth: 16 },
  { mode: 'read', blockBytes: 1_048_576, queueDepth: 8 },
  { mode: 'write', blockBytes: 1_048_576, queueDepth: 8 },
];

function nameOf(line: Line): string {
  return `${line.blockBytes / 1024}k ${line.mode} qd${line.queueDepth}`;
}

/** One line that replaces itself, where there is a terminal. */
function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

const root = join(import.meta.dirname, '..');

async function runLoad(target: Target, line: Line, seconds: number): Promise<Sample> {
  const args = [target.url, line.mode, line.blockBytes, line.queueDepth, seconds].map(String);
  const cpuBefore = await target.cpuSeconds();
  const { stdout } = await execa(join(root, 'build/load'), args, { timeout: (seconds + 60) * 1000 });
  const cpu = (await target.cpuSeconds()) - cpuBefore;
  const measured = JSON.parse(stdout) as Omit<Sample, 'targetCpuSeconds'>;
  return { ...measured, targetCpuSeconds: cpu };
}

async function fill(target: Target): Promise<void> {
  await execa(join(root, 'build/load'), [target.url, 'fill'], { timeout: 600_000 });
}

/** Every line on every target, `repeat` times in turn, so that what disturbs the machine disturbs all of them. */
async function measure(
  targets: Target[],
  chosen: Line[],
  seconds: number,
  repeat: number,
  directory: string,
) {
  const samples = new Map<Line, Map<string, Sample[]>>();
  for (const line of chosen) {
    const byTarget = new Map<string, Sample[]>(targets.map((target) => [target.name, []]));
    samples.set(line, byTarget);
    for (let round = 0; round < repeat; round++) {
      for (const target of targets) {
        progress(`${nameOf(line)}, round ${round + 1} of ${repeat}: ${target.name}`);
        for (const each of targets) await each.quiet();
        await execa('sync', ['-f', directory]);
        byTarget.get(target.name)?.push(await runLoad(target, line, seconds));
      }
    }
  }
  progress('');
  return samples;
}

async function machine(directory: string): Promise<Report['machine']> {
  const { stdout: filesystem } = await execa('findmnt', ['-no', 'FSTYPE', '-T', directory]);
  return {
    cores: cpus().length,
    cpu: cpus()[0]?.model ?? 'unknown',
    kernel: release(),
    memoryBytes: totalmem(),
    filesystem,
    node: process.version,
  };
}

async function main(): Promise<void> {
  const program = new Command('bench')
    .description('measures Weft (flush and sync) against tgt, through the same initiator, on this machine')
    .option('--seconds <n>', 'how long each run measures', Number, 3)
    .option('--repeat <n>', 'runs of each line on each target; the median counts', Number, 3)
    .option('--size <size>', 'size of each LUN', (text: string) => parseSize(text, '--size'), parseSize('1g'))
    .option('--only <text>', 'only lines whose name has this in it, like "randwrite" or "4k randread qd16"')
    .option('--dir <directory>', 'where the data goes', tmpdir())
    .option('--json', 'print everything that was measured as JSON')
    .parse();
  const options = program.opts<{
    seconds: number;
    repeat: number;
    size: number;
    only?: string;
    dir: string;
    json?: boolean;
  }>();
  const chosen = lines.filter((line) => options.only === undefined || nameOf(line).includes(options.only));
  if (chosen.length === 0) program.error(`no line is called like "${options.only}"`);
  if (!(options.seconds > 0) || !(options.repeat >= 1))
    program.error('--seconds and --repeat are above zero');

  const directory = await mkdtemp(join(options.dir, 'weft-bench-'));
  const servers: Server[] = [];
  const cleanUp = async (): Promise<void> => {
    await Promise.allSettled(servers.splice(0).map((server) => server.stop()));
    await rm(directory, { recursive: true, force: true });
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void cleanUp().then(() => process.exit(130)));
  }
  try {
    const weft = await startWeft(root, directory, options.size, ['flush', 'sync']);
    servers.push(weft);
    const tgt = await startTgt(directory, options.size);
    servers.push(tgt);
    const [flush, sync] = weft.targets;
    const targets = [flush, tgt.targets[0], sync].filter((target) => target !== undefined);
    progress(`filling ${targets.length} LUNs of ${options.size / 2 ** 20} MiB`);
    for (const target of targets) await fill(target);
    const samples = await measure(targets, chosen, options.seconds, options.repeat, directory);
    const report: Report = {
      machine: await machine(directory),
      versions: { weft: weft.version, tgt: tgt.version },
      parameters: { seconds: options.seconds, repeat: options.repeat, sizeBytes: options.size },
      lines: chosen.map((line) => ({
        name: nameOf(line),
        ...line,
        samples: Object.fromEntries(samples.get(line) ?? []),
      })),
    };
    console.log(options.json ? JSON.stringify(report, null, 2) : formatReport(report));
  } finally {
    await cleanUp();
  }
}

await main();
