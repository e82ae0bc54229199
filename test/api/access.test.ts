import t from 'tap';
import { ApiFabric } from './api-fabric.ts';

const a = 'iqn.2026-11.example:a';
const b = 'iqn.2026-11.example:b';
const chap = { user: 'iqn.2026-11.example:a', secret: 'a-secret-of-my-own' };
const mutualChap = { user: 'weft', secret: 'another-of-my-own' };

async function fabricWith(t: { teardown(end: () => Promise<void>): void }, more = {}) {
  const fabric = await ApiFabric.start(t);
  const { id } = await fabric.create('db', more);
  const client = fabric.client();
  const find = () => fabric.catalog.volumes.find('db');
  return {
    fabric,
    id,
    client,
    update: (change: Parameters<typeof client.updateVolume>[1]) => client.updateVolume('db', change),
    attachment: () => client.attachment('db'),
    admits: (initiator: string) => fabric.catalog.volumes.admit(find(), initiator),
  };
}

t.test('credentials and the list can be given when a volume is made', async (t) => {
  const { client, attachment } = await fabricWith(t, {
    chap,
    mutualChap,
    allowedInitiators: [b, a.toUpperCase(), b],
  });
  t.match(await attachment(), { chap, mutualChap });
  t.match(await client.volume('db'), { authentication: 'mutual-chap', allowedInitiators: [a, b] });
});

t.test('credentials are set, renewed and taken away', async (t) => {
  const { client, update, attachment } = await fabricWith(t);
  const first = (await attachment()).chap;
  t.match(await update({ chap }), { authentication: 'chap', droppedSessions: 0 });
  t.strictSame((await attachment()).chap, chap);
  await update({ chap: 'auto' });
  const renewed = (await attachment()).chap;
  t.equal(renewed?.user, chap.user, 'the user stays');
  t.match(renewed?.secret, /^[\w-]{16}$/);
  t.not(renewed?.secret, first?.secret);
  t.match(await update({ mutualChap: 'auto' }), { authentication: 'mutual-chap' });
  const both = await attachment();
  t.strictSame(both.chap, renewed, 'what is not given stays');
  t.match(both.mutualChap?.secret, /^[\w-]{16}$/);
  t.not(both.mutualChap?.secret, renewed?.secret);
  await t.rejects(update({ chap: 'none' }), {
    code: 'INVALID_ARGUMENT',
    message: /mutual CHAP comes after CHAP/,
  });
  t.match(await update({ chap: 'none', mutualChap: 'none' }), { authentication: 'none' });
  t.match(await attachment(), { chap: null, mutualChap: null });
  t.equal((await client.volume('db')).authentication, 'none');
});

t.test('what is no safe secret is refused, and is not repeated in the answer', async (t) => {
  const { fabric, update } = await fabricWith(t);
  const before = fabric.snapshot();
  const secrets = [
    'elevenchars',
    '',
    'with a space in',
    'tab\tin-the-middle',
    'ümlaut-secret-x',
    'x'.repeat(256),
  ];
  for (const secret of secrets) {
    const error = await update({ chap: { user: 'u', secret } }).catch((thrown) => thrown);
    t.match(error, { code: 'INVALID_ARGUMENT', message: /^chap\.secret: .*12 to 255 printable/ }, secret);
    if (secret !== '') t.notOk(JSON.stringify([error.message, error.details]).includes(secret));
  }
  await t.rejects(update({ chap: { user: 'two words', secret: chap.secret } }), { code: 'INVALID_ARGUMENT' });
  await t.rejects(update({ chap, mutualChap: { user: 'weft', secret: chap.secret } }), {
    code: 'INVALID_ARGUMENT',
    message: /must differ/,
  });
  await update({ chap });
  const withChap = fabric.snapshot();
  t.strictNotSame(withChap, before);
  await t.rejects(update({ mutualChap: { user: 'other', secret: chap.secret } }), { message: /must differ/ });
  t.strictSame(fabric.snapshot(), withChap, 'nothing was changed');
});

t.test('a list takes names and beginnings of names, and nothing else', async (t) => {
  const { update, admits } = await fabricWith(t);
  for (const name of ['*', 'iqn', 'iqn.', 'host-a', 'iqn.2026-*.x:a', 'iqn.x:a b', '']) {
    await t.rejects(update({ allowedInitiators: [name] }), { code: 'INVALID_ARGUMENT' }, name);
  }
  const many = Array.from({ length: 65 }, (_, n) => `iqn.2026-11.example:${n}`);
  await t.rejects(update({ allowedInitiators: many }), { code: 'INVALID_ARGUMENT' });
  t.equal(admits(b), null, 'no list: anybody');
  await update({ allowedInitiators: ['iqn.2026-11.io.weft.host:*', a] });
  t.match(admits(b), /does not list/);
  t.equal(admits(a), null);
  t.equal(admits(a.toUpperCase()), null);
  t.match(admits(`${a}b`), /does not list/, 'a name is not the beginning of one');
  t.equal(admits('iqn.2026-11.io.weft.host:h1-00ff'), null);
  await update({ allowedInitiators: [] });
  t.equal(admits(b), null);
});

