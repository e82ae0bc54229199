import t from 'tap';
import { WeftError } from '../../daemon/base/errors.ts';
import { ApiFabric } from './api-fabric.ts';

const a = { holder: 'host-a', initiator: 'iqn.2026-11.example:a', ttlSeconds: 60 };
const b = { holder: 'host-b', initiator: 'iqn.2026-11.example:b', ttlSeconds: 60 };

async function claimable(t: { teardown(end: () => Promise<void>): void }) {
  const fabric = await ApiFabric.start(t);
  const { id } = await fabric.create('db');
  return {
    fabric,
    id,
    client: fabric.client(),
    take: (claim: typeof a) => fabric.client().claimVolume('db', claim),
    admits: ({ initiator }: typeof a) =>
      fabric.catalog.volumes.admit(fabric.catalog.volumes.find('db'), initiator),
  };
}

t.test('while one host holds a volume another is refused, and told who holds it', async (t) => {
  const { take, admits } = await claimable(t);
  t.equal(admits(b), null, 'unclaimed: anybody');
  t.match(await take(a), { holder: 'host-a', epoch: 2, expiresAt: '2026-11-01T00:01:00.000Z' });
  await t.rejects(take(b), {
    code: 'IN_USE',
    message: /host-a \(iqn\.2026-11\.example:a\) until 2026-11-01T00:01:00/,
    details: { holder: 'host-a', initiator: a.initiator },
  });
  t.equal(admits(a), null);
  t.equal(admits({ ...a, initiator: a.initiator.toUpperCase() }), null, 'names compare in lower case');
  t.match(admits(b), /claimed by host-a/);
});

t.test('a claim that is renewed never lapses, and keeps its epoch', async (t) => {
  const { fabric, take } = await claimable(t);
  const first = await take(a);
  for (let round = 0; round < 10; round += 1) {
    fabric.clock.pass(59);
    await t.rejects(take(b), { code: 'IN_USE' });
    t.equal((await take(a)).epoch, first.epoch);
  }
  t.notOk(fabric.host.calls.some((call) => call.startsWith('drop')));
});

t.test(
  'a lapsed claim is taken over: a new epoch, and the old initiator is out before the answer',
  async (t) => {
    const { fabric, id, client, take, admits } = await claimable(t);
    const first = await take(a);
    fabric.host.login(id, a.initiator);
    fabric.clock.pass(59.9);
    await t.rejects(take(b), { code: 'IN_USE' });
    fabric.clock.pass(0.2);
    t.equal((await client.volume('db')).claim, null, 'lapsed');
    const second = await take(b);
    t.equal(second.epoch, first.epoch + 1);
    t.strictSame((await client.volume('db')).sessions, []);
    t.match(fabric.host.calls.at(-1), `drop db ${a.initiator}`);
    t.match(admits(a), /claimed by host-b/);
    await t.rejects(
      take(a),
      { code: 'IN_USE', details: { holder: 'host-b' } },
      'the old holder cannot renew',
    );
  },
);

t.test('a takeover whose fencing failed is not answered, and fences when it is tried again', async (t) => {
  const { fabric, id, client, take } = await claimable(t);
  await take(a);
  fabric.host.login(id, a.initiator);
  fabric.clock.pass(61);
  fabric.host.dropFaults.push(new WeftError('UNAVAILABLE', 'the target does not answer'));
  await t.rejects(take(b), { code: 'UNAVAILABLE' });
  t.equal((await client.volume('db')).sessions.length, 1);
  await take(b);
  t.strictSame((await client.volume('db')).sessions, []);
});

t.test(
  'nobody has a claim before what others sent has taken effect, also of sessions that are gone',
  async (t) => {
    const { fabric, take } = await claimable(t);
    let open = (): void => {};
    fabric.host.fenceGate = new Promise((resolve) => {
      open = resolve;
    });
    let isTaken = false;
    const taking = take(a).then(() => {
      isTaken = true;
    });
    await fabric.client().status();
    await fabric.client().status();
    t.notOk(isTaken);
    open();
    await taking;
  },
);

