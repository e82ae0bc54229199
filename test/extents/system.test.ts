/** The extent store on a real directory with SQLite: what the simulation cannot show. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { KiB, MiB } from '../../daemon/base/limits.ts';
import { SystemDisk } from '../../daemon/env/system-disk.ts';
import { ExtentStore } from '../../daemon/extents/extent-store.ts';
import { SqliteMapStore } from '../../daemon/extents/sqlite-map-store.ts';
import { content, readFrom, updates } from './simulated-store.ts';

const volume = { volumeKey: 9, chunkSizeBytes: 16 * KiB };
const size = volume.chunkSizeBytes;

t.test('volumes come back from files, are compacted and deleted', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'weft-extents-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const open = async () => {
    const maps = await SqliteMapStore.open(join(directory, 'extents.db'));
    const store = await ExtentStore.open({
      stores: [{ disk: new SystemDisk(directory), tier: 'hot' }],
      maps,
      segmentSizeBytes: MiB,
    });
    return { maps, store };
  };
  let { maps, store } = await open();
  const chunks: Record<number, Buffer | null> = {};
  for (let index = 0; index < 600; index++) chunks[index] = content(size, 1 + index);
  await store.store(updates(volume, chunks));
  for (let index = 0; index < 600; index++) if (index % 4 !== 0) chunks[index] = null;
  await store.store(updates(volume, chunks));
  await store.close();
  await maps.close();

  ({ maps, store } = await open());
  t.same(store.usage(9), { chunkCount: 150 });
  const before = store.totals().segmentBytes;
  const check = async () => {
    const all = await readFrom(store, volume, 0, 600 * size);
    for (let index = 0; index < 600; index++) {
      const expected = chunks[index] ?? Buffer.alloc(size);
      if (!all.subarray(index * size, (index + 1) * size).equals(expected)) t.fail(`chunk ${index}`);
    }
  };
  await check();
  let compacting = true;
  while (compacting) compacting = await store.compactOnce();
  await check();
  t.ok(store.totals().segmentBytes <= before);
  await store.deleteVolume(9);
  await store.close();
  await maps.close();

  ({ maps, store } = await open());
  t.same(store.usage(9), { chunkCount: 0 });
  t.same(store.totals(), { segmentBytes: 0, liveBytes: 0 });
  t.same(await readdir(join(directory, 'segments')), []);
  await store.close();
  await maps.close();
});