t.test('sessions that are not allowed any more end before the answer, which says how many', async (t) => {
  const { fabric, id, client, update } = await fabricWith(t);
  fabric.host.login(id, a);
  fabric.host.login(id, b);
  t.equal((await update({ allowedInitiators: [a] })).droppedSessions, 1);
  t.match((await client.volume('db')).sessions, [{ initiator: a }]);
  t.equal((await update({ allowedInitiators: [a, b] })).droppedSessions, 0);
  t.equal(
    (await update({ mutualChap: 'auto' })).droppedSessions,
    0,
    'the target says who it is, not who they are',
  );
  t.equal((await update({ chap: 'auto', keepSessions: true })).droppedSessions, 0);
  t.equal((await client.volume('db')).sessions.length, 1);
  t.equal((await update({ chap: 'auto' })).droppedSessions, 1);
  t.strictSame((await client.volume('db')).sessions, []);
  fabric.host.login(id, b);
  const same = (await client.attachment('db')).chap;
  t.ok(same !== null);
  if (same !== null)
    t.equal((await update({ chap: same })).droppedSessions, 0, 'said once more, nothing changes');
  t.equal((await update({ chap: 'none', mutualChap: 'none' })).droppedSessions, 0, 'anybody may be there');
});

t.test('who is not on the list cannot claim the volume either', async (t) => {
  const { client, update } = await fabricWith(t);
  const claim = { holder: 'host-b', initiator: b, ttlSeconds: 60 };
  await client.claimVolume('db', claim);
  await update({ allowedInitiators: [a] });
  await t.rejects(client.claimVolume('db', claim), {
    code: 'FORBIDDEN',
    message: /weft volume access db --allow/,
  });
});

t.test('the volumes of a group share their credentials, and each has its own list', async (t) => {
  const { fabric, client } = await fabricWith(t);
  await fabric.create('g0', { group: 'g', chap, mutualChap });
  await fabric.create('g1', { group: 'g', allowedInitiators: [a] });
  t.match(await client.attachment('g1'), { chap, mutualChap });
  t.match(await client.volume('g0'), { allowedInitiators: [] });
  t.match(await client.volume('g1'), { allowedInitiators: [a] });
  await client.removeVolume('g1');
  await client.updateVolume('g0', { chap: 'auto' });
  await client.restoreVolume('g1');
  t.strictSame(
    (await client.attachment('g1')).chap,
    (await client.attachment('g0')).chap,
    'also from the trash',
  );
  await t.rejects(fabric.create('g2', { group: 'g', chap }), {
    code: 'INVALID_ARGUMENT',
    message: /in common/,
  });
});

t.test(
  'secrets are in the attachment and nowhere else: no answer, log line or stored document',
  async (t) => {
    const { fabric, client, update } = await fabricWith(t, { chap, mutualChap });
    const shown = [
      await client.volume('db'),
      await client.volumes(),
      await client.status(),
      await update({ chap }),
    ];
    for (const { secret } of [chap, mutualChap]) {
      t.notOk(JSON.stringify(shown).includes(secret));
      t.notOk(fabric.logLines.join('').includes(secret));
      t.notOk(JSON.stringify(fabric.snapshot()).includes(secret));
    }
    await fabric.crash();
    t.match(await fabric.client().attachment('db'), { chap, mutualChap }, 'they outlive the daemon');
    const viewer = await fabric.clientAs('eyes', 'viewer');
    await t.rejects(viewer.attachment('db'), { code: 'FORBIDDEN' });
    await t.rejects(viewer.updateVolume('db', { chap: 'none' }), { code: 'FORBIDDEN' });
    const stranger = await fabric.clientAs('host', 'plugin');
    await t.rejects(stranger.attachment('db'), { code: 'NOT_FOUND' });
    await t.rejects(stranger.updateVolume('db', { allowedInitiators: [] }), { code: 'NOT_FOUND' });
  },
);

t.test('administrators see who could not log in', async (t) => {
  const { fabric, client } = await fabricWith(t);
  t.match(await client.status(), { logins: { succeeded: 5, failed: 3, throttled: 1 } });
  t.strictSame(await client.failedLogins(), [
    {
      address: '10.0.0.66',
      initiator: 'iqn.2026-11.example:x',
      target: 'iqn.2026-11.example:t',
      reason: 'CHAP failed',
      count: 2,
      lastAt: '2026-11-01T00:00:00.000Z',
    },
  ]);
  await t.rejects((await fabric.clientAs('host', 'plugin')).failedLogins(), { code: 'FORBIDDEN' });
});
