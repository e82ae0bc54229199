/**
 * Appends chunks to segments: large writes, one sync a batch, a new segment when one is full.
 *
 * What a batch appended is known by its mark until the map has taken it (`keep`), has certainly not taken it
 * (`undo`: the room is given back), or may have taken it (`doubt`: nothing is touched until the next start).
 */
import { assert } from '../base/assert.ts';
import { MiB } from '../base/limits.ts';
import type { DiskFile } from '../env/disk.ts';
import {
  type ChunkDescription,
  encodeGroupHeader,
  encodeSegmentHeader,
  groupBytes,
  groupHeaderBytes,
  payloadRoomBytes,
  segmentHeaderBytes,
} from '../format/segment.ts';
import type { LocatedChunk } from './map-store.ts';
import type { Segment, Segments } from './segments.ts';

/** A group takes no more chunks once its payloads are this long, in bytes: large enough for the disk's full speed. */
const maxGroupPayloadBytes = 8 * MiB;
/** Up to a whole page. */
const padding = Buffer.alloc(4096);

export interface NewChunk {
  chunkId: number;
  codec: number;
  tier: number;
  rawBytes: number;
  /** The payload as stored; stays untouched until `append` has settled. */
  payload: Buffer;
  /** crc32c of the payload, or another number where nobody shall read it. */
  checksum: number;
}

/** What one batch has appended. */
export interface Appended {
  chunks: LocatedChunk[];
  /** Segments written to, with the size they had before; 0: begun for this batch. */
  touched: { segment: Segment; previousBytes: number }[];
}

export class SegmentWriter {
  private readonly segments: Segments;
  private readonly segmentSizeBytes: number;
  private active: Segment | null = null;

  constructor(segments: Segments, segmentSizeBytes: number) {
    this.segments = segments;
    this.segmentSizeBytes = segmentSizeBytes;
  }

  /**
   * Durable when it resolves; `keep`, `undo` or `doubt` follows. After an error the room is given back and
   * the batch may be tried again.
   */
  async append(chunks: readonly NewChunk[]): Promise<Appended> {
    const appended: Appended = { chunks: [], touched: [] };
    try {
      await this.write(chunks, appended);
      await this.sync(appended);
    } catch (error) {
      await this.undo(appended);
      throw error;
    }
    return appended;
  }

  /** The map has taken the batch. */
  keep(appended: Appended): void {
    for (const { segment } of appended.touched) this.segments.release(segment);
  }

  /** Gives the room of a batch back that the map does not have. */
  async undo(appended: Appended): Promise<void> {
    for (const { segment, previousBytes } of appended.touched) {
      // What follows a failed write or sync cannot be trusted: nothing is appended behind it.
      this.seal(segment);
      if (previousBytes === 0) {
        this.segments.retire(segment);
      } else {
        try {
          await openFile(segment).truncate(previousBytes);
          segment.sizeBytes = previousBytes;
        } catch {
          // The room stays taken until the segment is compacted.
        }
      }
      this.segments.release(segment);
    }
  }

  /** The map may have taken the batch, or not: the next start will tell. */
  doubt(appended: Appended): void {
    for (const { segment } of appended.touched) {
      this.seal(segment);
      segment.uncertain = true;
      this.segments.release(segment);
    }
  }

  /** Gives the active segment up when nothing in it is alive any more. Not while a batch is under way. */
  dropEmpty(): void {
    const segment = this.active;
    if (segment === null || segment.liveBytes > 0) return;
    this.seal(segment);
    this.segments.retire(segment);
  }

  /** Lets go of the active segment. */
  close(): void {
    if (this.active) this.seal(this.active);
  }

  private async write(chunks: readonly NewChunk[], appended: Appended): Promise<void> {
    // Also when it turns out to be full: sealed without a live chunk it is retired with the batch.
    if (this.active && chunks.length > 0) this.touch(this.active, appended);
    for (let first = 0; first < chunks.length; ) {
      if (!this.active) {
        this.active = await this.segments.create();
        this.touch(this.active, appended);
      }
      const count = countThatFit(chunks, first, this.active.sizeBytes, this.segmentSizeBytes);
      if (count === 0) {
        this.seal(this.active);
        continue;
      }
      await this.writeGroup(this.active, chunks.slice(first, first + count), appended);
      first += count;
    }
  }

