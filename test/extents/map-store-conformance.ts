/** What every engine of the extent map promises (`map-store.ts`), as tests. */

import type { Test } from 'tap';
import type { LocatedChunk, MapChange, MapStore } from '../../daemon/extents/map-store.ts';
import { payloadRoomBytes } from '../../daemon/format/segment.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';

export interface MapEngine {
  name: string;
  open: () => Promise<MapStore>;
  /** Ends the store, without its cooperation where that makes a difference, and opens what it kept. */
  reopen: (store: MapStore) => Promise<MapStore>;
}

const slotCount = 256;
const stored = 16384;
const recordBytes = payloadRoomBytes(stored);

export function chunkAt(chunkId: number, segmentNumber: number, index: number): LocatedChunk {
  const offsetBytes = 4096 + index * recordBytes;
  const checksum = (chunkId * 2_654_435_761) % 2 ** 32;
  return {
    chunkId,
    segmentNumber,
    offsetBytes,
    storedBytes: stored,
    rawBytes: stored,
    codec: 0,
    tier: 0,
    checksum,
  };
}

export function page(volumeKey: number, extentIndex: number, slots: Record<number, number>) {
  const chunkIds = Array.from({ length: slotCount }, (_, slot) => slots[slot] ?? 0);
  return { volumeKey, extentIndex, chunkIds };
}

export function change(parts: Partial<MapChange>): MapChange {
  return { pages: [], addedChunks: [], movedChunks: [], deletedVolumes: [], ...parts };
}

function sorted(chunks: readonly LocatedChunk[]): LocatedChunk[] {
  return [...chunks].sort((a, b) => a.chunkId - b.chunkId);
}

