/**
 * The extent map as the store uses it: pages from the cache or the map store, counts in memory, changes
 * committed.
 */
import { assert } from '../base/assert.ts';
import { asWeftError, WeftError } from '../base/errors.ts';
import { extentSizeBytes } from '../base/limits.ts';
import type { CommitEffect, LocatedChunk, MapChange, MapStore, MapSummary } from './map-store.ts';
import { CachedPage, PageCache, pageKey } from './page-cache.ts';
import type { Segment, Segments } from './segments.ts';

/** A volume as far as its chunks go. */
export interface VolumeChunks {
  volumeKey: number;
  chunkSizeBytes: number;
}

export type PageDone = (error: WeftError | null, page: CachedPage | null) => void;

/** What becomes of one chunk of a page: the place of its new content, or null for a hole. */
export type SlotChange = { slot: number; chunk: LocatedChunk | null };

interface Loading {
  /** The page changed while it was on its way. */
  stale: boolean;
  waiting: PageDone[];
}

export function chunksPerExtent(volume: VolumeChunks): number {
  return extentSizeBytes / volume.chunkSizeBytes;
}

export class ExtentMap {
  private readonly maps: MapStore;
  private readonly segments: Segments;
  private readonly cache: PageCache;
  private readonly loading = new Map<number, Loading>();
  private readonly chunkCounts = new Map<number, number>();

  constructor(maps: MapStore, segments: Segments, summary: MapSummary, cacheLimitPages: number) {
    this.maps = maps;
    this.segments = segments;
    this.cache = new PageCache(cacheLimitPages);
    for (const { volumeKey, chunkCount } of summary.volumes) this.chunkCounts.set(volumeKey, chunkCount);
  }

  /** Null when the page has to be loaded: see `load`. */
  cached(volume: VolumeChunks, extentIndex: number): CachedPage | null {
    const page = this.cache.get(pageKey(volume.volumeKey, extentIndex));
    assert(!page || page.slotCount === chunksPerExtent(volume), 'the chunk size of a volume does not change');
    return page ?? null;
  }

  /** Callers that want the same page at once share one load. */
  load(volume: VolumeChunks, extentIndex: number, done: PageDone): void {
    const key = pageKey(volume.volumeKey, extentIndex);
    const loading = this.loading.get(key);
    if (loading) {
      loading.waiting.push(done);
      return;
    }
    this.loading.set(key, { stale: false, waiting: [done] });
    void this.fetch(volume, extentIndex);
  }

  async page(volume: VolumeChunks, extentIndex: number): Promise<CachedPage> {
    const cached = this.cached(volume, extentIndex);
    if (cached) return cached;
    return new Promise((resolve, reject) => {
      this.load(volume, extentIndex, (error, page) => (page ? resolve(page) : reject(error)));
    });
  }

  forget(volume: VolumeChunks, extentIndex: number): void {
    this.cache.delete(pageKey(volume.volumeKey, extentIndex));
  }

  listExtents(volumeKey: number): Promise<number[]> {
    return this.maps.listExtents(volumeKey);
  }

  listSegment(segmentNumber: number): Promise<LocatedChunk[]> {
    return this.maps.listSegment(segmentNumber);
  }

  chunkCount(volumeKey: number): number {
    return this.chunkCounts.get(volumeKey) ?? 0;
  }

  /**
   * Commits and keeps the counts. Segments that end up without a live chunk are retired: those the commit
   * emptied and those of `touched`. On an error the changed pages are loaded anew.
   */
  async commit(change: MapChange, touched: readonly { segment: Segment }[]): Promise<void> {
    let effect: CommitEffect;
    try {
      effect = await this.maps.commit(change);
    } catch (error) {
      for (const { volumeKey, extentIndex } of change.pages) this.invalidate(pageKey(volumeKey, extentIndex));
      throw asWeftError(error);
    }
    const emptied = touched.map(({ segment }) => segment);
    for (const { segmentNumber, liveBytes } of effect.segments) {
      const segment = this.segments.get(segmentNumber);
      if (!segment) continue;
      segment.liveBytes = liveBytes;
      emptied.push(segment);
    }
    for (const segment of emptied) {
      if (segment.liveBytes === 0 && segment.sealed && !segment.uncertain) this.segments.retire(segment);
    }
    for (const { volumeKey, chunkCount } of effect.volumes) {
      if (chunkCount === 0) this.chunkCounts.delete(volumeKey);
      else this.chunkCounts.set(volumeKey, chunkCount);
    }
  }

  /** After a commit: what is cached says what is stored. */
  applied(volumeKey: number, extentIndex: number, changes: readonly SlotChange[]): void {
    const key = pageKey(volumeKey, extentIndex);
    this.cache.update(key, (page) => {
      for (const { slot, chunk } of changes) {
        if (chunk) page.set(slot, chunk);
        else page.clear(slot);
      }
    });
    const loading = this.loading.get(key);
    if (loading) loading.stale = true;
  }

  /** After a commit: all chunks of the extent are gone. */
  removed(volumeKey: number, extentIndex: number): void {
    this.invalidate(pageKey(volumeKey, extentIndex));
  }

  private invalidate(key: number): void {
    this.cache.delete(key);
    const loading = this.loading.get(key);
    if (loading) loading.stale = true;
  }

  private async fetch(volume: VolumeChunks, extentIndex: number): Promise<void> {
    const { volumeKey } = volume;
    const key = pageKey(volumeKey, extentIndex);
    const loading = this.loading.get(key);
    assert(loading, 'a load is registered before it starts');
    let failure: WeftError | null = null;
    let page: CachedPage | null = null;
    try {
      do {
        loading.stale = false;
        const stored = await this.maps.loadPage(volumeKey, extentIndex);
        const slotCount = chunksPerExtent(volume);
        if (stored && stored.chunkIds.length !== slotCount) {
          const sizes = `has ${stored.chunkIds.length} chunks instead of ${slotCount}`;
          const message = `extent map: extent ${extentIndex} of volume ${volumeKey} ${sizes}`;
          throw new WeftError('CORRUPT', message, { details: { volumeKey, extentIndex } });
        }
        page = stored ? CachedPage.from(stored) : new CachedPage(slotCount);
      } while (loading.stale);
      this.cache.put(key, page);
    } catch (error) {
      page = null;
      failure = asWeftError(error);
    }
    this.loading.delete(key);
    for (const done of loading.waiting) done(failure, page);
  }
}
