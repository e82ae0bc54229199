/** The whole of iscsi-test-cu against weftd and, in the same run, against Debian's tgt. The table: docs/conformance.md. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { declinedEntry } from './declined.ts';
import { listTests, runTest, type TestOutcome } from './iscsi-test-cu.ts';
import { countVerdicts, type TargetResult, tableBySuite } from './report.ts';
import { type SuiteTarget, startTgt, startWeft, type UnitKind } from './targets.ts';

const results = resolve(import.meta.dirname, '../../build/test-results/iscsi-test-cu');
/** At a time, of each target. Many tests wait most of their time. */
const lanes = 2;
const suiteTestCount = 230;
const wantedPasses = 200;

/** Tests that say nothing about a unit of the usual kind; docs/conformance.md tells why. */
const specialUnits: Record<string, UnitKind> = {
  'ReadOnly.ReadOnlySBC': 'read-only',
  'GetLBAStatus.UnmapSingle': 'small-blocks',
};
const needsAnsweredReset = 'iSCSITMF.LUNResetSimpleAsync';

/** Runs every test once. */
async function runSuite(
  target: SuiteTarget,
  tests: readonly string[],
  answeredReset: string,
): Promise<TargetResult> {
  const outputs = join(results, target.name);
  await mkdir(outputs, { recursive: true });
  const waiting = [...tests];
  const outcomes = new Map<string, TestOutcome>();
  const runLane = async (): Promise<void> => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const urls = await target.newUnit(specialUnits[name] ?? 'plain');
      const preload = name === needsAnsweredReset ? { preload: answeredReset } : {};
      outcomes.set(name, await runTest(name, { urls, outputs, ...preload }));
    }
  };
  await Promise.all(Array.from({ length: lanes }, runLane));
  return { target: target.name, version: target.version, outcomes };
}

function named(result: TargetResult, ...verdicts: TestOutcome['verdict'][]): TestOutcome[] {
  return [...result.outcomes.values()].filter(({ verdict }) => verdicts.includes(verdict));
}

/** answered-reset.c says what it is for. */
async function buildAnsweredReset(directory: string): Promise<string> {
  const library = join(directory, 'answered-reset.so');
  const source = join(import.meta.dirname, 'answered-reset.c');
  await execa('gcc', ['-shared', '-fPIC', '-O1', '-Wall', '-Werror', '-o', library, source]);
  return library;
}

const fileLimitMs = 600_000;
t.setTimeout(fileLimitMs);

t.test('the suite, against weftd and tgt', { timeout: fileLimitMs }, async (t) => {
  await mkdir(results, { recursive: true });
  const answeredReset = await buildAnsweredReset(t.testdir());
  const tests = await listTests();
  t.equal(tests.length, suiteTestCount, 'the suite is the one that is known here');

  const weftTarget = await startWeft();
  t.teardown(() => weftTarget.stop());
  const tgtTarget = await startTgt();
  t.teardown(() => tgtTarget.stop());
  const [weft, tgt] = await Promise.all([
    runSuite(weftTarget, tests, answeredReset),
    runSuite(tgtTarget, tests, answeredReset),
  ]);

  const { stdout: suite } = await execa('dpkg-query', ['-W', 'libiscsi-bin']);
  const table = [weft, tgt].map(({ target, version, outcomes }) => {
    return { target, version, tests: [...outcomes.values()] };
  });
  const document = { date: new Date().toISOString(), suite: suite.replace('\t', ' '), results: table };
  await writeFile(join(results, 'results.json'), `${JSON.stringify(document, null, 1)}\n`);
  await writeFile(join(results, 'table.md'), `${tableBySuite(tests, [weft, tgt])}\n`);
  for (const { target, outcomes } of [weft, tgt])
    t.comment(`${target} ${JSON.stringify(countVerdicts(outcomes.values()))}`);
  for (const { name, reasons } of named(tgt, 'fail', 'unfinished')) t.comment(`tgt: ${name}: ${reasons[0]}`);

  t.same(named(weft, 'unfinished'), [], 'every test ended');
  t.same(named(weft, 'fail'), [], 'no test failed');
  t.ok(named(weft, 'pass').length >= wantedPasses, `at least ${wantedPasses} passed`);

  await t.test('what was skipped is on the list, and what is on the list was skipped', async (t) => {
    for (const { name, verdict, reasons } of weft.outcomes.values()) {
      const expected = declinedEntry(name)?.verdict ?? 'pass';
      if (verdict !== expected) t.fail(`${name}: ${verdict}, not ${expected}`, { reasons });
    }
    t.pass('looked at all');
  });

  await t.test('what passes with tgt passes with weft', async (t) => {
    const behind = named(tgt, 'pass').filter(({ name }) => weft.outcomes.get(name)?.verdict !== 'pass');
    t.same(
      behind.map(({ name }) => name),
      [],
    );
  });

  await t.test('the multipath tests ran through two portals', async (t) => {
    const multipath = named(weft, 'pass').filter(({ name }) => name.startsWith('MultipathIO.'));
    t.equal(multipath.length, 4);
  });
});
