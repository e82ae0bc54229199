/** Drives sessions.c: many iSCSI sessions at once, and what each of them got. */

import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { execa } from 'execa';

export interface SessionPlan {
  url: string;
  mode: 'idle' | 'once' | 'randread' | 'randwrite' | 'randrw' | 'write';
  blockBytes: number;
  queueDepth: number;
}

export interface SessionResult {
  /** Answered within the measured time. */
  operations: number;
  /** Answered TASK SET FULL or BUSY, and asked again. */
  pushedBack: number;
  meanUs: number;
  slowestUs: number;
}

export interface LoadReport {
  seconds: number;
  clientCpuSeconds: number;
  sessions: SessionResult[];
}

/** Beyond the measured time: logging in, and the commands that are under way at the end. */
const spareMs = 120_000;

/** Compiles the program into a directory. */
export async function compileSessions(directory: string): Promise<string> {
  const program = join(directory, 'sessions');
  const source = join(import.meta.dirname, 'sessions.c');
  await execa('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source, '-liscsi']);
  return program;
}

/** Logs all of them in, and resolves then; `finished` when the time is over. */
export async function startSessions(
  program: string,
  plans: readonly SessionPlan[],
  seconds: number,
): Promise<{ loginSeconds: number; finished: Promise<LoadReport>; kill: () => void }> {
  const list = plans.map(({ url, mode, blockBytes, queueDepth }) =>
    [url, mode, blockBytes, queueDepth].join(' '),
  );
  const child = execa(program, [String(seconds)], {
    input: `${list.join('\n')}\n`,
    timeout: seconds * 1000 + spareMs,
    killSignal: 'SIGKILL',
    buffer: { stdout: false },
  });
  // Its end is news only to who waits for a line of it: it may be killed before, or after the last.
  child.catch(() => {});
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const nextLine = async (): Promise<unknown> => {
    const { value, done } = await lines.next();
    if (!done) return JSON.parse(value);
    await child;
    throw new Error('sessions ended without a result');
  };
  const { loginSeconds } = (await nextLine()) as { loginSeconds: number };
  const finished = nextLine().then((report) => report as LoadReport);
  return { loginSeconds, finished, kill: () => child.kill('SIGKILL') };
}

/**
 * The slowest session's share of the mean. A session with a deeper queue gets more done when all commands wait equally
 * long, so what is compared is what each place in a queue got.
 */
export function slowestOfMean(plans: readonly SessionPlan[], results: readonly SessionResult[]): number {
  const shares = results.map(({ operations }, index) => operations / plans[index]!.queueDepth);
  const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
  return Math.min(...shares) / mean;
}
