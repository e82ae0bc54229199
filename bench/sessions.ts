/** What many sessions cost and how they share one weftd: `npm run bench:sessions`. How to read it: docs/bench.md. */
import { readFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { Command } from 'commander';
import { KiB, MiB } from '../daemon/base/limits.ts';
import { WeftdProcess } from '../test/system/weftd-process.ts';
import {
  compileSessions,
  type LoadReport,
  type SessionPlan,
  slowestOfMean,
  startSessions,
} from './session-load.ts';

const volumeBytes = 64 * MiB;
const sharesOfASecond = 100; // USER_HZ, which Linux fixes for /proc
/** After logging in, and after logging out, before memory is looked at; a thousand sessions' data goes through in it. */
const settleMs = 10_000;
/** What used sessions have written, and read: enough to have touched every buffer of theirs. */
const usedBytes = 256 * KiB;
const busySessions = 64;

interface Weftd {
  process: WeftdProcess;
  program: string;
  urls: string[];
}

const say = (line: string) => process.stdout.write(`${line}\n`);

async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * KiB;
}

async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / sharesOfASecond;
}

/** A weftd of its own for each measurement: what one leaves behind is not in the next one's figures. */
async function withWeftd(volumes: number, measure: (weftd: Weftd) => Promise<void>): Promise<void> {
  const weftd = await WeftdProcess.start();
  try {
    const client = await weftd.client();
    const urls: string[] = [];
    for (let index = 0; index < volumes; index++) {
      const { iqn, lun } = await client.createVolume({
        name: `v${index}`,
        sizeBytes: volumeBytes,
        chap: 'none',
      });
      urls.push(`iscsi://${weftd.portal}/${iqn}/${lun}`);
    }
    await measure({ process: weftd, urls, program: await compileSessions(weftd.directory) });
  } finally {
    await weftd.kill9();
    await weftd.stop();
  }
}

async function idle(count: number, volumes: number, seconds: number, isUsed: boolean): Promise<void> {
  await withWeftd(volumes, async ({ process, urls, program }) => {
    const pid = process.pid!;
    // Some first: what the node allocates once and for all, its pools and caches too, is not a session's.
    const work = isUsed
      ? ({ mode: 'once', blockBytes: usedBytes, queueDepth: 2 } as const)
      : ({ mode: 'idle', blockBytes: 0, queueDepth: 0 } as const);
    const plan = (index: number): SessionPlan => ({ url: urls[index % urls.length]!, ...work });
    const first = Array.from({ length: isUsed ? count : 1 }, (_, index) => plan(index));
    await (await startSessions(program, first, isUsed ? settleMs / 1000 : 0.5)).finished;
    await delay(settleMs);
    const before = await residentBytes(pid);
    const plans = Array.from({ length: count }, (_, index) => plan(index));
    const cpuBefore = await cpuSeconds(pid);
    const load = await startSessions(program, plans, settleMs / 1000 + seconds + 1);
    const loginCpu = (await cpuSeconds(pid)) - cpuBefore;
    await delay(settleMs);
    const grown = (await residentBytes(pid)) - before;
    const cpuIdle = await cpuSeconds(pid);
    await delay(seconds * 1000);
    const cpu = (await cpuSeconds(pid)) - cpuIdle;
    const after = (await residentBytes(pid)) - before;
    await load.finished;
    await delay(settleMs);
    const left = (await residentBytes(pid)) - before;
    const perSession = (bytes: number) => `${(bytes / count / KiB).toFixed(1)} KiB`;
    const history = isUsed ? `, which have each written and read ${usedBytes / KiB} KiB` : '';
    say(`${count} idle sessions on ${volumes} volume${volumes === 1 ? '' : 's'}${history}`);
    say(`  memory   ${perSession(grown)} a session; ${perSession(after)} after ${seconds} s of pings`);
    say(
      `           ${(grown / MiB).toFixed(0)} MiB in all, ${(left / MiB).toFixed(0)} MiB of it when they have gone`,
    );
    say(`  CPU      ${((cpu / seconds) * 100).toFixed(2)} % of a core`);
    const perLogin = ((loginCpu / count) * 1e6).toFixed(0);
    say(`  logins   ${(count / load.loginSeconds).toFixed(0)} a second, ${perLogin} µs of CPU each`);
  });
}