export function mapStoreConformance(t: Test, engine: MapEngine): void {
  t.test(`${engine.name}: an empty map has nothing and starts ids at 1`, async (t) => {
    const store = await engine.open();
    t.same(await store.summary(), { nextChunkId: 1, segments: [], volumes: [] });
    t.equal(await store.loadPage(1, 0), null);
    t.same(await store.listExtents(1), []);
    t.same(await store.listSegment(1), []);
    await store.close();
  });

  t.test(`${engine.name}: what was committed is there after a restart`, async (t) => {
    let store = await engine.open();
    const chunks = [chunkAt(1, 7, 0), chunkAt(2, 7, 1), chunkAt(2 ** 40, 8, 0)];
    const effect = await store.commit(
      change({
        pages: [page(3, 0, { 0: 1, 255: 2 }), page(3, 2 ** 24 - 1, { 17: 2 ** 40 })],
        addedChunks: chunks,
      }),
    );
    t.same(effect.segments, [
      { segmentNumber: 7, liveBytes: 2 * recordBytes },
      { segmentNumber: 8, liveBytes: recordBytes },
    ]);
    t.same(effect.volumes, [{ volumeKey: 3, chunkCount: 3 }]);
    store = await engine.reopen(store);
    const summary = await store.summary();
    t.equal(summary.nextChunkId, 2 ** 40 + 1);
    t.same(summary.segments, effect.segments);
    t.same(summary.volumes, effect.volumes);
    t.same(await store.listExtents(3), [0, 2 ** 24 - 1]);
    t.same(await store.listExtents(2), []);
    t.same(await store.listExtents(4), []);
    const first = (await store.loadPage(3, 0))!;
    t.same(Array.from(first.chunkIds), page(3, 0, { 0: 1, 255: 2 }).chunkIds);
    t.same(sorted(first.chunks), chunks.slice(0, 2));
    t.same((await store.loadPage(3, 2 ** 24 - 1))!.chunks, chunks.slice(2));
    t.same(await store.listSegment(7), chunks.slice(0, 2));
    await store.close();
  });

  t.test(`${engine.name}: a chunk lives as long as a page refers to it`, async (t) => {
    const store = await engine.open();
    await store.commit(
      change({ pages: [page(1, 0, { 0: 1 }), page(2, 5, { 9: 1, 10: 1 })], addedChunks: [chunkAt(1, 4, 0)] }),
    );
    t.same((await store.loadPage(2, 5))!.chunks.length > 0, true);
    const one = await store.commit(change({ pages: [page(2, 5, {})] }));
    t.same(one.volumes, [{ volumeKey: 2, chunkCount: 0 }]);
    t.equal(await store.loadPage(2, 5), null, 'a page of zeros is removed');
    t.same((await store.summary()).segments, [{ segmentNumber: 4, liveBytes: recordBytes }]);
    const two = await store.commit(change({ pages: [{ volumeKey: 1, extentIndex: 0, chunkIds: [] }] }));
    t.same(two.segments, [{ segmentNumber: 4, liveBytes: 0 }]);
    t.same(await store.summary(), { nextChunkId: 2, segments: [], volumes: [] });
    t.same(await store.listSegment(4), []);
    await store.close();
  });

  t.test(`${engine.name}: chunks are replaced in the commit that writes the new ones`, async (t) => {
    const store = await engine.open();
    await store.commit(
      change({
        pages: [page(1, 0, { 0: 1, 1: 2 })],
        addedChunks: [chunkAt(1, 1, 0), chunkAt(2, 1, 1)],
      }),
    );
    const effect = await store.commit(
      change({ pages: [page(1, 0, { 0: 3, 1: 2 })], addedChunks: [chunkAt(3, 2, 0)] }),
    );
    const bySegment = effect.segments.sort((a, b) => a.segmentNumber - b.segmentNumber);
    t.same(bySegment, [
      { segmentNumber: 1, liveBytes: recordBytes },
      { segmentNumber: 2, liveBytes: recordBytes },
    ]);
    t.same(await store.listSegment(1), [chunkAt(2, 1, 1)]);
    await store.close();
  });

  t.test(`${engine.name}: chunks are moved, and those that are gone are not`, async (t) => {
    const store = await engine.open();
    await store.commit(
      change({
        pages: [page(1, 0, { 0: 1, 1: 2 })],
        addedChunks: [chunkAt(1, 1, 0), chunkAt(2, 1, 1)],
      }),
    );
    await store.commit(change({ pages: [page(1, 0, { 1: 2 })] }));
    const effect = await store.commit(change({ movedChunks: [chunkAt(1, 9, 0), chunkAt(2, 9, 1)] }));
    const bySegment = effect.segments.sort((a, b) => a.segmentNumber - b.segmentNumber);
    t.same(bySegment, [
      { segmentNumber: 1, liveBytes: 0 },
      { segmentNumber: 9, liveBytes: recordBytes },
    ]);
    t.same(await store.listSegment(9), [chunkAt(2, 9, 1)]);
    t.same((await store.loadPage(1, 0))!.chunks, [chunkAt(2, 9, 1)]);
    await store.close();
  });

  t.test(`${engine.name}: a volume goes with all its pages and no other volume's`, async (t) => {
    const store = await engine.open();
    await store.commit(
      change({
        pages: [page(1, 0, { 0: 1 }), page(2, 0, { 0: 2 }), page(2, 700, { 1: 3 }), page(3, 0, { 0: 4 })],
        addedChunks: [1, 2, 3, 4].map((id) => chunkAt(id, 1, id)),
      }),
    );
    await store.commit(change({ deletedVolumes: [2, 77] }));
    t.same(await store.listExtents(2), []);
    t.same((await store.summary()).volumes, [
      { volumeKey: 1, chunkCount: 1 },
      { volumeKey: 3, chunkCount: 1 },
    ]);
    t.same(
      (await store.listSegment(1)).map(({ chunkId }) => chunkId),
      [1, 4],
    );
    await store.close();
  });

  t.test(`${engine.name}: ids are not given again after their chunks are gone`, async (t) => {
    let store = await engine.open();
    await store.commit(change({ pages: [page(1, 0, { 0: 41 })], addedChunks: [chunkAt(41, 1, 0)] }));
    await store.commit(change({ deletedVolumes: [1] }));
    store = await engine.reopen(store);
    t.equal((await store.summary()).nextChunkId, 42);
    await store.close();
  });

  t.test(`${engine.name}: a closed map refuses requests`, async (t) => {
    const store = await engine.open();
    await store.close();
    await t.rejects(store.summary(), { code: 'SHUTTING_DOWN' });
    await t.rejects(store.commit(change({})), { code: 'SHUTTING_DOWN' });
  });

  t.test(`${engine.name}: random changes leave what a plain model has`, async (t) => {
    const random = new SeededRandom(20);
    let store = await engine.open();
    const model = new Map<string, number[]>();
    const places = new Map<number, LocatedChunk>();
    let nextChunkId = 1;
    for (let round = 0; round < 40; round++) {
      const pages = new Map<string, number[]>();
      const addedChunks: LocatedChunk[] = [];
      for (let touch = random.between(1, 12); touch > 0; touch--) {
        const key = `${random.between(1, 3)}/${random.below(3)}`;
        const ids = pages.get(key) ?? [...(model.get(key) ?? new Array<number>(slotCount).fill(0))];
        const slot = random.below(slotCount);
        const added = chunkAt(nextChunkId, 1 + (round % 10), nextChunkId);
        const clear = random.chance(0.3);
        if (!clear && ids[slot]! < nextChunkId - touch) {
          addedChunks.push(added);
          places.set(nextChunkId, added);
          ids[slot] = nextChunkId++;
        } else if (!addedChunks.some(({ chunkId }) => chunkId === ids[slot])) {
          ids[slot] = 0;
        }
        pages.set(key, ids);
      }
      const changed = [...pages].map(([key, chunkIds]) => {
        const [volumeKey, extentIndex] = key.split('/').map(Number) as [number, number];
        model.set(key, chunkIds);
        return { volumeKey, extentIndex, chunkIds };
      });
      await store.commit(change({ pages: changed, addedChunks }));
      if (random.chance(0.1)) store = await engine.reopen(store);
    }
    const live = new Map<number, number>();
    for (const [key, ids] of model) {
      const [volumeKey, extentIndex] = key.split('/').map(Number) as [number, number];
      const stored = await store.loadPage(volumeKey, extentIndex);
      const present = ids.filter((id) => id !== 0);
      t.same(Array.from(stored?.chunkIds ?? []), present.length > 0 ? ids : []);
      t.same(sorted(stored?.chunks ?? []), sorted(present.map((id) => places.get(id)!)), `places of ${key}`);
      for (const id of present) {
        const { segmentNumber } = places.get(id)!;
        live.set(segmentNumber, (live.get(segmentNumber) ?? 0) + recordBytes);
      }
    }
    const { segments } = await store.summary();
    t.same(new Map(segments.map(({ segmentNumber, liveBytes }) => [segmentNumber, liveBytes])), live);
    await store.close();
  });
}
