/**
 * What was drained from the journal: chunks in segments, found through the extent map.
 *
 * Order of a change: segment data durable, then the map's commit durable, then memory. A crash between leaves
 * data in a segment that the map does not know; it goes when the store opens, or when the segment is
 * compacted.
 */
import { crc32c } from '@node-rs/crc32';
import { assert } from '../base/assert.ts';
import { WeftError } from '../base/errors.ts';
import { blockSizeBytes, extentSizeBytes, maxChunkSizeBytes, segmentSizeBytes } from '../base/limits.ts';
import type { Store } from '../env/store.ts';
import { codecRaw } from '../format/segment.ts';
import type { ReadDone } from './chunk-reads.ts';
import { ChunkReads } from './chunk-reads.ts';
import type { CompactionEnv } from './compaction.ts';
import { compactOnce } from './compaction.ts';
import type { VolumeChunks } from './extent-map.ts';
import { chunksPerExtent, ExtentMap } from './extent-map.ts';
import type { LocatedChunk, MapStore } from './map-store.ts';
import { pageCacheLimitPages } from './page-cache.ts';
import { PageChanges } from './page-changes.ts';
import type { Appended, NewChunk } from './segment-writer.ts';
import { SegmentWriter } from './segment-writer.ts';
import type { Segment, SegmentLog } from './segments.ts';
import { Segments } from './segments.ts';
import { WarmUp } from './warm-up.ts';
import { WriteTurns } from './write-turns.ts';

export type { VolumeChunks } from './extent-map.ts';

export interface ExtentStoreEnv {
  /** At least one of them hot; the first is where the journal is. */
  stores: readonly Store[];
  /** Stays open when the store closes: it belongs to whoever made it. */
  maps: MapStore;
  log?: SegmentLog;
  pageCacheLimitPages?: number;
  /** A segment takes no more chunks once it is this long. */
  segmentSizeBytes?: number;
  /** Of adopted files, what is read into the system's cache when there is nothing to do, in bytes; 0 if not given. */
  warmUpBytes?: number;
  /** Background work calls it before it touches so many bytes, and goes on when it resolves. */
  giveWay?: (bytes: number) => Promise<void>;
  /** Memory for chunks that were read in part, in bytes; 0 if not given. */
  chunkCacheBytes?: number;
}

/** One chunk as it is from now on. */
export interface ChunkUpdate extends VolumeChunks {
  chunkIndex: number;
  /** A whole chunk, untouched until `store` has settled; null: it becomes a hole. */
  data: Buffer | null;
  /** crc32c of the data, where it is known already: data that changed on its way is found out when it is read. */
  checksum?: number;
  /** Part of the data is lost: it is kept as a chunk whose reading gives CORRUPT. */
  damaged?: boolean;
}

/** One chunk as it is from now on, in a file that was adopted. */
export interface PlacedChunk extends VolumeChunks {
  chunkIndex: number;
  /** Of its data in the file, in bytes. */
  offsetBytes: number;
  /** crc32c of its data. */
  checksum: number;
}

export type AllocationDone = (error: WeftError | null, mapped: boolean, lengthBytes: number) => void;

/** `allocation` looks at this many extents at most, which is 256 MiB. */
const maxAllocationExtents = 64;
/** Extents that one commit removes; other writers get a turn in between. */
const deletedExtentsAtOnce = 64;
const tierHot = 0;
const zeros = Buffer.alloc(maxChunkSizeBytes);

export class ExtentStore {
  private readonly segments: Segments;
  private readonly map: ExtentMap;
  private readonly reads: ChunkReads;
  private readonly writer: SegmentWriter;
  private readonly compaction: CompactionEnv;
  private readonly warmUp: WarmUp;
  private readonly turns = new WriteTurns();
  private readonly journalStore: Store;
  private nextChunkId: number;
  private storing = false;
  private compacting: Promise<boolean> | null = null;
  private closed = false;

  /**
   * Removes what nothing refers to. CORRUPT when a segment the map names is missing; FORMAT_TOO_NEW,
   * IO_ERROR.
   */
  static async open(env: ExtentStoreEnv): Promise<ExtentStore> {
    const summary = await env.maps.summary();
    const segments = await Segments.open(env.stores, env.log, summary.segments);
    const limitPages = env.pageCacheLimitPages ?? pageCacheLimitPages;
    const map = new ExtentMap(env.maps, segments, summary, limitPages);
    return new ExtentStore(env, segments, map, summary.nextChunkId);
  }

