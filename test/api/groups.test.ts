import t from 'tap';
import { ApiFabric } from './api-fabric.ts';

t.test('volumes of a group are logical units of one target, and share its credentials', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = fabric.client();
  const first = await fabric.create('a', { group: 'cluster' });
  const second = await fabric.create('b', { group: 'cluster' });
  await fabric.create('alone');
  t.match(first, { group: 'cluster', iqn: 'iqn.2026-11.io.weft:group-cluster', lun: 0 });
  t.match(second, { group: 'cluster', iqn: first.iqn, lun: 1 });
  const secret = (await client.attachment('a')).chap?.secret;
  t.match(secret, /^[\w-]{16}$/);
  t.equal((await client.attachment('b')).chap?.secret, secret);
  t.match(await client.attachment('b'), { iqn: first.iqn, lun: 1 });
  t.match(await client.volume('alone'), { group: null, lun: 0 });
  t.not((await client.attachment('alone')).chap?.secret, secret);
});

t.test('a LUN is not given away while its volume lies in the trash', async (t) => {
  const fabric = await ApiFabric.start(t);
  const client = fabric.client();
  for (const name of ['a', 'b', 'c']) await fabric.create(name, { group: 'g' });
  await client.removeVolume('b');
  t.equal((await fabric.create('d', { group: 'g' })).lun, 3);
  t.equal((await client.restoreVolume('b')).lun, 1);
  await client.removeVolume('b', { purge: true });
  t.equal((await fabric.create('e', { group: 'g' })).lun, 1, 'the lowest that is free');
});

t.test('volumes that join a group at once get LUNs of their own', async (t) => {
  const fabric = await ApiFabric.start(t);
  const names = Array.from({ length: 20 }, (_, n) => `v${n}`);
  const made = await Promise.all(names.map((name) => fabric.create(name, { group: 'g' })));
  t.strictSame(
    made.map(({ lun }) => lun).sort((a, b) => a - b),
    names.map((_, n) => n),
  );
});

t.test('nobody joins the group of somebody else, or one that asks for a secret without it', async (t) => {
  const fabric = await ApiFabric.start(t);
  const host = await fabric.clientAs('host-1', 'plugin');
  await fabric.create('a', { group: 'g' });
  const refused = { code: 'FORBIDDEN', message: /^group g belongs to somebody else/ };
  await t.rejects(host.createVolume({ name: 'b', group: 'g' }), refused);
  await t.rejects(fabric.create('c', { group: 'g', chap: 'none' }), { code: 'INVALID_ARGUMENT' });
  await t.rejects(fabric.create('d', { group: 'No Group' }), { code: 'INVALID_ARGUMENT' });
  t.strictSame(
    (await fabric.client().volumes()).map(({ name }) => name),
    ['a'],
  );
});
