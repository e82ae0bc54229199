import t from 'tap';
import { RangeGuard } from '../../daemon/scsi/range-guard.ts';

t.test('a change that overlaps a held range waits for its release, others do not', async (t) => {
  const guard = new RangeGuard();
  const seen: string[] = [];
  let release = (): void => {};
  guard.hold(100, 100, (end) => {
    release = end;
  });
  t.notOk(guard.idle);
  guard.change(150, 10, () => seen.push('inside'));
  guard.change(200, 10, () => seen.push('behind'));
  guard.change(90, 10, () => seen.push('before'));
  guard.change(99, 2, () => seen.push('across'));
  t.same(seen, ['behind', 'before']);
  release();
  t.same(seen, ['behind', 'before', 'inside', 'across']);
  t.ok(guard.idle);
  t.throws(release, /released once/);
});

t.test('those that wait start in the order they came, one holder at a time', async (t) => {
  const guard = new RangeGuard();
  const seen: string[] = [];
  const releases: (() => void)[] = [];
  for (const name of ['a', 'b']) {
    guard.hold(0, 10, (end) => {
      seen.push(name);
      releases.push(end);
    });
  }
  guard.change(5, 1, () => seen.push('c'));
  t.same(seen, ['a']);
  releases[0]!();
  t.same(seen, ['a', 'b']);
  releases[1]!();
  t.same(seen, ['a', 'b', 'c']);
});

t.test('a range released within its start lets the next in', async (t) => {
  const guard = new RangeGuard();
  const seen: number[] = [];
  let releaseFirst = (): void => {};
  guard.hold(0, 10, (end) => {
    releaseFirst = end;
  });
  for (const index of [1, 2, 3]) {
    guard.hold(0, 10, (end) => {
      seen.push(index);
      end();
    });
  }
  releaseFirst();
  t.same(seen, [1, 2, 3]);
  t.ok(guard.idle);
});
