/**
 * Reads the TAP that a run of the tests left behind, shows its failures with their diagnostics, and ends with one
 * line: `N passed, N failed, N skipped`.
 *
 *   node scripts/tap-report.ts [--failed REASON]... [--expect TEST-FILE]... TAP-FILE...
 *
 * What is counted are assertions: points without subtests under them. A subtest's own point counts only when it
 * failed and no assertion in it did (a crash, a time-out, a missing plan). A test file that was to run (`--expect`)
 * and has no result counts as failed, as does every `--failed REASON`, and a run in which nothing was counted.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

export interface TapCounts {
  passed: number;
  failed: number;
  skipped: number;
  /** Where it failed, and the diagnostics under it. */
  failures: { path: string; diagnostics: string }[];
  /** The names of the outermost points: the test files. */
  outermost: string[];
}

interface Point {
  indent: number;
  ok: boolean;
  name: string;
  /** SKIP, TODO or nothing, and what is said after it. */
  directive: string;
  reason: string;
  /** A subtest whose points follow between braces. */
  opensBlock: boolean;
}

interface OpenBlock {
  point: Point;
  failedBefore: number;
}

const pointPattern = /^( *)(not )?ok(?: \d+)?(?: -)?(?: (.*))?$/;

function parsePoint(line: string): Point | undefined {
  const match = pointPattern.exec(line);
  if (match === null) return undefined;
  // With its time: an assertion may be called '{'.
  const opensBlock = /# time=[0-9.]+m?s \{$/.test(line);
  const text = opensBlock ? (match[3] ?? '').slice(0, -1) : (match[3] ?? '');
  const directive = /\s# (SKIP|TODO)\b *(.*)$/i.exec(` ${text}`);
  return {
    indent: (match[1] ?? '').length,
    ok: match[2] === undefined,
    name: text.replace(/\s*(^|\s)# (SKIP|TODO|time=).*$/i, '').trim(),
    directive: (directive?.[1] ?? '').toUpperCase(),
    reason: directive?.[2] ?? '',
    opensBlock,
  };
}

/** Counts what one TAP stream says, subtests before their point (`# Subtest:`) or after it (`{ … }`). */
export function countTap(text: string): TapCounts {
  const lines = text.split('\n');
  const counts: TapCounts = { passed: 0, failed: 0, skipped: 0, failures: [], outermost: [] };
  /** Per indentation: the failures known when the subtests now open there began. */
  const begun = new Map<number, number>();
  const names = new Map<number, string>();
  const blocks: OpenBlock[] = [];

  const fail = (point: Point, diagnostics: string): void => {
    counts.failed++;
    const path: string[] = [];
    for (const [indent, name] of [...names].sort((a, b) => a[0] - b[0])) {
      if (indent < point.indent) path.push(name);
    }
    path.push(point.name);
    counts.failures.push({ path: path.join(' > '), diagnostics });
  };
  const closeSubtest = (point: Point, failedBefore: number, diagnostics: string): void => {
    if (point.directive !== '') {
      // tap calls a test file without a test skipped.
      if (point.reason === 'no tests found') fail(point, 'no test in it');
      else counts.skipped++;
    } else if (!point.ok && counts.failed === failedBefore) fail(point, diagnostics);
  };

  for (let index = 0; index < lines.length; index++) {
    const line = lines[index] ?? '';
    const subtest = /^( *)# Subtest: (.*)$/.exec(line);
    if (subtest !== null) {
      const indent = (subtest[1] ?? '').length;
      begun.set(indent, counts.failed);
      names.set(indent, subtest[2] ?? '');
      for (const deeper of [...names.keys()].filter((key) => key > indent)) names.delete(deeper);
      continue;
    }
    const block = blocks.at(-1);
    if (block !== undefined && line === `${' '.repeat(block.point.indent)}}`) {
      blocks.pop();
      names.delete(block.point.indent);
      closeSubtest(block.point, block.failedBefore, '');
      continue;
    }
    if (/^ *Bail out!/.test(line)) {
      fail({ indent: 0, ok: false, name: line.trim(), directive: '', reason: '', opensBlock: false }, '');
      continue;
    }
    const point = parsePoint(line);
    if (point === undefined) continue;
    const diagnostics = diagnosticsAfter(lines, index + 1, point.indent + 2);
    index += diagnostics.length;
    if (point.indent === 0) counts.outermost.push(point.name);
    if (point.opensBlock) {
      blocks.push({ point, failedBefore: counts.failed });
      names.set(point.indent, point.name);
      continue;
    }
    const failedBefore = begun.get(point.indent);
    if (failedBefore !== undefined) {
      begun.delete(point.indent);
      names.delete(point.indent);
      closeSubtest(point, failedBefore, diagnostics.join('\n'));
    } else if (point.directive !== '') counts.skipped++;
    else if (point.ok) counts.passed++;
    else fail(point, diagnostics.join('\n'));
  }
  // A stream that was cut off leaves subtests open.
  for (const { point, failedBefore } of blocks)
    closeSubtest({ ...point, ok: false }, failedBefore, 'cut off');
  return counts;
}

/** The YAML block that starts at `start`, with its `---` and `...`; empty when there is none. */
function diagnosticsAfter(lines: string[], start: number, indent: number): string[] {
  const margin = ' '.repeat(indent);
  if (lines[start] !== `${margin}---`) return [];
  const end = lines.indexOf(`${margin}...`, start);
  return lines.slice(start, end < 0 ? lines.length : end + 1);
}

function report(tapFiles: string[], expected: string[], reasons: string[]): number {
  const total = { passed: 0, failed: 0, skipped: 0 };
  const failures: TapCounts['failures'] = reasons.map((path) => ({ path, diagnostics: '' }));
  const finished = new Set<string>();
  for (const file of tapFiles) {
    const counts = countTap(readFileSync(file, 'utf8'));
    total.passed += counts.passed;
    total.failed += counts.failed;
    total.skipped += counts.skipped;
    failures.push(...counts.failures);
    for (const name of counts.outermost) finished.add(name);
  }
  const lost = expected.filter((file) => !finished.has(file));
  failures.push(...lost.map((file) => ({ path: `${file}: no result`, diagnostics: '' })));
  total.failed += reasons.length + lost.length;
  if (total.passed + total.failed === 0) {
    failures.push({ path: 'no test ran', diagnostics: '' });
    total.failed++;
  }
  for (const { path, diagnostics } of failures) {
    console.log(`\nFAILED ${path}`);
    if (diagnostics !== '') console.log(diagnostics.split('\n').slice(0, 60).join('\n'));
  }
  console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  return total.failed === 0 ? 0 : 1;
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { expect: { type: 'string', multiple: true }, failed: { type: 'string', multiple: true } },
  });
  process.exitCode = report(positionals, values.expect ?? [], values.failed ?? []);
}
