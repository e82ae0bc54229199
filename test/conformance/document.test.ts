import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import t from 'tap';
import { declined } from './declined.ts';
import type { TestOutcome, Verdict } from './iscsi-test-cu.ts';
import { type TargetResult, tableBySuite } from './report.ts';

const document = resolve(import.meta.dirname, '../../docs/conformance.md');

t.test('docs/conformance.md shows the list of what is declined, word for word', async (t) => {
  const text = await readFile(document, 'utf8');
  const rows = [...text.matchAll(/^\| `([A-Za-z0-9]+\.[A-Za-z0-9*]+)` \| (skip|partial) \| (.*) \|$/gm)];
  t.same(
    rows.map(([, tests, verdict, reason]) => ({ tests, verdict, reason })),
    declined,
  );
});

t.test('the table has a row a suite and one for all', async (t) => {
  const outcomes = (verdicts: Record<string, Verdict>): ReadonlyMap<string, TestOutcome> =>
    new Map(
      Object.entries(verdicts).map(([name, verdict]) => [name, { name, verdict, reasons: [], seconds: 0 }]),
    );
  const results: TargetResult[] = [
    { target: 'a', version: '1', outcomes: outcomes({ 'X.1': 'pass', 'X.2': 'skip', 'Y.1': 'pass' }) },
    { target: 'b', version: '2', outcomes: outcomes({ 'X.1': 'fail', 'X.2': 'pass', 'Y.1': 'unfinished' }) },
  ];
  t.same(tableBySuite(['X.1', 'X.2', 'Y.1'], results).split('\n'), [
    '| suite | tests | a 1 | b 2 |',
    '| --- | --- | --- | --- |',
    '| X | 2 | 1 passed, 1 skipped | 1 passed, 1 **failed** |',
    '| Y | 1 | 1 passed | 1 **unfinished** |',
    '| **all** | 3 | 2 passed, 1 skipped | 1 passed, 1 **failed**, 1 **unfinished** |',
  ]);
});