t.test('a lapsed claim that nobody took is renewed by its holder, under the same epoch', async (t) => {
  const { fabric, take } = await claimable(t);
  const first = await take(a);
  fabric.clock.pass(1000);
  t.equal((await take(a)).epoch, first.epoch);
  await t.rejects(take(b), { code: 'IN_USE' });
});

t.test('of many hosts that want a lapsed volume one gets it', async (t) => {
  const { fabric, take } = await claimable(t);
  await take(a);
  fabric.clock.pass(61);
  const hosts = Array.from({ length: 10 }, (_, index) => ({
    holder: `host-${index}`,
    initiator: `iqn.2026-11.example:${index}`,
    ttlSeconds: 60,
  }));
  const results = await Promise.allSettled(hosts.map(take));
  t.equal(results.filter((result) => result.status === 'fulfilled').length, 1);
});

t.test('a jump of the wall clock lapses no claim and lets none live on', async (t) => {
  const { fabric, take } = await claimable(t);
  await take(a);
  fabric.clock.jumpWall(86_400);
  await t.rejects(take(b), { code: 'IN_USE' });
  fabric.clock.jumpWall(-2 * 86_400);
  await t.rejects(take(b), { code: 'IN_USE' });
  fabric.clock.pass(61);
  await take(b);
});

t.test(
  'after a restart a claim has a whole TTL to be renewed in, however long the daemon was away',
  async (t) => {
    const { fabric, take } = await claimable(t);
    const first = await take(a);
    fabric.clock.pass(50);
    await fabric.crash();
    fabric.clock.pass(59);
    await t.rejects(take(b), { code: 'IN_USE', details: { holder: 'host-a' } });
    t.equal((await take(a)).epoch, first.epoch, 'renewed as if nothing had been');
    await fabric.crash();
    fabric.clock.pass(61);
    t.equal((await take(b)).epoch, first.epoch + 1);
  },
);

t.test('a released volume is free at once, and what is left of its sessions is dropped', async (t) => {
  const { fabric, id, client, take } = await claimable(t);
  const first = await take(a);
  fabric.host.login(id, a.initiator);
  await t.rejects(client.releaseClaim('db', 'host-b'), { code: 'IN_USE' });
  await client.releaseClaim('db', 'host-a');
  t.strictSame((await client.volume('db')).sessions, []);
  await client.releaseClaim('db', 'host-a');
  t.equal((await take(b)).epoch, first.epoch + 1, 'an epoch is never used twice');
});

t.test('another initiator under the same name waits for the lapse, then fences the first', async (t) => {
  const { fabric, id, take } = await claimable(t);
  const first = await take(a);
  fabric.host.login(id, a.initiator);
  const namesake = { ...a, initiator: 'iqn.2026-11.example:a2' };
  await t.rejects(take(namesake), { code: 'IN_USE', message: /host-a/ }, 'two hosts may have one name');
  fabric.clock.pass(61);
  const renamed = await take(namesake);
  t.equal(renamed.epoch, first.epoch + 1);
  t.equal(fabric.host.calls.at(-1), `drop db ${a.initiator}`);
});

t.test('a volume somebody is logged in to without a claim is not taken from under them', async (t) => {
  const { fabric, id, take } = await claimable(t);
  fabric.host.login(id, 'iqn.2026-11.example:tool');
  await t.rejects(take(a), { code: 'IN_USE', message: /example:tool logged in/ });
  fabric.host.logout(id);
  fabric.host.login(id, a.initiator);
  await take(a);
  t.notOk(
    fabric.host.calls.some((call) => call.startsWith('drop')),
    'its own session stays',
  );
});

t.test('nobody is admitted to a volume in the trash', async (t) => {
  const { fabric, client } = await claimable(t);
  const record = fabric.catalog.volumes.find('db');
  await client.removeVolume('db');
  t.match(fabric.catalog.volumes.admit(record, a.initiator), /not online/);
});
