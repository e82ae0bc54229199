import t from 'tap';
import { WeftClient } from '../../daemon/api/client.ts';
import type { Role } from '../../daemon/api/schema.ts';
import { ApiFabric, adminToken } from './api-fabric.ts';

const initiator = 'iqn.2026-11.example:host';
const claim = { holder: 'h', initiator };
const size = 2_147_483_648;

/** What each caller gets: 'ok' or a code. The plugin's own volume is `mine`, the administrator's is `theirs`. */
const matrix: [
  what: string,
  call: (client: WeftClient) => Promise<unknown>,
  admin: string,
  plugin: string,
  viewer: string,
][] = [
  ['status', (c) => c.status(), 'ok', 'ok', 'ok'],
  ['containers', (c) => c.containers(), 'ok', 'ok', 'ok'],
  [
    'a container changed',
    (c) => c.updateContainer('spare', { quotaBytes: 1 }),
    'ok',
    'FORBIDDEN',
    'FORBIDDEN',
  ],
  ['make a container', (c) => c.createContainer({ name: 'c' }), 'ok', 'FORBIDDEN', 'FORBIDDEN'],
  ['remove a container', (c) => c.removeContainer('spare'), 'ok', 'FORBIDDEN', 'FORBIDDEN'],
  ['tokens', (c) => c.tokens(), 'ok', 'FORBIDDEN', 'FORBIDDEN'],
  ['make a token', (c) => c.createToken({ name: 't', role: 'viewer' }), 'ok', 'FORBIDDEN', 'FORBIDDEN'],
  ['remove a token', (c) => c.removeToken('spare'), 'ok', 'FORBIDDEN', 'FORBIDDEN'],
  ['make a volume', (c) => c.createVolume({ name: 'new' }), 'ok', 'ok', 'FORBIDDEN'],
  [
    'make one whose name is taken',
    (c) => c.createVolume({ name: 'theirs' }),
    'ALREADY_EXISTS',
    'ALREADY_EXISTS',
    'FORBIDDEN',
  ],
  ['read mine', (c) => c.volume('mine'), 'ok', 'ok', 'ok'],
  ['read theirs', (c) => c.volume('theirs'), 'ok', 'NOT_FOUND', 'ok'],
  ['the secret of mine', (c) => c.attachment('mine'), 'ok', 'ok', 'FORBIDDEN'],
  ['the secret of theirs', (c) => c.attachment('theirs'), 'ok', 'NOT_FOUND', 'FORBIDDEN'],
  ['grow mine', (c) => c.updateVolume('mine', { sizeBytes: size }), 'ok', 'ok', 'FORBIDDEN'],
  ['grow theirs', (c) => c.updateVolume('theirs', { sizeBytes: size }), 'ok', 'NOT_FOUND', 'FORBIDDEN'],
  ['claim mine', (c) => c.claimVolume('mine', claim), 'ok', 'ok', 'FORBIDDEN'],
  ['claim theirs', (c) => c.claimVolume('theirs', claim), 'ok', 'NOT_FOUND', 'FORBIDDEN'],
  ['release mine', (c) => c.releaseClaim('mine', 'h'), 'ok', 'ok', 'FORBIDDEN'],
  ['release theirs', (c) => c.releaseClaim('theirs', 'h'), 'ok', 'NOT_FOUND', 'FORBIDDEN'],
  ['release any holder of mine', (c) => c.releaseClaim('mine'), 'ok', 'FORBIDDEN', 'FORBIDDEN'],
  ['remove mine', (c) => c.removeVolume('mine'), 'ok', 'ok', 'FORBIDDEN'],
  ['remove mine for good', (c) => c.removeVolume('mine', { purge: true }), 'ok', 'ok', 'FORBIDDEN'],
  ['remove mine by force', (c) => c.removeVolume('mine', { force: true }), 'ok', 'FORBIDDEN', 'FORBIDDEN'],
  ['remove theirs', (c) => c.removeVolume('theirs'), 'ok', 'NOT_FOUND', 'FORBIDDEN'],
  ['restore mine', (c) => c.restoreVolume('gone-mine'), 'ok', 'ok', 'FORBIDDEN'],
  ['restore theirs', (c) => c.restoreVolume('gone-theirs'), 'ok', 'NOT_FOUND', 'FORBIDDEN'],
  [
    'restore theirs by id',
    async (c) => c.restoreTrash(trashId(c, 'gone-theirs')),
    'ok',
    'NOT_FOUND',
    'FORBIDDEN',
  ],
  ['purge mine', async (c) => c.purge(trashId(c, 'gone-mine')), 'ok', 'ok', 'FORBIDDEN'],
  ['purge theirs', async (c) => c.purge(trashId(c, 'gone-theirs')), 'ok', 'NOT_FOUND', 'FORBIDDEN'],
  ['the trash', (c) => c.trash(), 'ok', 'ok', 'ok'],
  ['empty the trash', (c) => c.emptyTrash(), 'ok', 'ok', 'FORBIDDEN'],
];

const trashIds = new WeakMap<WeftClient, Map<string, string>>();
const trashId = (client: WeftClient, name: string): string => trashIds.get(client)?.get(name) ?? '';

