import t from 'tap';
import { readVerdict } from './iscsi-test-cu.ts';

const before = '    Send PRIN/READ_KEYS\nSuite: Read10\n  Test: Simple ...';
const after = '    Send PRIN/READ_KEYS\n\nRun Summary:    Type  Total    Ran Passed Failed Inactive\n';

t.test('a test passed when CUnit says so and nothing was skipped', async (t) => {
  const output = `${before}\n    Send READ10\n    [OK] READ10 returned SUCCESS\npassed${after}`;
  t.same(readVerdict(output), { verdict: 'pass', reasons: [] });
  t.same(readVerdict(`${before}passed${after}`), { verdict: 'pass', reasons: [] });
});

t.test('a skip is no pass, whatever CUnit says', async (t) => {
  const said =
    '    Send READ10\n    [SKIPPED] READ10 is not implemented.\n    [SKIPPED] READ10 is not implemented.\n';
  t.same(readVerdict(`${before}\n${said}passed${after}`), {
    verdict: 'skip',
    reasons: ['READ10 is not implemented.'],
  });
});

t.test('a test that went on after a skip is partial', async (t) => {
  const said = '    [SKIPPED] No X.\n    Send READ10\n    [OK] READ10 returned SUCCESS\n';
  t.equal(readVerdict(`${before}\n${said}passed${after}`).verdict, 'partial');
});

t.test('a failure tells what was found and where', async (t) => {
  const said = '    [FAILED] READ10 failed.\nFAILED\n    1. test_read10.c:7  - CU_ASSERT_EQUAL(ret,0)\n';
  t.same(readVerdict(`${before}\n${said}${after}`), {
    verdict: 'fail',
    reasons: ['READ10 failed.', '1. test_read10.c:7  - CU_ASSERT_EQUAL(ret,0)'],
  });
});

t.test('no verdict is unfinished', async (t) => {
  t.equal(readVerdict('').verdict, 'unfinished');
  t.equal(readVerdict('Failed to connect').verdict, 'unfinished');
  t.equal(readVerdict(`${before}\n    Send READ10\n`).verdict, 'unfinished');
  t.equal(readVerdict(`${before}\n    [SKIPPED] No X.\n`).verdict, 'unfinished');
});