  private constructor(env: ExtentStoreEnv, segments: Segments, map: ExtentMap, nextChunkId: number) {
    const sizeBytes = env.segmentSizeBytes ?? segmentSizeBytes;
    const giveWay = env.giveWay ?? (() => Promise.resolve());
    this.segments = segments;
    this.journalStore = env.stores[0]!;
    this.map = map;
    this.nextChunkId = nextChunkId;
    this.reads = new ChunkReads(map, segments, env.chunkCacheBytes ?? 0);
    this.writer = new SegmentWriter(segments, sizeBytes);
    this.warmUp = new WarmUp(segments, env.warmUpBytes ?? 0, giveWay);
    this.compaction = {
      map,
      segments,
      writer: new SegmentWriter(segments, sizeBytes),
      turns: this.turns,
      log: env.log,
      giveWay,
      checkOpen: () => this.checkOpen(),
    };
  }

  /**
   * Fills `target` from `offsetBytes` on, zeros where nothing is stored. Never calls back synchronously. What
   * a `store` in flight changes may be read as before or as after. Errors: CORRUPT names volume, offset and
   * segment.
   */
  read(volume: VolumeChunks, offsetBytes: number, target: Buffer, done: ReadDone): void {
    assert(offsetBytes % blockSizeBytes === 0, 'a read begins on a block');
    assert(target.length > 0 && target.length % blockSizeBytes === 0, 'a read is of whole blocks');
    if (this.closed) queueMicrotask(() => done(closedError()));
    else this.reads.read(volume, offsetBytes, target, done);
  }

  /**
   * Whether the chunk at `offsetBytes` is stored, and for how many bytes that stays so: at most `limitBytes`,
   * and not further than 256 MiB.
   */
  allocation(volume: VolumeChunks, offsetBytes: number, limitBytes: number, done: AllocationDone): void {
    assert(limitBytes > 0, 'an allocation of nothing');
    if (this.closed) {
      queueMicrotask(() => done(closedError(), false, 0));
      return;
    }
    void this.findAllocation(volume, offsetBytes, limitBytes).then(
      ({ mapped, endBytes }) => done(null, mapped, Math.min(endBytes - offsetBytes, limitBytes)),
      (error: WeftError) => done(error, false, 0),
    );
  }

  /**
   * Makes the updates durable and visible, all or none. One call at a time; a chunk at most once in it. After
   * an error (NO_SPACE, IO_ERROR, CORRUPT) the store is as before and the call may be repeated.
   */
  async store(updates: readonly ChunkUpdate[]): Promise<void> {
    assert(!this.storing, 'store is called by one caller, one call at a time');
    this.checkOpen();
    this.storing = true;
    try {
      await this.turns.run('urgent', () => this.storeBatch(updates));
    } finally {
      this.storing = false;
    }
  }

  /**
   * Takes a file of the journal's store as a segment: under a second name, durably, with nothing alive in it. `place`
   * and `adopted` follow. Errors: UNSUPPORTED where files have one name only; IO_ERROR, NO_SPACE.
   */
  adopt(path: string, sizeBytes: number): Promise<Segment> {
    this.checkOpen();
    return this.segments.link(this.journalStore, path, sizeBytes);
  }

  /** Makes the chunks those that lie in an adopted file. Durable and visible, all or none. Called and fails as `store`. */
  async place(segment: Segment, chunks: readonly PlacedChunk[]): Promise<void> {
    assert(!this.storing, 'store and place are called by one caller, one call at a time');
    this.checkOpen();
    if (chunks.length === 0) return;
    this.storing = true;
    try {
      await this.turns.run('urgent', () => this.placeBatch(segment, chunks));
    } finally {
      this.storing = false;
    }
  }

  /** Nothing more of the file is placed: it goes when nothing in it is alive. */
  adopted(segment: Segment): void {
    segment.sealed = true;
    if (segment.liveBytes === 0 && !segment.uncertain) this.segments.retire(segment);
    else this.warmUp.add(segment);
    this.segments.release(segment);
  }

  /** Nothing else is to be done, for as long as `isIdle` says so: see `warm-up.ts`. */
  idle(isIdle: () => boolean): void {
    if (!this.closed) this.warmUp.start(() => !this.closed && isIdle());
  }

