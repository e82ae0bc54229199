import t from 'tap';
import { LoginGuard, sourceOf } from '../../daemon/iscsi/login-guard.ts';
import { iqn, ManualClock, openPortal } from './fixture.ts';

const chap = { user: 'weft-1', secret: 'a-secret-of-16-bytes' };
const wrong = { ...chap, secret: 'guess-number-one-ok' };
const unavailable = 0x0301;

const attempt = (address: string, initiator = 'iqn.2026-11.test:a', target = iqn) => ({
  address: `${address}:4000`,
  initiator,
  target,
});

/** Failures until the guard refuses. */
function exhaust(guard: LoginGuard, next: (n: number) => ReturnType<typeof attempt>): number {
  for (let n = 0; n < 1000; n += 1) {
    if (!guard.allows(next(n))) return n;
    guard.failed(next(n));
  }
  return 1000;
}

t.test(
  'a guesser has eight tries, then one in ten seconds, and waits for nothing it has not done',
  async (t) => {
    const clock = new ManualClock();
    const guard = new LoginGuard(clock);
    const guesser = attempt('10.0.0.1');
    t.equal(
      exhaust(guard, () => guesser),
      8,
    );
    clock.pass(9_999);
    t.notOk(guard.allows(guesser));
    clock.pass(2);
    t.equal(
      exhaust(guard, () => guesser),
      1,
    );
    clock.pass(3_600_000);
    t.equal(
      exhaust(guard, () => guesser),
      8,
      'an hour saves up no more than it had at first',
    );
  },
);

t.test(
  'who guesses locks nobody out: not another address, not another name, not another target',
  async (t) => {
    const guard = new LoginGuard(new ManualClock());
    exhaust(guard, () => attempt('10.0.0.1'));
    t.ok(guard.allows(attempt('10.0.0.2')));
    t.ok(guard.allows(attempt('10.0.0.1', 'iqn.2026-11.test:b')));
    t.ok(guard.allows(attempt('10.0.0.1', 'iqn.2026-11.test:a', 'iqn.2026-11.test:other')));
  },
);

t.test('who changes names runs dry too, and takes no proven neighbour along', async (t) => {
  const clock = new ManualClock();
  const guard = new LoginGuard(clock);
  const neighbour = attempt('10.0.0.1', 'iqn.2026-11.test:neighbour');
  guard.succeeded(neighbour);
  const name = (n: number) => attempt('10.0.0.1', `iqn.2026-11.test:n${n}`);
  t.equal(exhaust(guard, name), 100);
  t.notOk(guard.allows(name(5000)));
  t.ok(guard.allows(neighbour));
  t.ok(guard.allows(attempt('10.0.0.2', 'iqn.2026-11.test:n5000')));
  clock.pass(1_000);
  t.equal(
    exhaust(guard, (n) => name(6000 + n)),
    5,
    'five a second',
  );
});

t.test('a proof is a clean slate', async (t) => {
  const guard = new LoginGuard(new ManualClock());
  const host = attempt('10.0.0.1');
  for (let round = 0; round < 20; round += 1) {
    for (let failures = 0; failures < 4; failures += 1) guard.failed(host);
    t.ok(guard.allows(host));
    guard.succeeded(host);
  }
});

t.test(
  'however many sources there are they take bounded memory, and the same failure again is counted',
  async (t) => {
    const clock = new ManualClock();
    const guard = new LoginGuard(clock);
    for (let n = 0; n < 50_000; n += 1) {
      const flood = attempt(`10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`);
      guard.failed(flood);
      guard.refused(flood, 'CHAP failed', false);
    }
    t.equal(guard.recentFailures().length, 100);
    for (let n = 0; n < 7; n += 1) guard.refused(attempt('192.0.2.1'), 'CHAP failed', false);
    t.match(guard.recentFailures()[0], { address: '192.0.2.1', reason: 'CHAP failed', count: 7 });
    t.equal(guard.counts.failed, 50_007);
    const sizes = Object.values(guard).flatMap((value) => (value instanceof Map ? [value.size] : []));
    t.equal(sizes.length, 6);
    for (const size of sizes) t.ok(size <= 10_000, `${size} entries`);
  },
);