  private async writeGroup(segment: Segment, chunks: readonly NewChunk[], appended: Appended): Promise<void> {
    const pieces: Uint8Array[] = [];
    const descriptions: ChunkDescription[] = [];
    const isNew = segment.sizeBytes === 0;
    const startBytes = isNew ? segmentHeaderBytes : segment.sizeBytes;
    const headerBytes = groupHeaderBytes(chunks.length);
    let payloadBytes = 0;
    for (const chunk of chunks) {
      const payloadOffsetBytes = headerBytes + payloadBytes;
      appended.chunks.push(locate(chunk, segment, startBytes + payloadOffsetBytes));
      descriptions.push({ ...chunk, payloadOffsetBytes, storedBytes: chunk.payload.length });
      const roomBytes = payloadRoomBytes(chunk.payload.length);
      pieces.push(chunk.payload);
      if (roomBytes > chunk.payload.length)
        pieces.push(padding.subarray(0, roomBytes - chunk.payload.length));
      payloadBytes += roomBytes;
    }
    const totalBytes = groupBytes(chunks.length, payloadBytes);
    const paddingBytes = totalBytes - headerBytes - payloadBytes;
    if (paddingBytes > 0) pieces.push(padding.subarray(0, paddingBytes));
    pieces.unshift(encodeGroupHeader(segment.segmentNumber, totalBytes, descriptions));
    if (isNew) pieces.unshift(encodeSegmentHeader(segment.segmentNumber));
    await new Promise<void>((resolve, reject) => {
      openFile(segment).write(pieces, segment.sizeBytes, (error) => (error ? reject(error) : resolve()));
    });
    segment.sizeBytes = startBytes + totalBytes;
  }

  private async sync(appended: Appended): Promise<void> {
    const work = appended.touched.map(({ segment }) => {
      return new Promise<void>((resolve, reject) => {
        openFile(segment).sync((error) => (error ? reject(error) : resolve()));
      });
    });
    for (const { segment, previousBytes } of appended.touched) {
      if (previousBytes === 0) work.push(this.segments.syncDirectory(segment));
    }
    // All are waited for, also when one fails: `undo` must not meet a sync in flight.
    for (const outcome of await Promise.allSettled(work)) {
      if (outcome.status === 'rejected') throw outcome.reason;
    }
  }

  /** The batch uses the segment until it is kept, undone or doubted, also when the segment is full before. */
  private touch(segment: Segment, appended: Appended): void {
    segment.users++;
    appended.touched.push({ segment, previousBytes: segment.sizeBytes });
  }

  private seal(segment: Segment): void {
    if (this.active === segment) this.active = null;
    if (segment.sealed) return;
    segment.sealed = true;
    this.segments.release(segment);
  }
}

/** How many chunks, from `first` on, make the next group; 0: the segment is full. */
function countThatFit(
  chunks: readonly NewChunk[],
  first: number,
  usedBytes: number,
  segmentSizeBytes: number,
): number {
  const roomBytes = segmentSizeBytes - Math.max(usedBytes, segmentHeaderBytes);
  let payloadBytes = 0;
  let count = 0;
  for (let index = first; index < chunks.length && payloadBytes < maxGroupPayloadBytes; index++) {
    const moreBytes = payloadBytes + payloadRoomBytes(chunks[index]!.payload.length);
    if (groupBytes(count + 1, moreBytes) > roomBytes) break;
    payloadBytes = moreBytes;
    count += 1;
  }
  assert(count > 0 || usedBytes > 0, 'an empty segment has room for a chunk');
  return count;
}

function locate(chunk: NewChunk, segment: Segment, offsetBytes: number): LocatedChunk {
  return {
    chunkId: chunk.chunkId,
    segmentNumber: segment.segmentNumber,
    offsetBytes,
    storedBytes: chunk.payload.length,
    rawBytes: chunk.rawBytes,
    codec: chunk.codec,
    tier: chunk.tier,
    checksum: chunk.checksum,
  };
}

function openFile(segment: Segment): DiskFile {
  assert(segment.file !== null, `segment ${segment.segmentNumber} is being written`);
  return segment.file;
}
