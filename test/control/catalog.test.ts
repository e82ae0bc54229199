/** The catalog on the engine it runs on; what it promises in detail is in test/api. */
import { join } from 'node:path';
import t from 'tap';
import { Catalog } from '../../daemon/control/catalog.ts';
import { openSqliteControlStore } from '../../daemon/control/sqlite-control-store.ts';
import { systemRandom } from '../../daemon/env/random.ts';
import { FakeVolumeHost } from '../api/fake-volume-host.ts';
import { ManualClock } from './manual-clock.ts';
import { testSecrets } from './test-secrets.ts';

async function open(filename: string) {
  const store = await openSqliteControlStore(filename);
  const host = new FakeVolumeHost();
  const onFault = (error: Error) => {
    throw error;
  };
  const catalog = new Catalog({
    store,
    host,
    clock: new ManualClock(),
    random: systemRandom,
    secrets: testSecrets,
    onFault,
  });
  await catalog.start();
  return {
    catalog,
    host,
    async close() {
      await catalog.stop();
      await store.close();
    },
  };
}

const wanted = { sizeBytes: 1_048_576, chap: 'auto', createdBy: 'admin' } as const;

t.test('what was committed to SQLite is there after a restart, as it was', async (t) => {
  const filename = join(t.testdir(), 'control.db');
  const first = await open(filename);
  const created = await Promise.all(
    Array.from({ length: 20 }, (_, index) => first.catalog.volumes.create({ ...wanted, name: `v${index}` })),
  );
  t.equal(new Set(created.map((volume) => volume.volumeKey)).size, 20, 'each with a key of its own');
  await first.catalog.trash.remove(created[3]?.id ?? '', 'v3', { force: false, purge: false });
  await first.catalog.trash.remove(created[4]?.id ?? '', 'v4', { force: false, purge: true });
  const { token } = await first.catalog.tokens.create('host-a', 'plugin');
  await first.catalog.claims.take(created[5]?.id ?? '', 'v5', {
    holder: 'h',
    initiator: 'iqn.a:b',
    ttlMs: 60_000,
  });
  const volumes = first.catalog.volumes.list();
  const trash = first.catalog.trash.list();
  await first.close();

  const second = await open(filename);
  t.teardown(() => second.close());
  t.strictSame(second.catalog.volumes.list(), volumes);
  t.strictSame(second.catalog.trash.list(), trash);
  t.equal(second.host.served.size, 18);
  t.strictSame(second.catalog.tokens.byToken(token), { name: 'host-a', role: 'plugin' });
  t.match(second.catalog.claims.live(second.catalog.volumes.find('v5')), { holder: 'h', epoch: 2 });
  t.match(second.catalog.containers.find('default'), { volumeCount: 19, provisionedBytes: 19 * 1_048_576 });
});

t.test('many that want one name through SQLite: one gets it', async (t) => {
  const { catalog, host, close } = await open(join(t.testdir(), 'control.db'));
  t.teardown(close);
  const results = await Promise.allSettled(
    Array.from({ length: 10 }, () => catalog.volumes.create({ ...wanted, name: 'db' })),
  );
  t.equal(results.filter((result) => result.status === 'fulfilled').length, 1);
  t.equal(host.served.size, 1);
});
