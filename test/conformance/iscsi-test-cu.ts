/**
 * Runs tests of libiscsi's iscsi-test-cu (1.19), each in a process of its own, and says what really came of them.
 *
 * What has to be known about it. A skipped test counts as passed in CUnit's summary, and a pattern that matches nothing
 * ends with exit code 0: the verdict is read from the output. Without -V some skips are not printed, and a test that
 * was skipped in part cannot be told from one that was not run at all. One skipped test leaves a hook behind that
 * garbles every later CDB of the process.
 */
import { spawn } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';

/** - partial: something was skipped, and commands were sent after it. - unfinished: it crashed, hung, or never began. */
export type Verdict = 'pass' | 'partial' | 'skip' | 'fail' | 'unfinished';

export interface TestOutcome {
  /** `Suite.Test`. */
  name: string;
  verdict: Verdict;
  /** What it said when it skipped or failed. */
  reasons: string[];
  seconds: number;
}

export interface TestSubject {
  /** Where outputs are kept, one file a test. */
  outputs: string;
  /** The same logical unit through two target ports: `iscsi://HOST:PORT/IQN/LUN`. */
  urls: readonly [string, string];
  /** A library to load before its own. */
  preload?: string;
}

/** Many times what the longest one takes on a machine with nothing else to do. */
const testLimitSeconds = 120;
const maxReasons = 5;

/** The names of all tests, as `Suite.Test`. */
export async function listTests(): Promise<string[]> {
  const { stdout } = await execa('iscsi-test-cu', ['-l']);
  const tests = stdout.split('\n').map((line) => /^ALL\.([^.]+\.[^.]+)$/.exec(line)?.[1]);
  return tests.filter((name) => name !== undefined);
}

/** -d: it may destroy data. -S: it may sanitize. -V: every command is printed. */
export async function runTest(name: string, subject: TestSubject): Promise<TestOutcome> {
  const file = join(subject.outputs, `${name}.log`);
  const startMs = performance.now();
  const output = await open(file, 'w');
  // One description for both, so that what was said stays in its order; unbuffered, so that a crash takes nothing away.
  // timeout(1) ends it also when nobody waits for it any more: without its target some tests never end.
  const limit = ['--signal=KILL', String(testLimitSeconds)];
  const program = ['iscsi-test-cu', '-d', '-S', '-V', '-t', `ALL.${name}`, ...subject.urls];
  const child = spawn('timeout', [...limit, 'stdbuf', '-oL', '-eL', ...program], {
    stdio: ['ignore', output.fd, output.fd],
    ...(subject.preload === undefined ? {} : { env: { ...process.env, LD_PRELOAD: subject.preload } }),
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', resolve);
  });
  await output.close();
  const seconds = Math.round((performance.now() - startMs) / 10) / 100;
  const { verdict, reasons } = readVerdict(await readFile(file, 'utf8'));
  // 0 and 1 are what it says itself; the rest are crashes, and timeout's own.
  if (code !== 0 && code !== 1)
    return { name, verdict: 'unfinished', reasons: [`exit code ${code}`], seconds };
  return { name, verdict, reasons, seconds };
}

/** What the output of one test says. */
export function readVerdict(output: string): { verdict: Verdict; reasons: string[] } {
  const lines = output.split('\n');
  const begin = lines.findIndex((line) => beginning.test(line));
  if (begin < 0) return { verdict: 'unfinished', reasons: ['it did not begin'] };
  lines[begin] = beginning.exec(lines[begin]!)![1]!;
  const skips: string[] = [];
  const failures: string[] = [];
  let sentSinceSkip = false;
  for (const [index, line] of lines.slice(begin).entries()) {
    const skip = /\[SKIPPED\] *(.*)$/.exec(line);
    const failure = /\[FAILED\] *(.*)$/.exec(line);
    if (skip !== null) {
      skips.push(skip[1]!.trim());
      sentSinceSkip = false;
    } else if (failure !== null) {
      failures.push(failure[1]!.trim());
    } else if (/^ *Send /.test(line)) {
      sentSinceSkip = true;
    }
    // CUnit's word stands at the beginning of a line or, after a line the test left open, at its end.
    if (/^FAILED/.test(line)) {
      const asserted = lines.slice(begin + index + 1).filter((each) => /^ +\d+\. \S+:\d+/.test(each));
      return { verdict: 'fail', reasons: distinct([...failures, ...asserted.map((each) => each.trim())]) };
    }
    if (/^passed/.test(line) || (line.endsWith('passed') && !line.startsWith('    ['))) {
      if (skips.length === 0) return { verdict: 'pass', reasons: [] };
      return { verdict: sentSinceSkip ? 'partial' : 'skip', reasons: distinct(skips) };
    }
  }
  return { verdict: 'unfinished', reasons: distinct(['it did not end', ...failures]) };
}

const beginning = /^ {2}Test: \S+ \.\.\.(.*)$/;

/** Some tests say the same, or nearly, hundreds of times. */
function distinct(reasons: string[]): string[] {
  return [...new Set(reasons)].slice(0, maxReasons);
}
