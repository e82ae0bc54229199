import t from 'tap';
import { WeftError } from '../../daemon/base/errors.ts';
import { ApiFabric } from './api-fabric.ts';

const initiator = 'iqn.2026-11.example:a';
const day = 86_400;

/** Time passes, and what it sets off is finished. By the hour: that is how long a timer runs at most. */
async function pass(fabric: ApiFabric, seconds: number): Promise<void> {
  for (let left = seconds; left > 0; left -= 3600) {
    fabric.clock.pass(Math.min(left, 3600));
    await fabric.catalog.trash.idle();
  }
}

t.test('a removed volume is unreachable, frees its name, and comes back whole', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = fabric.client();
  const before = await fabric.create('db', { labels: { a: 'b' } });
  const removed = await client.removeVolume('db');
  t.match(removed, {
    state: 'trash',
    removedAt: '2026-11-01T00:00:00.000Z',
    purgeAt: '2026-11-02T00:00:00.000Z',
    usedBytes: 16_384,
  });
  t.equal(fabric.host.served.size, 0);
  t.equal(fabric.host.data.size, 1, 'its data is still there');
  await t.rejects(client.volume('db'), { code: 'NOT_FOUND', message: /weft volume restore db/ });
  await t.rejects(client.removeVolume('db'), { code: 'NOT_FOUND' });
  t.strictSame(await client.restoreVolume('db'), before);
  t.ok(fabric.host.served.has(before.id));
});

t.test('of several removed volumes of one name the last comes back, the others by their id', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = fabric.client();
  const ids: string[] = [];
  for (let round = 0; round < 3; round += 1) {
    ids.push((await fabric.create('db')).id);
    fabric.clock.pass(1);
    await client.removeVolume('db');
  }
  t.equal((await client.restoreVolume('db')).id, ids[2]);
  await t.rejects(client.restoreVolume('db'), { code: 'ALREADY_EXISTS', message: /--as NEWNAME/ });
  t.match(await client.restoreVolume('db', 'db-old'), { id: ids[1], name: 'db-old' });
  t.match(await client.restoreTrash(ids[0] ?? '', 'db-older'), { name: 'db-older' });
  t.equal((await client.volumes()).length, 3);
});

t.test('a volume in use is not removed, and the error names the users', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = fabric.client();
  const { id } = await fabric.create('db');
  fabric.host.login(id, initiator);
  const before = fabric.snapshot();
  await t.rejects(client.removeVolume('db'), { code: 'IN_USE', message: /example:a logged in/ });
  fabric.host.logout(id);
  await client.claimVolume('db', { holder: 'host-a', initiator });
  await t.rejects(client.removeVolume('db', { purge: true }), {
    code: 'IN_USE',
    details: { holder: 'host-a' },
  });
  await client.releaseClaim('db', 'host-a');
  t.not(before, fabric.snapshot());
  fabric.host.login(id, initiator);
  t.match(await client.removeVolume('db', { force: true }), { state: 'trash', claim: null });
  t.equal(fabric.host.calls.at(-1), 'withdraw db');
});

t.test('a lapsed claim keeps nobody from removing', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('db');
  await fabric.client().claimVolume('db', { holder: 'host-a', initiator, ttlSeconds: 60 });
  fabric.clock.pass(61);
  await fabric.client().removeVolume('db');
});

t.test('purged means gone and its space given back, before the answer', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = fabric.client();
  await fabric.create('db');
  t.equal(await client.removeVolume('db', { purge: true }), null);
  t.strictSame(fabric.host.calls, ['serve db', 'withdraw db', 'destroy 1']);
  t.match(await client.container('default'), { volumeCount: 0, provisionedBytes: 0 });
  t.strictSame(await client.trash(), []);
  await t.rejects(client.restoreVolume('db'), { code: 'NOT_FOUND' });
});

t.test('a container without retention keeps no trash', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.client().createContainer({ name: 'scratch', trashRetentionSeconds: 0 });
  await fabric.create('tmp', { container: 'scratch' });
  t.equal(await fabric.client().removeVolume('tmp'), null);
  t.equal(fabric.host.data.size, 0);
});

t.test('the trash is destroyed when its time has come, not earlier', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = fabric.client();
  await fabric.create('early');
  await client.removeVolume('early');
  fabric.clock.pass(day / 2);
  await fabric.create('late');
  await client.removeVolume('late');
  await pass(fabric, day / 2 - 1);
  t.equal((await client.trash()).length, 2);
  await pass(fabric, 1);
  t.strictSame(
    (await client.trash()).map((volume) => volume.name),
    ['late'],
  );
  await pass(fabric, day / 2);
  t.equal(fabric.host.data.size, 0);
  t.equal(fabric.clock.timers, 0, 'nothing waits for nothing');
});

t.test('what came due while the daemon was away is destroyed at its start', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('db');
  await fabric.client().removeVolume('db');
  fabric.clock.jumpWall(2 * day);
  await fabric.crash();
  await fabric.catalog.trash.idle();
  t.strictSame(await fabric.client().trash(), []);
  t.equal(fabric.host.data.size, 0);
});

