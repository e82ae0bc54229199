import { chmodSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import t from 'tap';
import { openSqliteControlStore } from '../../daemon/control/sqlite-control-store.ts';
import { MemoryControlState, MemoryControlStore } from '../simulation/memory-control-store.ts';
import { controlStoreConformance } from './control-store-conformance.ts';

const directory = t.testdir({
  'not-a-database': 'just text, and long enough to be taken for a page '.repeat(90),
});

controlStoreConformance({
  name: 'sqlite',
  open: (place) => openSqliteControlStore(join(directory, `${place}.db`)),
});

const places = new Map<string, MemoryControlState>();
controlStoreConformance({
  name: 'memory',
  open: async (place) => {
    const state = places.get(place) ?? new MemoryControlState();
    places.set(place, state);
    return new MemoryControlStore(state);
  },
});

t.test('a control store of a newer version is refused and left as it is', async (t) => {
  const filename = join(directory, 'newer.db');
  const store = await openSqliteControlStore(filename);
  await store.transact({ conditions: [], puts: [{ key: 'a', value: 1 }], deletes: [] });
  await store.close();
  const database = new Database(filename);
  database.pragma('user_version = 2');
  database.close();
  await t.rejects(openSqliteControlStore(filename), { code: 'FORMAT_TOO_NEW', message: /format 2/ });
});

t.test('a document that is no JSON is refused with its name', async (t) => {
  const filename = join(directory, 'no-json.db');
  const store = await openSqliteControlStore(filename);
  await store.transact({ conditions: [], puts: [{ key: 'unit/a', value: 1 }], deletes: [] });
  await store.close();
  const database = new Database(filename);
  database.exec(`UPDATE documents SET json = '{"x'`);
  database.close();
  const damaged = await openSqliteControlStore(filename);
  await t.rejects(damaged.list('unit/'), { code: 'CORRUPT', message: /unit\/a is damaged/ });
  await damaged.close();
});

t.test('a file that is no control store is refused', async (t) => {
  await t.rejects(openSqliteControlStore(join(directory, 'not-a-database')), { code: 'CORRUPT' });
  const foreign = join(directory, 'foreign.db');
  const database = new Database(foreign);
  database.exec('CREATE TABLE other (a)');
  database.close();
  await t.rejects(openSqliteControlStore(foreign), { code: 'CORRUPT', message: /not Weft's/ });
});

t.test('a damaged control store is refused, not served', async (t) => {
  const filename = join(directory, 'damaged.db');
  const store = await openSqliteControlStore(filename);
  for (let index = 0; index < 50; index += 1) {
    const puts = [{ key: `k${index}`, value: 'x'.repeat(1000) }];
    await store.transact({ conditions: [], puts, deletes: [] });
  }
  await store.close();
  const database = new Database(filename);
  const pages = database.pragma('page_count', { simple: true }) as number;
  const bytes = database.serialize();
  database.close();
  bytes.fill(0xa5, 4096, 4096 * (pages - 1));
  writeFileSync(filename, bytes);
  await t.rejects(openSqliteControlStore(filename), { code: 'CORRUPT' });
});

t.test('a directory that does not exist is an error, not a crash', async (t) => {
  await t.rejects(openSqliteControlStore(join(directory, 'missing', 'control.db')), { code: 'IO_ERROR' });
});

t.test('documents are synced at every commit', async (t) => {
  const filename = join(directory, 'pragmas.db');
  const store = await openSqliteControlStore(filename);
  const database = new Database(filename, { readonly: true });
  t.equal(database.pragma('journal_mode', { simple: true }), 'wal');
  database.close();
  await store.close();
});

t.test('nobody else can read the file, which has secrets, nor what lies beside it', async (t) => {
  const filename = join(directory, 'private.db');
  writeFileSync(filename, '');
  chmodSync(filename, 0o644);
  const store = await openSqliteControlStore(filename);
  await store.transact({ conditions: [], puts: [{ key: 'a', value: 1 }], deletes: [] });
  for (const path of [filename, `${filename}-wal`, `${filename}-shm`]) {
    t.equal(statSync(path).mode & 0o777, 0o600, path.slice(directory.length));
  }
  await store.close();
});
