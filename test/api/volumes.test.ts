import t from 'tap';
import { ApiFabric } from './api-fabric.ts';

const MiB = 1_048_576;
const uuid = '5c5b2a0e-5f0e-4b57-9d0a-222222222222';

t.test('a new volume is served, has a name of its own on the wire and a secret of its own', async (t) => {
  const fabric = await ApiFabric.start(t);
  const volume = await fabric.create('db', { labels: { fs: 'ext4' } });
  t.match(volume, {
    name: 'db',
    container: 'default',
    sizeBytes: 1_073_741_824,
    durability: 'flush',
    chunkSizeBytes: 16_384,
    physicalBlockBytes: 4096,
    state: 'online',
    createdBy: 'admin',
    labels: { fs: 'ext4' },
    filesystem: null,
    iqn: `iqn.2026-11.io.weft:volume-${volume.id}`,
    lun: 0,
    portals: ['127.0.0.1:3260'],
    authentication: 'chap',
    claim: null,
    sessions: [],
    node: 'node-1',
  });
  t.strictSame(fabric.host.calls, ['serve db']);
  const { chap } = await fabric.client().attachment('db');
  t.match(chap?.secret, /^[\w-]{16}$/, '96 random bits');
  await fabric.create('other');
  t.not((await fabric.client().attachment('other')).chap?.secret, chap?.secret);
  await fabric.create('open', { chap: 'none' });
  t.match(await fabric.client().attachment('open'), { chap: null, lun: 0 });
});

t.test('sizes are rounded up to a MiB; 10 GiB when none is given', async (t) => {
  const fabric = await ApiFabric.start(t);
  t.equal((await fabric.create('a', { sizeBytes: 5 * MiB + 1 })).sizeBytes, 6 * MiB);
  t.equal((await fabric.client().createVolume({ name: 'b' })).sizeBytes, 10_240 * MiB);
});

t.test('of many that create one name at once, one succeeds', async (t) => {
  const fabric = await ApiFabric.start(t);
  const results = await Promise.allSettled(Array.from({ length: 12 }, () => fabric.create('db')));
  t.equal(results.filter((result) => result.status === 'fulfilled').length, 1);
  for (const result of results) {
    if (result.status === 'rejected') t.equal(result.reason.code, 'ALREADY_EXISTS');
  }
  t.strictSame(fabric.host.calls, ['serve db']);
});

t.test('volume keys are never used again', async (t) => {
  const fabric = await ApiFabric.start(t);
  const keys: number[] = [];
  for (let round = 0; round < 3; round += 1) {
    await Promise.all(['a', 'b', 'c'].map((name) => fabric.create(name)));
    keys.push(...fabric.catalog.volumes.list().map((volume) => volume.volumeKey));
    for (const name of ['a', 'b', 'c']) await fabric.client().removeVolume(name, { purge: true });
    await fabric.crash();
  }
  t.equal(new Set(keys).size, 9);
});

t.test('a volume grows and never shrinks; the data path hears of what changed', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('db', { sizeBytes: 10 * MiB });
  const client = fabric.client();
  t.equal((await client.updateVolume('db', { sizeBytes: 20 * MiB })).sizeBytes, 20 * MiB);
  await client.updateVolume('db', { sizeBytes: 20 * MiB });
  await t.rejects(client.updateVolume('db', { sizeBytes: 19 * MiB }), { code: 'INVALID_ARGUMENT' });
  t.strictSame(fabric.host.calls, ['serve db', `resize db ${20 * MiB}`]);
  t.equal((await client.volume('db')).sizeBytes, 20 * MiB);
});

