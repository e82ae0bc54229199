import t from 'tap';
import { countTap } from '../../scripts/tap-report.ts';

const tap = (...lines: string[]) => `TAP version 14\n${lines.join('\n')}\n`;

t.test('assertions are counted, not the subtests around them', async (t) => {
  const counts = countTap(
    tap(
      '# Subtest: test/a.test.ts',
      '    # Subtest: promise',
      '        ok 1 - one',
      '        ok 2 - two',
      '        1..2',
      '    ok 1 - promise # time=1ms',
      '    1..1',
      'ok 1 - test/a.test.ts # time=2ms',
      '1..1',
    ),
  );
  t.match(counts, { passed: 2, failed: 0, skipped: 0, failures: [] });
  t.strictSame(counts.outermost, ['test/a.test.ts']);
});

t.test('a failed assertion is counted once and shown with its diagnostics', async (t) => {
  const counts = countTap(
    tap(
      '# Subtest: test/a.test.ts',
      '    # Subtest: promise',
      '        not ok 1 - one',
      '          ---',
      '          stack: |',
      '            ok 7 - this is text',
      '          ...',
      '        1..1',
      '    not ok 1 - promise # time=1ms',
      '    1..1',
      'not ok 1 - test/a.test.ts # time=2ms',
    ),
  );
  t.match(counts, { passed: 0, failed: 1, skipped: 0 });
  t.equal(counts.failures[0]?.path, 'test/a.test.ts > promise > one');
  t.match(counts.failures[0]?.diagnostics, /ok 7 - this is text/);
});

t.test('a file that crashed after its assertions passed counts as failed', async (t) => {
  const counts = countTap(
    tap(
      '# Subtest: test/a.test.ts',
      '    ok 1 - one',
      'not ok 1 - test/a.test.ts # time=2ms',
      '  ---',
      '  signal: SIGKILL',
      '  ...',
    ),
  );
  t.match(counts, { passed: 1, failed: 1 });
  t.match(counts.failures[0]?.diagnostics, /SIGKILL/);
});

t.test('subtests between braces count like the others', async (t) => {
  const counts = countTap(
    tap(
      'ok 1 - test/a.test.ts # time=2ms {',
      '    ok 1 - one',
      '    1..1',
      '}',
      'not ok 2 - test/b.test.ts # time=2ms {',
      '    ok 1 - one',
      '}',
    ),
  );
  t.match(counts, { passed: 2, failed: 1 });
  t.strictSame(
    counts.failures.map((failure) => failure.path),
    ['test/b.test.ts'],
  );
  t.strictSame(counts.outermost, ['test/a.test.ts', 'test/b.test.ts']);
});

t.test('skips are counted as skips, and a file without a test as failed', async (t) => {
  const counts = countTap(
    tap(
      'ok 1 - no docker here # SKIP',
      'not ok 2 - later # TODO',
      '# Subtest: test/c.test.ts',
      '    1..0',
      'ok 3 - test/c.test.ts # SKIP no tests found',
      '# Subtest: test/d.test.ts',
      '    1..0',
      'ok 4 - test/d.test.ts # SKIP needs a kernel with iscsi_tcp',
    ),
  );
  t.match(counts, { passed: 0, failed: 1, skipped: 3 });
});

t.test('bailing out is a failure, and so is a stream that was cut off', async (t) => {
  t.match(countTap(tap('ok 1 - one', 'Bail out! no disk')), { passed: 1, failed: 1 });
  t.match(countTap(tap('ok 1 - test/a.test.ts # time=2ms {', '    ok 1 - one')), { passed: 1, failed: 1 });
});

t.test('an assertion may be called like a brace', async (t) => {
  const counts = countTap(
    tap('# Subtest: test/a.test.ts', '    ok 1 - {', '    ok 2 - }', '    1..2', 'ok 1 - test/a.test.ts'),
  );
  t.match(counts, { passed: 2, failed: 0 });
});
