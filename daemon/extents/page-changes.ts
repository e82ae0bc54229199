/** What one batch makes of the pages of the extent map: collected first, committed as one, then seen by readers. */
import { chunksPerExtent, type ExtentMap, type SlotChange, type VolumeChunks } from './extent-map.ts';
import type { LocatedChunk } from './map-store.ts';
import { pageKey } from './page-cache.ts';
import type { Segment } from './segments.ts';

interface ChangedPage {
  volumeKey: number;
  extentIndex: number;
  /** All of the page, as it is from now on. */
  chunkIds: Float64Array;
  /** What differs; chunk 0: a hole. */
  slots: { slot: number; chunkId: number }[];
}

export class PageChanges {
  private readonly map: ExtentMap;
  private readonly pages = new Map<number, ChangedPage>();

  constructor(map: ExtentMap) {
    this.map = map;
  }

  /** The chunk's slot is the new chunk's from now on; 0: a hole. Returns the chunk that was there. */
  async set(volume: VolumeChunks, chunkIndex: number, chunkId: number): Promise<number> {
    const slotCount = chunksPerExtent(volume);
    const page = await this.page(volume, Math.floor(chunkIndex / slotCount));
    const slot = chunkIndex % slotCount;
    const before = page.chunkIds[slot]!;
    if (before === chunkId) return before;
    page.chunkIds[slot] = chunkId;
    page.slots.push({ slot, chunkId });
    return before;
  }

  get isEmpty(): boolean {
    for (const { slots } of this.pages.values()) if (slots.length > 0) return false;
    return true;
  }

  /** Durable, and visible to readers, when it resolves. Errors as `ExtentMap.commit`; then nothing is visible. */
  async commit(addedChunks: LocatedChunk[], touched: readonly { segment: Segment }[]): Promise<void> {
    const pages = [...this.pages.values()].filter(({ slots }) => slots.length > 0);
    await this.map.commit({ pages, addedChunks, movedChunks: [], deletedVolumes: [] }, touched);
    const places = new Map(addedChunks.map((chunk) => [chunk.chunkId, chunk]));
    for (const { volumeKey, extentIndex, slots } of pages) {
      const changes = slots.map(({ slot, chunkId }): SlotChange => {
        return { slot, chunk: places.get(chunkId) ?? null };
      });
      this.map.applied(volumeKey, extentIndex, changes);
    }
  }

  private async page(volume: VolumeChunks, extentIndex: number): Promise<ChangedPage> {
    const { volumeKey } = volume;
    const key = pageKey(volumeKey, extentIndex);
    let page = this.pages.get(key);
    if (!page) {
      const { chunkIds } = this.map.cached(volume, extentIndex) ?? (await this.map.page(volume, extentIndex));
      page = { volumeKey, extentIndex, chunkIds: chunkIds.slice(), slots: [] };
      this.pages.set(key, page);
    }
    return page;
  }
}
