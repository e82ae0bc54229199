/**
 * Extent pages in memory, with the places of their chunks: a read that hits needs no map lookup and no
 * promise.
 */
import { extentSizeBytes, maxVolumeSizeBytes } from '../base/limits.ts';
import { codecRaw } from '../format/segment.ts';
import type { LocatedChunk, StoredPage } from './map-store.ts';

/**
 * Pages of 16 KiB chunks that are kept: 25 bytes a chunk make 6.4 KiB a page and 100 MiB in all, which covers
 * 64 GiB of volumes. Pages of smaller chunks count as more than one.
 */
export const pageCacheLimitPages = 16_384;
const chunksOfPage = 256;
/** What a page without chunks counts: the object itself. */
const emptyPageCost = 16;
const extentsPerVolume = maxVolumeSizeBytes / extentSizeBytes;

/** One number for a volume's extent. */
export function pageKey(volumeKey: number, extentIndex: number): number {
  return volumeKey * extentsPerVolume + extentIndex;
}

/** Columns instead of objects: 256 objects a page would take six times the memory. */
export class CachedPage {
  readonly slotCount: number;
  /** Set by reads, cleared by the cache when it looks for a page to drop. */
  recentlyUsed = false;
  /** 0 where nothing is stored. */
  chunkIds: Float64Array;
  segmentNumbers = new Uint32Array(0);
  offsetsBytes = new Uint32Array(0);
  storedBytes = new Uint32Array(0);
  checksums = new Uint32Array(0);
  codecs = new Uint8Array(0);

  constructor(slotCount: number) {
    this.slotCount = slotCount;
    this.chunkIds = noChunks(slotCount);
  }

  static from(stored: StoredPage): CachedPage {
    const page = new CachedPage(stored.chunkIds.length);
    const places = new Map<number, LocatedChunk>();
    for (const chunk of stored.chunks) places.set(chunk.chunkId, chunk);
    for (let slot = 0; slot < page.slotCount; slot++) {
      const chunk = places.get(stored.chunkIds[slot]!);
      if (chunk) page.set(slot, chunk);
    }
    return page;
  }

  get isEmpty(): boolean {
    return this.codecs.length === 0;
  }

  set(slot: number, chunk: LocatedChunk): void {
    if (this.isEmpty) {
      this.chunkIds = new Float64Array(this.slotCount);
      this.segmentNumbers = new Uint32Array(this.slotCount);
      this.offsetsBytes = new Uint32Array(this.slotCount);
      this.storedBytes = new Uint32Array(this.slotCount);
      this.checksums = new Uint32Array(this.slotCount);
      this.codecs = new Uint8Array(this.slotCount).fill(codecRaw);
    }
    this.chunkIds[slot] = chunk.chunkId;
    this.segmentNumbers[slot] = chunk.segmentNumber;
    this.offsetsBytes[slot] = chunk.offsetBytes;
    this.storedBytes[slot] = chunk.storedBytes;
    this.checksums[slot] = chunk.checksum;
    this.codecs[slot] = chunk.codec;
  }

  clear(slot: number): void {
    if (!this.isEmpty) this.chunkIds[slot] = 0;
  }
}

/** Zeros that all empty pages of one size share; `set` replaces them before it writes. */
const emptyColumns = new Map<number, Float64Array>();

function noChunks(slotCount: number): Float64Array {
  let column = emptyColumns.get(slotCount);
  if (!column) {
    column = new Float64Array(slotCount);
    emptyColumns.set(slotCount, column);
  }
  return column;
}

/**
 * Drops what was not used lately (second chance: a hit sets a flag instead of moving the page in a list,
 * which would cost more than the lookup).
 */
export class PageCache {
  private readonly limitSlots: number;
  private readonly pages = new Map<number, CachedPage>();
  private usedSlots = 0;

  constructor(limitPages: number) {
    this.limitSlots = limitPages * chunksOfPage;
  }

  get(key: number): CachedPage | undefined {
    const page = this.pages.get(key);
    if (page) page.recentlyUsed = true;
    return page;
  }

  put(key: number, page: CachedPage): void {
    this.delete(key);
    this.pages.set(key, page);
    this.usedSlots += cost(page);
    this.shrink();
  }

  delete(key: number): void {
    const page = this.pages.get(key);
    if (!page) return;
    this.usedSlots -= cost(page);
    this.pages.delete(key);
  }

  /** Changes a page in place, if it is here; it may cost more or less afterwards. */
  update(key: number, change: (page: CachedPage) => void): void {
    const page = this.pages.get(key);
    if (!page) return;
    this.usedSlots -= cost(page);
    change(page);
    this.usedSlots += cost(page);
    this.shrink();
  }

  private shrink(): void {
    if (this.usedSlots <= this.limitSlots) return;
    for (const [key, page] of this.pages) {
      this.pages.delete(key);
      if (page.recentlyUsed) {
        page.recentlyUsed = false;
        this.pages.set(key, page);
      } else {
        this.usedSlots -= cost(page);
        if (this.usedSlots <= this.limitSlots) return;
      }
    }
  }
}

function cost(page: CachedPage): number {
  return page.isEmpty ? emptyPageCost : page.slotCount;
}