  /**
   * Makes chunks of `target`, from `firstChunk` on, those of `source` from `sourceChunk` on: both refer to them from now
   * on, until one is stored anew. Durable and visible, all or none. Called and fails as `store`.
   */
  async share(
    source: VolumeChunks,
    sourceChunk: number,
    target: VolumeChunks,
    firstChunk: number,
    count: number,
  ): Promise<void> {
    assert(!this.storing, 'store and share are called by one caller, one call at a time');
    assert(source.chunkSizeBytes === target.chunkSizeBytes, 'chunks of one size are shared');
    this.checkOpen();
    this.storing = true;
    try {
      await this.turns.run('urgent', () => this.shareBatch(source, sourceChunk, target, firstChunk, count));
    } finally {
      this.storing = false;
    }
  }

  /**
   * Removes all chunks of a volume, in steps: after a crash some may be left, and the call is repeated.
   * Nobody may read or store the volume meanwhile.
   */
  async deleteVolume(volumeKey: number): Promise<void> {
    this.checkOpen();
    const extents = await this.map.listExtents(volumeKey);
    for (let first = 0; first < extents.length; first += deletedExtentsAtOnce) {
      await this.turns.run('background', async () => {
        this.checkOpen();
        const removed = extents.slice(first, first + deletedExtentsAtOnce);
        const last = first + removed.length === extents.length;
        const pages = last ? [] : removed.map((extentIndex) => ({ volumeKey, extentIndex, chunkIds: [] }));
        const deletedVolumes = last ? [volumeKey] : [];
        await this.map.commit({ pages, addedChunks: [], movedChunks: [], deletedVolumes }, []);
        for (const extentIndex of removed) this.map.removed(volumeKey, extentIndex);
      });
    }
  }

  usage(volumeKey: number): { chunkCount: number } {
    return { chunkCount: this.map.chunkCount(volumeKey) };
  }

  /** In bytes: what the segment files take, and how much of that is chunks somebody refers to. */
  totals(): { segmentBytes: number; liveBytes: number } {
    let segmentBytes = 0;
    let liveBytes = 0;
    for (const segment of this.segments.all()) {
      segmentBytes += segment.sizeBytes;
      liveBytes += segment.liveBytes;
    }
    return { segmentBytes, liveBytes };
  }

  /**
   * Compacts one segment, and gives up those all dead; false when none is worth it. `store` goes first between
   * its steps. One call at a time.
   */
  async compactOnce(): Promise<boolean> {
    assert(!this.compacting, 'one compaction at a time');
    this.checkOpen();
    const compacting = this.dropEmptySegments().then(() => compactOnce(this.compaction));
    this.compacting = compacting;
    try {
      return await compacting;
    } finally {
      this.compacting = null;
    }
  }

  /** Waits for what is in flight. The map store stays open. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    // It stops at its next step; what it throws goes to its caller.
    await this.compacting?.catch(() => undefined);
    await this.warmUp.ended();
    await this.turns.run('background', async () => {
      this.writer.close();
      this.compaction.writer.close();
      await this.reads.idle();
      await this.segments.close();
    });
  }

  /** A segment that is still written to is not retired with its last chunk: its file would stay, all dead. */
  private dropEmptySegments(): Promise<void> {
    return this.turns.run('background', async () => {
      this.writer.dropEmpty();
      this.compaction.writer.dropEmpty();
    });
  }

  private async storeBatch(updates: readonly ChunkUpdate[]): Promise<void> {
    this.checkOpen();
    const changes = new PageChanges(this.map);
    const chunks = await this.plan(updates, changes);
    if (changes.isEmpty) return;
    const appended = await this.writer.append(chunks);
    try {
      await changes.commit(appended.chunks, appended.touched);
    } catch (error) {
      await this.giveUp(appended, error as WeftError);
      throw error;
    }
    this.writer.keep(appended);
  }

  private async placeBatch(segment: Segment, chunks: readonly PlacedChunk[]): Promise<void> {
    this.checkOpen();
    const changes = new PageChanges(this.map);
    const located: LocatedChunk[] = [];
    for (const chunk of chunks) {
      const { chunkSizeBytes, chunkIndex, offsetBytes, checksum } = chunk;
      const chunkId = this.nextChunkId++;
      await changes.set(chunk, chunkIndex, chunkId);
      located.push({
        chunkId,
        segmentNumber: segment.segmentNumber,
        offsetBytes,
        storedBytes: chunkSizeBytes,
        rawBytes: chunkSizeBytes,
        codec: codecRaw,
        tier: tierHot,
        checksum,
      });
    }
    try {
      await changes.commit(located, []);
    } catch (error) {
      // It may be in the map: the file has to stay until that is known.
      if ((error as WeftError).code !== 'NO_SPACE') segment.uncertain = true;
      throw error;
    }
  }