t.test('a flood of bad logins is counted whole and logged in part', async (t) => {
  const clock = new ManualClock();
  const guard = new LoginGuard(clock);
  const flood = (count: number) => {
    let lines = 0;
    let logins = 0;
    for (let n = 0; n < count; n += 1) {
      const stands = guard.refused(attempt('10.0.0.1'), 'malformed text', false);
      lines += stands > 0 ? 1 : 0;
      logins += stands;
    }
    return { lines, logins };
  };
  t.strictSame(flood(1000), { lines: 100, logins: 100 });
  clock.pass(2_000);
  t.strictSame(flood(10), { lines: 2, logins: 902 }, 'no login is forgotten');
  t.equal(guard.refused(attempt('10.0.0.2'), 'CHAP failed', false), 9, 'others have their lines');
});

t.test('an IPv6 host is its /64, and a mapped IPv4 address is itself', async (t) => {
  const cases = [
    ['10.0.0.1:3260', '10.0.0.1'],
    ['[::ffff:10.0.0.1]:3260', '10.0.0.1'],
    ['[2001:db8:1:2:3:4:5:6]:1', '2001:db8:1:2::/64'],
    ['[2001:db8:1:2::9]:1', '2001:db8:1:2::/64'],
    ['[fe80::1%eth0]:1', 'fe80:0:0:0::/64'],
    ['[::1]:1', '0:0:0:0::/64'],
  ];
  for (const [address = '', source] of cases) t.equal(sourceOf(address), source, address);
});

t.test(
  'over the wire: guesses are refused early, logged by name, counted, and forgiven with time',
  async (t) => {
    const clock = new ManualClock();
    const lines: { facts: Record<string, unknown>; message: string }[] = [];
    const take = (facts: object, message: string) =>
      void lines.push({ facts: facts as Record<string, unknown>, message });
    const log = { info: () => undefined, warn: take };
    const { connect, portal } = await openPortal(t, { chap }, { clock, log });
    const tryIn = async (credentials: typeof chap, name = 'iqn.2026-11.test:guesser') => {
      const initiator = await connect();
      initiator.name = name;
      const status = await initiator.login(iqn, { chap: credentials });
      initiator.close();
      return status;
    };
    for (let n = 0; n < 8; n += 1) t.equal(await tryIn(wrong), 0x0201);
    for (let n = 0; n < 5; n += 1)
      t.equal(await tryIn(wrong), unavailable, 'initiators try again on this one');
    t.equal(await tryIn(chap), unavailable, 'not even the right one: it could be told from the wrong ones');
    t.equal(await tryIn(chap, 'iqn.2026-11.test:host-b'), 0, 'another initiator is not hurt');
    t.match(lines[0], {
      message: 'iSCSI login refused',
      facts: {
        address: /^127\.0\.0\.1:\d+$/,
        initiator: 'iqn.2026-11.test:guesser',
        target: iqn,
        status: '0201',
        reason: 'CHAP failed',
      },
    });
    t.equal(lines.length, 9, 'the six refused early take one line');
    t.strictSame(portal.guard.counts, { succeeded: 1, failed: 14, throttled: 6 });
    t.match(portal.guard.recentFailures(), [{ initiator: 'iqn.2026-11.test:guesser', count: 8 }]);
    clock.pass(10_000);
    t.equal(await tryIn(chap), 0, 'the right credentials are let in when the time has passed');
    t.equal(await tryIn(wrong), 0x0201, 'and were a clean slate');
  },
);