async function busy(
  name: string,
  shape: (index: number) => Omit<SessionPlan, 'url'>,
  seconds: number,
): Promise<void> {
  await withWeftd(8, async ({ process, urls, program }) => {
    const plans: SessionPlan[] = Array.from({ length: busySessions }, (_, index) => ({
      url: urls[index % urls.length]!,
      ...shape(index),
    }));
    const load = await startSessions(program, plans, seconds);
    const cpuBefore = await cpuSeconds(process.pid!);
    const report = await load.finished;
    const cpu = (await cpuSeconds(process.pid!)) - cpuBefore;
    say(`${busySessions} busy sessions: ${name}`);
    describe(plans, report, cpu);
  });
}

function describe(plans: readonly SessionPlan[], report: LoadReport, cpu: number): void {
  // The small ones by themselves, when there is a flood beside them.
  const isSmall = (plan: SessionPlan) => plan.blockBytes === 4096;
  const small = plans.filter(isSmall);
  const results = report.sessions.filter((_, index) => isSmall(plans[index]!));
  const operations = results.reduce((sum, result) => sum + result.operations, 0);
  const pushedBack = report.sessions.reduce((sum, result) => sum + result.pushedBack, 0);
  const slowestMs = Math.max(...results.map((result) => result.slowestUs)) / 1000;
  const rates = results.map((result) => result.operations / report.seconds).sort((a, b) => a - b);
  const median = rates[rates.length >> 1]!;
  say(`  4 KiB    ${(operations / report.seconds).toFixed(0)} a second in all`);
  say(
    `           of a session: ${rates[0]!.toFixed(0)} slowest, ${median.toFixed(0)} median, ${rates.at(-1)!.toFixed(0)} fastest`,
  );
  say(
    `           slowest of mean ${slowestOfMean(small, results).toFixed(2)}, longest answer ${slowestMs.toFixed(0)} ms`,
  );
  for (const [index, plan] of plans.entries()) {
    if (isSmall(plan)) continue;
    const rate = ((report.sessions[index]!.operations / report.seconds) * plan.blockBytes) / MiB;
    say(`  flood    ${rate.toFixed(0)} MiB/s`);
  }
  const clientCores = report.clientCpuSeconds / report.seconds;
  const cores = cpu / report.seconds;
  say(
    `  CPU      weftd ${cores.toFixed(2)} cores, client ${clientCores.toFixed(2)}; pushed back ${pushedBack}`,
  );
}

const program = new Command('bench:sessions')
  .description('measures what idle sessions cost and how busy ones share')
  .option('--sessions <n>', 'idle sessions', Number, 1000)
  .option('--idle-seconds <n>', 'how long idle sessions are watched', Number, 30)
  .option('--seconds <n>', 'how long busy sessions are measured', Number, 5)
  .parse();
const { sessions, idleSeconds, seconds } = program.opts<{
  sessions: number;
  idleSeconds: number;
  seconds: number;
}>();
if (!(sessions >= 1 && idleSeconds > 0 && seconds > 0)) program.error('everything is above zero');

const memory = `${(totalmem() / 2 ** 30).toFixed(1)} GiB`;
say(`${cpus().length} cores (${cpus()[0]?.model}), ${memory}, Linux ${release()}, Node ${process.version}`);
await idle(sessions, 100, idleSeconds, false);
await idle(sessions, 1, idleSeconds, false);
await idle(sessions, 100, idleSeconds, true);
const deep = { blockBytes: 4096, queueDepth: 8 };
await busy('4 KiB random reads at queue depth 8', () => ({ mode: 'randread', ...deep }), seconds);
await busy('4 KiB random writes at queue depth 8', () => ({ mode: 'randwrite', ...deep }), seconds);
await busy(
  '63 of 4 KiB at queue depths 1 to 8, half of them writes; one of 1 MiB writes at 128',
  (index) =>
    index === 0
      ? { mode: 'write', blockBytes: MiB, queueDepth: 128 }
      : { mode: 'randrw', blockBytes: 4096, queueDepth: 1 + (index % 8) },
  seconds,
);