  private async shareBatch(
    source: VolumeChunks,
    sourceChunk: number,
    target: VolumeChunks,
    firstChunk: number,
    count: number,
  ): Promise<void> {
    this.checkOpen();
    const slotCount = chunksPerExtent(target);
    const pages: { volumeKey: number; extentIndex: number; chunkIds: Float64Array }[] = [];
    for (let at = firstChunk; at < firstChunk + count; ) {
      const extentIndex = Math.floor(at / slotCount);
      const end = Math.min(firstChunk + count, (extentIndex + 1) * slotCount);
      const chunkIds = (await this.map.page(target, extentIndex)).chunkIds.slice();
      let differs = false;
      while (at < end) {
        const from = sourceChunk + at - firstChunk;
        const page = await this.map.page(source, Math.floor(from / slotCount));
        const pageEnd = Math.min(end, at + slotCount - (from % slotCount));
        for (let slot = from % slotCount; at < pageEnd; at++, slot++) {
          const chunkId = page.chunkIds[slot]!;
          differs ||= chunkIds[at % slotCount] !== chunkId;
          chunkIds[at % slotCount] = chunkId;
        }
      }
      if (differs) pages.push({ volumeKey: target.volumeKey, extentIndex, chunkIds });
    }
    if (pages.length === 0) return;
    await this.map.commit({ pages, addedChunks: [], movedChunks: [], deletedVolumes: [] }, []);
    // Where the chunks lie is for the map store to say: what is cached of the source may have been compacted since.
    for (const { volumeKey, extentIndex } of pages) this.map.removed(volumeKey, extentIndex);
  }

  /** Notes what changes; returns the chunks to append. All zeros are a hole; a hole over a hole is no change. */
  private async plan(updates: readonly ChunkUpdate[], changes: PageChanges): Promise<NewChunk[]> {
    const chunks: NewChunk[] = [];
    const firstChunkId = this.nextChunkId;
    for (const update of updates) {
      const { chunkSizeBytes, chunkIndex, data, checksum, damaged = false } = update;
      assert(data === null || data.length === chunkSizeBytes, 'whole chunks are stored');
      const isHole = data === null || (!damaged && data.equals(zeros.subarray(0, chunkSizeBytes)));
      const chunkId = isHole ? 0 : this.nextChunkId++;
      const before = await changes.set(update, chunkIndex, chunkId);
      assert(before < firstChunkId, 'a chunk is updated once in a batch');
      if (isHole) continue;
      chunks.push({
        chunkId,
        codec: codecRaw,
        tier: tierHot,
        rawBytes: chunkSizeBytes,
        payload: data,
        checksum: damaged ? ~crc32c(data) >>> 0 : (checksum ?? crc32c(data)),
      });
    }
    return chunks;
  }

  private async giveUp(appended: Appended, error: WeftError): Promise<void> {
    if (error.code === 'NO_SPACE') await this.writer.undo(appended);
    else this.writer.doubt(appended);
  }

  private async findAllocation(volume: VolumeChunks, offsetBytes: number, limitBytes: number) {
    const slotCount = chunksPerExtent(volume);
    const firstExtent = Math.floor(offsetBytes / extentSizeBytes);
    let slot = Math.floor((offsetBytes % extentSizeBytes) / volume.chunkSizeBytes);
    let mapped: boolean | null = null;
    let extentIndex = firstExtent;
    for (; extentIndex < firstExtent + maxAllocationExtents; extentIndex++) {
      if (extentIndex * extentSizeBytes >= offsetBytes + limitBytes) break;
      const { chunkIds } = await this.map.page(volume, extentIndex);
      mapped ??= chunkIds[slot] !== 0;
      while (slot < slotCount && (chunkIds[slot] !== 0) === mapped) slot++;
      if (slot < slotCount) {
        return { mapped, endBytes: extentIndex * extentSizeBytes + slot * volume.chunkSizeBytes };
      }
      slot = 0;
    }
    return { mapped: mapped ?? false, endBytes: extentIndex * extentSizeBytes };
  }

  private checkOpen(): void {
    if (this.closed) throw closedError();
  }
}

function closedError(): WeftError {
  return new WeftError('SHUTTING_DOWN', 'the extent store is closed');
}
