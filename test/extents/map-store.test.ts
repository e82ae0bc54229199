import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import t from 'tap';
import { SqliteMapStore } from '../../daemon/extents/sqlite-map-store.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';
import { SimulatedMapStore } from '../simulation/simulated-map-store.ts';
import { change, chunkAt, mapStoreConformance, page } from './map-store-conformance.ts';

const directory = await mkdtemp(join(tmpdir(), 'weft-map-'));
t.teardown(() => rm(directory, { recursive: true, force: true }));
let files = 0;
const newPath = () => join(directory, `${files++}.db`);

let sqlitePath = '';
mapStoreConformance(t, {
  name: 'sqlite',
  open: () => {
    sqlitePath = newPath();
    return SqliteMapStore.open(sqlitePath);
  },
  reopen: async (store) => {
    await store.close();
    return SqliteMapStore.open(sqlitePath);
  },
});

const env = (seed: number) => {
  const random = new SeededRandom(seed);
  return { schedule: (fire: () => void) => void setImmediate(fire), random: () => random.next() };
};
mapStoreConformance(t, {
  name: 'simulated',
  open: async () => new SimulatedMapStore(env(1)),
  reopen: async (store) => (store as SimulatedMapStore).crash(),
});

t.test('a file of a newer version is refused and left alone', async (t) => {
  const path = newPath();
  await (await SqliteMapStore.open(path)).close();
  const database = new Database(path);
  database.pragma('user_version = 3');
  database.close();
  await t.rejects(SqliteMapStore.open(path), { code: 'FORMAT_TOO_NEW' });
});

t.test(
  'a file of version 1 is upgraded: places behind the headers of its chunks, live bytes without them',
  async (t) => {
    const path = newPath();
    let store = await SqliteMapStore.open(path);
    await store.commit(
      change({
        pages: [page(1, 0, { 0: 1, 1: 2 })],
        addedChunks: [chunkAt(1, 7, 0), { ...chunkAt(2, 7, 1), storedBytes: 4095 }],
      }),
    );
    const chunks = await store.listSegment(7);
    await store.close();
    const database = new Database(path);
    database.exec('UPDATE chunks SET offset = offset - 96; UPDATE segments SET live = live + 2 * 96');
    database.pragma('user_version = 1');
    database.close();
    for (const time of ['first', 'second']) {
      store = await SqliteMapStore.open(path);
      t.same(await store.listSegment(7), chunks, `${time} start`);
      t.same((await store.summary()).segments, [{ segmentNumber: 7, liveBytes: 16384 + 4096 }]);
      await store.close();
    }
  },
);

t.test('a file that is not an extent map is refused', async (t) => {
  const path = newPath();
  const database = new Database(path);
  database.exec('CREATE TABLE notes(text TEXT)');
  database.close();
  await t.rejects(SqliteMapStore.open(path), { code: 'CORRUPT' });
  await t.rejects(SqliteMapStore.open(import.meta.filename), { code: 'CORRUPT' });
  await t.rejects(SqliteMapStore.open(join(directory, 'missing', 'map.db')), /directory/);
});

t.test('a page with a wrong bit is refused, naming its volume and extent', async (t) => {
  const path = newPath();
  let store = await SqliteMapStore.open(path);
  await store.commit(
    change({
      pages: [page(5, 9, { 0: 1 }), page(5, 10, { 0: 2 })],
      addedChunks: [chunkAt(1, 1, 0), chunkAt(2, 1, 1)],
    }),
  );
  await store.close();
  const database = new Database(path);
  const blob = database.prepare('SELECT page FROM extents ORDER BY key').pluck().get() as Buffer;
  blob[100]! ^= 4;
  database.prepare('UPDATE extents SET page = ? WHERE key = ?').run(blob, 5 * 2 ** 24 + 9);
  database.close();
  store = await SqliteMapStore.open(path);
  await t.rejects(store.loadPage(5, 9), { code: 'CORRUPT', details: { volumeKey: 5, extentIndex: 9 } });
  await t.rejects(store.commit(change({ pages: [page(5, 9, {})] })), { code: 'CORRUPT' });
  t.equal((await store.loadPage(5, 10))?.chunks.length, 1);
  await store.close();
});

t.test('a commit that fails changes nothing, and the next one goes through', async (t) => {
  const store = await SqliteMapStore.open(newPath());
  await store.commit(change({ pages: [page(1, 0, { 0: 1 })], addedChunks: [chunkAt(1, 1, 0)] }));
  const before = await store.summary();
  // Page 2 refers to a chunk that does not exist: the whole change is refused.
  const wrong = change({
    pages: [page(1, 0, { 0: 2 }), page(1, 1, { 0: 99 })],
    addedChunks: [chunkAt(2, 1, 1)],
  });
  await t.rejects(store.commit(wrong), { code: 'CORRUPT' });
  t.same(await store.summary(), before);
  t.same((await store.loadPage(1, 0))!.chunks, [chunkAt(1, 1, 0)]);
  await store.commit(change({ pages: [page(1, 0, { 0: 2 })], addedChunks: [chunkAt(2, 1, 1)] }));
  t.same((await store.loadPage(1, 0))!.chunks, [chunkAt(2, 1, 1)]);
  await store.close();
});

t.test('requests are answered in the order they were made', async (t) => {
  const store = await SqliteMapStore.open(newPath());
  const commit = (id: number) =>
    store.commit(change({ pages: [page(1, 0, { 0: id })], addedChunks: [chunkAt(id, 1, id)] }));
  const answers = await Promise.all([
    store.loadPage(1, 0),
    commit(1),
    store.loadPage(1, 0),
    commit(2),
    store.loadPage(1, 0),
  ]);
  const seen = [answers[0], answers[2], answers[4]].map((page) => page?.chunkIds[0]);
  t.same(seen, [undefined, 1, 2]);
  await store.close();
});

t.test('a simulated commit that a crash cuts off is there whole or not at all', async (t) => {
  let survived = 0;
  for (let seed = 0; seed < 40; seed++) {
    const store = new SimulatedMapStore(env(seed));
    await store.commit(change({ pages: [page(1, 0, { 0: 1 })], addedChunks: [chunkAt(1, 1, 0)] }));
    let answered = false;
    void store
      .commit(
        change({
          pages: [page(1, 0, { 0: 2 }), page(1, 1, { 0: 3 })],
          addedChunks: [chunkAt(2, 1, 1), chunkAt(3, 1, 2)],
        }),
      )
      .then(() => {
        answered = true;
      });
    const after = store.crash();
    const first = (await after.loadPage(1, 0))!.chunkIds[0];
    const second = (await after.loadPage(1, 1))?.chunkIds[0];
    t.ok((first === 1 && second === undefined) || (first === 2 && second === 3), `seed ${seed}`);
    t.notOk(answered, 'the store that crashed stays silent');
    if (first === 2) survived++;
  }
  t.ok(survived > 5 && survived < 35, 'both happen');
});