t.test('a quota holds, for many at once too, and the trash counts', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = fabric.client();
  await client.createContainer({ name: 'small', quotaBytes: 10 * MiB });
  const create = (name: string) => fabric.create(name, { container: 'small', sizeBytes: 4 * MiB });
  const results = await Promise.allSettled(['a', 'b', 'c', 'd', 'e'].map(create));
  t.equal(results.filter((result) => result.status === 'fulfilled').length, 2);
  for (const result of results) if (result.status === 'rejected') t.equal(result.reason.code, 'NO_SPACE');
  const [first] = await client.volumes();
  const name = first?.name ?? '';
  await t.rejects(client.updateVolume(name, { sizeBytes: 7 * MiB }), {
    code: 'NO_SPACE',
    message: /2 MiB left/,
  });
  await client.updateVolume(name, { sizeBytes: 6 * MiB });
  await client.removeVolume(name);
  await t.rejects(create('f'), { code: 'NO_SPACE' });
  await client.emptyTrash();
  await create('f');
  t.match(await client.container('small'), { volumeCount: 2, provisionedBytes: 8 * MiB });
});

t.test('a container gives its volumes what they do not say themselves', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.client().createContainer({ name: 'c', chunkSizeBytes: 4096, durability: 'sync' });
  t.match(await fabric.create('a', { container: 'c' }), { chunkSizeBytes: 4096, durability: 'sync' });
  t.match(await fabric.create('b', { container: 'c', durability: 'flush' }), { durability: 'flush' });
  t.match(await fabric.create('small', { physicalBlockBytes: 512 }), { physicalBlockBytes: 512 });
});

t.test('a filesystem is recorded from making to ready, and never made over once it is', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('db');
  const other = '5c5b2a0e-5f0e-4b57-9d0a-333333333333';
  const record = (state: 'making' | 'ready', type: 'ext4' | 'xfs' = 'ext4', id = uuid) =>
    fabric.client().updateVolume('db', { filesystem: { type, uuid: id, state } });
  const refused = { code: 'CONFLICT' };
  await t.rejects(record('ready'), refused, 'none -> ready');
  await record('making', 'xfs', other);
  await record('making');
  await t.rejects(record('ready', 'ext4', other), refused, 'another uuid');
  await t.rejects(record('ready', 'xfs'), refused, 'another type');
  t.match(await record('ready'), { filesystem: { type: 'ext4', uuid, state: 'ready' } });
  await record('ready');
  await t.rejects(record('making'), refused, 'ready -> making');
  await t.rejects(record('making', 'xfs', other), refused, 'ready -> making another');
  await t.rejects(record('ready', 'ext4', other), refused, 'ready -> another');
  t.match(await fabric.client().volume('db'), { filesystem: { type: 'ext4', uuid, state: 'ready' } });
});

t.test('after a restart the catalog is as it was, and every online volume is served', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('a');
  await fabric.create('b');
  await fabric.create('c');
  await fabric.client().removeVolume('b');
  const before = await fabric.client().volumes();
  await fabric.crash();
  t.strictSame(await fabric.client().volumes(), before);
  t.strictSame(fabric.host.calls.toSorted(), ['serve a', 'serve c']);
});

t.test('a document of a newer version stops the start, and is left alone', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('a');
  for (const [key, { json, revision }] of fabric.state.documents) {
    if (!key.startsWith('volume/')) continue;
    const newer = JSON.stringify({ ...(JSON.parse(json) as object), schemaVersion: 3, tier: 'x' });
    fabric.state.documents.set(key, { json: newer, revision });
  }
  await t.rejects(fabric.crash(), { code: 'FORMAT_TOO_NEW' });
});

t.test('the OpenAPI document describes every route with the schemas that are enforced', async (t) => {
  const fabric = await ApiFabric.start(t);
  const { token } = await fabric.client().createToken({ name: 'eyes', role: 'viewer' });
  const response = await fetch(`${fabric.url}/api/v1/openapi.json`, {
    headers: { authorization: `Bearer ${token}` },
  });
  const document = (await response.json()) as {
    openapi: string;
    paths: Record<string, Record<string, unknown>>;
  };
  t.equal(document.openapi, '3.1.0');
  t.strictSame(Object.keys(document.paths['/api/v1/volumes/{name}'] ?? {}).toSorted(), [
    'delete',
    'get',
    'patch',
  ]);
  t.match(document.paths['/api/v1/volumes']?.['post'], {
    requestBody: {
      content: { 'application/json': { schema: { required: ['name'], additionalProperties: false } } },
    },
  });
  t.ok(Object.keys(document.paths).length >= 13);
});