t.test('many connections at once have no more guesses than one after the other', async (t) => {
  const { connect } = await openPortal(t, { chap }, { clock: new ManualClock() });
  const initiators = await Promise.all(Array.from({ length: 40 }, () => connect()));
  const begin = { InitiatorName: 'iqn.2026-11.test:guesser', TargetName: iqn, AuthMethod: 'CHAP' };
  for (const initiator of initiators) {
    await initiator.loginStep(0, null, begin);
    await initiator.loginStep(0, null, { CHAP_A: '7' });
    t.equal(initiator.loginStatus, 0);
  }
  const answer = { CHAP_N: chap.user, CHAP_R: `0x${'00'.repeat(32)}` };
  await Promise.all(initiators.map((initiator) => initiator.loginStep(0, 1, answer)));
  const statuses = initiators.map(({ loginStatus }) => loginStatus);
  t.equal(statuses.filter((status) => status === 0x0201).length, 8);
  t.equal(statuses.filter((status) => status === unavailable).length, 32);
});

t.test(
  'an address that sends garbage only is slowed, logged at a bounded rate, and then not let in',
  async (t) => {
    const clock = new ManualClock();
    const lines: { facts: Record<string, unknown>; message: string }[] = [];
    const take = (facts: object, message: string) =>
      void lines.push({ facts: facts as Record<string, unknown>, message });
    const log = { info: () => undefined, warn: take };
    const { connect, portal } = await openPortal(t, {}, { clock, log });
    const hostile = '127.0.0.2';
    const garbage: ((from: string) => Promise<number | null>)[] = [
      async (from) => {
        const initiator = await connect(1, from);
        return (await initiator.loginStep(0, 1, {})) === null ? null : initiator.loginStatus;
      },
      async (from) => {
        const initiator = await connect(1, from);
        const keys = { InitiatorName: 'iqn.2026-11.test:g', TargetName: iqn, AuthMethod: 'None' };
        await initiator.loginStep(0, 1, keys);
        return (await initiator.loginStep(1, 3, keys)) === null ? null : initiator.loginStatus;
      },
      async (from) => {
        const initiator = await connect(1, from);
        initiator.socket.write(Buffer.alloc(48, 0xff));
        return (await initiator.next()) === null ? null : 0;
      },
    ];
    const statuses: (number | null)[] = [];
    for (let n = 0; n < 99; n += 1) statuses.push(await garbage[n % 3]!(hostile));
    t.strictSame(new Set(statuses), new Set([0x0207, 0x0200, null]), 'told what is wrong');
    t.equal(portal.guard.counts.failed, 99, 'and counted');
    t.equal(await garbage[0]!(hostile), 0x0207);
    const before = lines.length;
    for (let n = 0; n < 20; n += 1) t.equal(await garbage[0]!(hostile), null, 'not let in');
    t.equal(lines.length - before, 1);
    t.match(lines.at(-1), {
      message: 'iSCSI connections refused',
      facts: { reason: 'too many failed logins' },
    });
    const other = await connect(1, '127.0.0.3');
    t.equal(await other.login(iqn), 0, 'others do not notice');
    clock.pass(1_000);
    for (let n = 0; n < 5; n += 1) t.equal(await garbage[0]!(hostile), 0x0207, 'five a second');
    t.equal(await garbage[0]!(hostile), null);
  },
);

t.test('garbage from behind an address that hosts have logged in from keeps none of them out', async (t) => {
  const clock = new ManualClock();
  const { connect, portal } = await openPortal(t, {}, { clock });
  t.equal(await (await connect()).login(iqn), 0);
  const statuses: number[] = [];
  for (let n = 0; n < 120; n += 1) {
    const initiator = await connect();
    await initiator.loginStep(0, 1, {});
    statuses.push(initiator.loginStatus);
  }
  t.equal(statuses.filter((status) => status === 0x0207).length, 100);
  t.equal(statuses.filter((status) => status === unavailable).length, 20);
  t.equal(portal.guard.counts.throttled, 20);
  t.equal(await (await connect()).login(iqn), 0);
});
