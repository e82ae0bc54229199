/** The tables of docs/conformance.md, from what a run found. */
import type { TestOutcome, Verdict } from './iscsi-test-cu.ts';

export interface TargetResult {
  target: string;
  version: string;
  /** By name, in the order they ended. */
  outcomes: ReadonlyMap<string, TestOutcome>;
}

export function countVerdicts(outcomes: Iterable<TestOutcome>): Record<Verdict, number> {
  const counts = { pass: 0, partial: 0, skip: 0, fail: 0, unfinished: 0 };
  for (const { verdict } of outcomes) counts[verdict] += 1;
  return counts;
}

/** A row a suite, in the order of `tests`, and a last one for all; in Markdown. */
export function tableBySuite(tests: readonly string[], results: readonly TargetResult[]): string {
  const suites = [...new Set(tests.map((name) => name.split('.')[0]!))];
  const row = (title: string, names: readonly string[]): string => {
    const cells = results.map(({ outcomes }) => inWords(names.map((name) => outcomes.get(name)!)));
    return `| ${[title, String(names.length), ...cells].join(' | ')} |`;
  };
  return [
    `| ${['suite', 'tests', ...results.map(({ target, version }) => `${target} ${version}`)].join(' | ')} |`,
    `|${' --- |'.repeat(2 + results.length)}`,
    ...suites.map((suite) =>
      row(
        suite,
        tests.filter((name) => name.startsWith(`${suite}.`)),
      ),
    ),
    row('**all**', tests),
  ].join('\n');
}

/** Such as `9 passed, 1 skipped`. */
function inWords(outcomes: readonly TestOutcome[]): string {
  const counts = countVerdicts(outcomes);
  const words: [Verdict, string][] = [
    ['pass', 'passed'],
    ['partial', 'in part'],
    ['skip', 'skipped'],
    ['fail', '**failed**'],
    ['unfinished', '**unfinished**'],
  ];
  const told = words.filter(([verdict]) => counts[verdict] > 0);
  return told.map(([verdict, word]) => `${counts[verdict]} ${word}`).join(', ');
}
