import t from 'tap';
import { KiB } from '../../daemon/base/limits.ts';
import { ChunkCache } from '../../daemon/extents/chunk-cache.ts';
import { content, SimulatedStore } from './simulated-store.ts';

const chunk = (fill: number) => Buffer.alloc(4 * KiB, fill);

t.test('it keeps what fits, drops what was not used, and gives every dropped buffer back once', async (t) => {
  const given: number[] = [];
  const cache = new ChunkCache(12 * KiB, (buffer) => given.push(buffer[0]!));
  for (const id of [1, 2, 3]) cache.put(id, chunk(id));
  t.same(given, []);
  t.ok(cache.get(1));
  cache.put(4, chunk(4));
  t.same(given, [2], 'the oldest was used: the next one goes');
  t.equal(cache.get(2), undefined);
  for (const id of [1, 3, 4]) t.equal(cache.get(id)?.[0], id);
  cache.put(3, chunk(33));
  t.same(given, [2, 33], 'what is there already stays');
  cache.put(5, Buffer.alloc(16 * KiB, 5));
  t.same(given, [2, 33, 5], 'too long for it');
});

t.test('a cache of nothing keeps nothing', async (t) => {
  let given = 0;
  const cache = new ChunkCache(0, () => {
    given += 1;
  });
  cache.put(1, chunk(1));
  t.equal(cache.get(1), undefined);
  t.equal(given, 1);
});

t.test(
  'parts of a chunk are read from the disk once, also after it has moved; what replaces it is read anew',
  async (t) => {
    const volume = { volumeKey: 3, chunkSizeBytes: 16 * KiB };
    const size = volume.chunkSizeBytes;
    const fabric = await SimulatedStore.open(1, { chunkCacheBytes: 64 * KiB, segmentSizeBytes: 64 * KiB });
    const chunks: Record<number, Buffer> = {};
    for (let index = 0; index < 6; index++) chunks[index] = content(size, 10 + index);
    await fabric.put(volume, chunks);
    const part = async (index: number, from: number) => {
      const before = fabric.disk.operationCount;
      const bytes = await fabric.read(volume, index * size + from, 4 * KiB);
      return { bytes, isFromDisk: fabric.disk.operationCount > before };
    };
    t.same(await part(0, 0), { bytes: content(size, 10).subarray(0, 4 * KiB), isFromDisk: true });
    t.same(await part(0, 12 * KiB), { bytes: content(size, 10).subarray(12 * KiB), isFromDisk: false });
    await fabric.put(volume, { 1: null, 2: null, 3: null, 4: null });
    while (await fabric.compact()) await fabric.clock.idle();
    t.same(await part(0, 4 * KiB), {
      bytes: content(size, 10).subarray(4 * KiB, 8 * KiB),
      isFromDisk: false,
    });
    await fabric.put(volume, { 0: content(size, 99) });
    t.same(await part(0, 4 * KiB), { bytes: content(size, 99).subarray(4 * KiB, 8 * KiB), isFromDisk: true });
  },
);

t.test('a damaged chunk is not kept', async (t) => {
  const volume = { volumeKey: 3, chunkSizeBytes: 16 * KiB };
  const fabric = await SimulatedStore.open(2, { chunkCacheBytes: 64 * KiB });
  await fabric.put(volume, { 0: content(16 * KiB, 1) });
  fabric.disk.flipBit('segments/0000000001.wfs', 9000);
  for (let round = 0; round < 2; round++)
    await t.rejects(fabric.read(volume, 0, 4 * KiB), { code: 'CORRUPT' });
});
