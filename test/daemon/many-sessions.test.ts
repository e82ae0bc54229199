/** Many sessions share one weftd: nobody starves, and nobody is turned away, whatever one of them does. */
import t, { type Test } from 'tap';
import {
  compileSessions,
  type LoadReport,
  type SessionPlan,
  slowestOfMean,
  startSessions,
} from '../../bench/session-load.ts';
import { KiB, MiB } from '../../daemon/base/limits.ts';
import { createVolume, startWeftd, temporaryDirectory } from './volume-rig.ts';

const sessionCount = 64;
const volumeCount = 8;
const seconds = 3;
/** What the slowest session gets at least, of the mean. */
const fairShare = 0.25;
/** A tenth of the time after which Linux aborts a command. */
const longestAnswerMs = 3_000;

async function load(
  t: Test,
  shape: (index: number) => Omit<SessionPlan, 'url'>,
): Promise<{ plans: SessionPlan[]; report: LoadReport }> {
  const program = await compileSessions(await temporaryDirectory(t));
  const weftd = await startWeftd(t);
  const urls: string[] = [];
  for (let index = 0; index < volumeCount; index++) {
    urls.push(await createVolume(weftd, { name: `v${index}`, sizeBytes: 64 * MiB, chap: 'none' }));
  }
  const plans = Array.from({ length: sessionCount }, (_, index) => ({
    url: urls[index % volumeCount]!,
    ...shape(index),
  }));
  const running = await startSessions(program, plans, seconds);
  t.teardown(running.kill);
  return { plans, report: await running.finished };
}

function isFair(t: Test, plans: SessionPlan[], report: LoadReport): void {
  const share = slowestOfMean(plans, report.sessions);
  t.ok(share >= fairShare, `the slowest session gets ${share.toFixed(2)} of the mean`);
  const slowestMs = Math.max(...report.sessions.map(({ slowestUs }) => slowestUs)) / 1000;
  t.ok(slowestMs <= longestAnswerMs, `the longest answer took ${slowestMs.toFixed(0)} ms`);
  t.notOk(
    report.sessions.some(({ pushedBack }) => pushedBack > 0),
    'nobody is told to come again',
  );
}

t.test('64 sessions that read and write 4 KiB at queue depth 8 get about the same', async (t) => {
  const { plans, report } = await load(t, () => ({
    ...{ mode: 'randrw', blockBytes: 4 * KiB, queueDepth: 8 },
  }));
  isFair(t, plans, report);
});

t.test('63 small sessions beside one that floods: they share, and are not turned away', async (t) => {
  const { plans, report } = await load(t, (index) =>
    index === 0
      ? { mode: 'write', blockBytes: MiB, queueDepth: 128 }
      : { mode: 'randrw', blockBytes: 4 * KiB, queueDepth: 1 + (index % 8) },
  );
  const small = { ...report, sessions: report.sessions.slice(1) };
  isFair(t, plans.slice(1), small);
  t.ok(report.sessions[0]!.operations > 0, `the flood gets ${report.sessions[0]!.operations} MiB through`);
  const bytes = small.sessions.reduce((sum, { operations }) => sum + operations, 0) * 4 * KiB;
  t.comment(`${(bytes / 4 / KiB / seconds).toFixed(0)} small commands a second beside the flood`);
});