async function callerOf(fabric: ApiFabric, role: Role): Promise<WeftClient> {
  const admin = fabric.client();
  const plugin = await fabric.clientAs('host-a', 'plugin');
  for (const [client, names] of [
    [plugin, ['mine', 'gone-mine']],
    [admin, ['theirs', 'gone-theirs']],
  ] as const) {
    for (const name of names) await client.createVolume({ name, sizeBytes: 1_073_741_824 });
    await client.removeVolume(names[1]);
  }
  await admin.createContainer({ name: 'spare' });
  await admin.createToken({ name: 'spare', role: 'viewer' });
  const ids = new Map((await admin.trash()).map(({ name, id }) => [name, id]));
  const caller =
    role === 'admin' ? admin : role === 'plugin' ? plugin : await fabric.clientAs('eyes', 'viewer');
  trashIds.set(caller, ids);
  return caller;
}

for (const role of ['admin', 'plugin', 'viewer'] as const) {
  t.test(`a ${role} may do what its role says and nothing else`, async (t) => {
    for (const [what, call, ...expected] of matrix) {
      const fabric = await ApiFabric.start(t);
      const caller = await callerOf(fabric, role);
      const before = fabric.snapshot();
      const wanted = expected[['admin', 'plugin', 'viewer'].indexOf(role)];
      const found = await call(caller).then(
        () => 'ok',
        (error: { code: string }) => error.code,
      );
      t.equal(found, wanted, what);
      if (found !== 'ok') t.strictSame(fabric.snapshot(), before, `${what}: nothing changed`);
      await fabric.stop();
    }
  });
}

t.test('a plugin sees no more than its own volumes, in lists, sums and the trash', async (t) => {
  const fabric = await ApiFabric.start(t);
  const plugin = await callerOf(fabric, 'plugin');
  t.strictSame(
    (await plugin.volumes()).map((volume) => volume.name),
    ['mine'],
  );
  t.strictSame(
    (await plugin.trash()).map((volume) => volume.name),
    ['gone-mine'],
  );
  t.match(await plugin.container('default'), { volumeCount: 2, provisionedBytes: 2_147_483_648 });
  t.match(await fabric.client().container('default'), { volumeCount: 4, provisionedBytes: 4_294_967_296 });
  t.equal(await plugin.emptyTrash(), 1);
  t.strictSame(
    (await fabric.client().trash()).map((volume) => volume.name),
    ['gone-theirs'],
  );
});

t.test('without known credentials nothing is answered but that the daemon is alive', async (t) => {
  const fabric = await ApiFabric.start(t);
  const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
  const headers = [undefined, '', 'Bearer', 'Bearer ', 'Bearer wrong', adminToken, `Digest ${adminToken}`];
  headers.push(
    `Bearer ${adminToken} `.repeat(2),
    basic('admin'),
    basic('admin:'),
    basic(`other:${adminToken}`),
  );
  headers.push(basic(`:${adminToken}`), 'Basic ?', `Bearer ${adminToken.slice(1)}`);
  for (const authorization of headers) {
    for (const path of ['/api/v1/status', '/api/v1/nothing', '/api/v1/openapi.json']) {
      const response = await fetch(fabric.url + path, {
        headers: authorization === undefined ? {} : { authorization },
      });
      t.equal(response.status, 401, `${authorization} on ${path}`);
      t.match(response.headers.get('www-authenticate'), /Bearer/);
      t.match(await response.json(), { error: { code: 'UNAUTHENTICATED' } });
    }
  }
  t.equal((await fetch(`${fabric.url}/healthz`)).status, 200);
  const response = await fetch(`${fabric.url}/api/v1/volumes`, { method: 'POST', body: 'x'.repeat(500_000) });
  t.equal(response.status, 401, 'before its body is read');
});

t.test('Basic authentication takes the name of a token and the token', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = new WeftClient({ url: fabric.url, username: 'admin', password: adminToken });
  t.equal((await client.status()).node.name, 'node-1');
});

t.test('a removed token is refused at once; a token is shown once and kept as a hash', async (t) => {
  const fabric = await ApiFabric.start(t);
  const admin = fabric.client();
  const { token } = await admin.createToken({ name: 'host-a', role: 'plugin' });
  t.match(token, /^weft_[\w-]{43}$/);
  const plugin = fabric.client(token);
  await plugin.volumes();
  t.notMatch(JSON.stringify(await admin.tokens()), token);
  t.notMatch(JSON.stringify(fabric.snapshot()), token);
  await t.rejects(admin.createToken({ name: 'host-a', role: 'viewer' }), { code: 'ALREADY_EXISTS' });
  await admin.removeToken('host-a');
  await t.rejects(plugin.volumes(), { code: 'UNAUTHENTICATED' });
});

t.test('two administrators cannot remove each other at once', async (t) => {
  const fabric = await ApiFabric.start(t);
  const other = await fabric.clientAs('other', 'admin');
  const results = await Promise.allSettled([
    fabric.client().removeToken('other'),
    other.removeToken('admin'),
  ]);
  t.equal(results.filter((result) => result.status === 'fulfilled').length, 1);
  t.equal(fabric.catalog.tokens.list().filter((token) => token.role === 'admin').length, 1);
});

t.test('neither tokens nor secrets get into the log', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('db');
  const { chap } = await fabric.client().attachment('db');
  const { token } = await fabric.client().createToken({ name: 'x', role: 'viewer' });
  const log = fabric.logLines.join('');
  t.match(log, /"url":"\/api\/v1\/volumes"/);
  for (const secret of [adminToken, token, chap?.secret ?? 'none']) t.notMatch(log, secret);
});