t.test('a purge that a crash interrupted is finished at the next start', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('db');
  await fabric.create('kept');
  fabric.host.destroyGate = new Promise(() => undefined);
  const cut = fabric.client().removeVolume('db', { purge: true });
  const lost = t.rejects(cut, { code: 'UNAVAILABLE' });
  while (!fabric.host.calls.includes('destroy 1')) await new Promise(setImmediate);
  const [doomed] = await fabric.client().trash();
  await t.rejects(fabric.client().restoreVolume('db'), { code: 'NOT_FOUND' }, 'it cannot come back');
  t.ok(doomed);
  await fabric.crash();
  await lost;
  await fabric.catalog.trash.idle();
  t.strictSame(fabric.host.calls, ['serve kept', 'destroy 1'], 'it is never served again');
  t.strictSame([...fabric.host.data], [2]);
  t.strictSame(await fabric.client().trash(), []);
  t.match(await fabric.client().container('default'), { volumeCount: 1 });
});

t.test(
  'once the data of a volume in the trash is being destroyed, a crash does not bring it back',
  async (t) => {
    const fabric = await ApiFabric.start(t);
    const { id } = await fabric.create('db');
    await fabric.client().removeVolume('db');
    fabric.host.destroyGate = new Promise(() => undefined);
    const lost = t.rejects(fabric.client().purge(id), { code: 'UNAVAILABLE' });
    while (!fabric.host.calls.includes('destroy 1')) await new Promise(setImmediate);
    await fabric.crash();
    await lost;
    await fabric.catalog.trash.idle();
    t.strictSame(await fabric.client().trash(), []);
    t.equal(fabric.host.data.size, 0);
  },
);

t.test('a purge that failed is reported and tried again', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('db');
  await fabric.client().removeVolume('db');
  fabric.host.destroyFaults.push(new WeftError('IO_ERROR', 'the disk is away'));
  await pass(fabric, day);
  t.match(fabric.faults, [{ code: 'IO_ERROR' }]);
  t.equal(fabric.host.data.size, 1);
  await pass(fabric, 59);
  t.equal(fabric.host.calls.filter((call) => call === 'destroy 1').length, 1, 'not in a busy loop');
  await pass(fabric, 1);
  t.equal(fabric.host.data.size, 0);
});

t.test('restore and purge of one volume at once: one of them wins whole', async (t) => {
  for (let round = 0; round < 5; round += 1) {
    const fabric = await ApiFabric.start(t);
    const client = fabric.client();
    const { id } = await fabric.create('db');
    await client.removeVolume('db');
    const [restored, purged] = await Promise.allSettled([client.restoreTrash(id), client.purge(id)]);
    const back = restored.status === 'fulfilled';
    t.not(back, purged.status === 'fulfilled', 'one');
    t.equal((await client.volumes()).length, back ? 1 : 0);
    t.equal(fabric.host.data.size, back ? 1 : 0);
    t.equal(fabric.host.served.size, back ? 1 : 0);
    await fabric.stop();
  }
});

t.test('the trash is emptied at once', async (t) => {
  const fabric = await ApiFabric.start(t);
  for (const name of ['a', 'b', 'c']) {
    await fabric.create(name);
    await fabric.client().removeVolume(name);
  }
  t.equal(await fabric.client().emptyTrash(), 3);
  t.equal(fabric.host.data.size, 0);
  await fabric.client().removeContainer('default');
});

t.test('what a container keeps can be changed: for what is removed from then on', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = fabric.client();
  for (const name of ['before', 'after', 'never']) await fabric.create(name);
  await client.removeVolume('before');
  t.match(await client.updateContainer('default', { trashRetentionSeconds: 7 * day, durability: 'sync' }), {
    name: 'default',
    trashRetentionSeconds: 7 * day,
    durability: 'sync',
    quotaBytes: null,
    volumeCount: 3,
  });
  t.match(await client.removeVolume('after'), { purgeAt: '2026-11-08T00:00:00.000Z' });
  t.match(await client.trash(), [{}, {}]);
  await pass(fabric, day);
  t.match(await client.trash(), [{ name: 'after' }], 'what was removed before keeps its time');
  await client.updateContainer('default', { trashRetentionSeconds: 0 });
  t.equal(await client.removeVolume('never'), null);
  t.match(await client.volumes(), []);
});

t.test('a quota below what is provisioned takes nothing away and gives nothing more', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = fabric.client();
  const { sizeBytes } = await fabric.create('db');
  await client.updateContainer('default', { quotaBytes: 1_048_576 });
  t.match(await client.volumes(), [{ name: 'db', sizeBytes }]);
  await t.rejects(fabric.create('more'), { code: 'NO_SPACE' });
  await client.updateContainer('default', { quotaBytes: null });
  await fabric.create('more');
  await t.rejects(client.updateContainer('nope', {}), { code: 'NOT_FOUND' });
});
