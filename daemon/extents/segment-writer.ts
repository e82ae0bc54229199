/**
 * Appends chunks to segments: large writes, one sync a batch, a new segment when one is full.
 *
 * What a batch appended is known by its mark until the map has taken it (`keep`), has certainly not taken it
 * (`undo`: the room is given back), or may have taken it (`doubt`: nothing is touched until the next start).
 */
import { assert } from '../base/assert.ts';
import type { DiskFile } from '../env/disk.ts';
import {
  chunkHeaderBytes,
  chunkRecordBytes,
  encodeChunkHeader,
  encodeSegmentHeader,
  segmentHeaderBytes,
} from '../format/segment-chunk.ts';
import type { LocatedChunk } from './map-store.ts';
import type { Segment, Segments } from './segments.ts';

/** Pieces are handed to the disk when they reach this, in bytes: large enough for its full speed. */
const writeBytes = 8 * 2 ** 20;
const padding = Buffer.alloc(8);

export interface NewChunk {
  chunkId: number;
  volumeKey: number;
  chunkIndex: number;
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
    const headers = Buffer.allocUnsafe(chunks.length * chunkHeaderBytes);
    let headerAt = 0;
    let pieces: Uint8Array[] = [];
    let pieceBytes = 0;
    // Also when it turns out to be full: sealed without a live chunk it is retired with the batch.
    if (this.active && chunks.length > 0) this.touch(this.active, appended);
    for (const chunk of chunks) {
      const recordBytes = chunkRecordBytes(chunk.payload.length);
      if (this.active && this.active.sizeBytes + pieceBytes + recordBytes > this.segmentSizeBytes) {
        await this.writePieces(this.active, pieces, pieceBytes);
        pieces = [];
        pieceBytes = 0;
        this.seal(this.active);
      }
      if (!this.active) {
        this.active = await this.segments.create();
        this.touch(this.active, appended);
        pieces.push(encodeSegmentHeader(this.active.segmentNumber));
        pieceBytes = segmentHeaderBytes;
      }
      const located = locate(chunk, this.active, this.active.sizeBytes + pieceBytes);
      encodeChunkHeader(headers, headerAt, {
        ...located,
        volumeKey: chunk.volumeKey,
        chunkIndex: chunk.chunkIndex,
      });
      pieces.push(headers.subarray(headerAt, headerAt + chunkHeaderBytes), chunk.payload);
      const padBytes = recordBytes - chunkHeaderBytes - chunk.payload.length;
      if (padBytes > 0) pieces.push(padding.subarray(0, padBytes));
      headerAt += chunkHeaderBytes;
      pieceBytes += recordBytes;
      appended.chunks.push(located);
      if (pieceBytes >= writeBytes) {
        await this.writePieces(this.active, pieces, pieceBytes);
        pieces = [];
        pieceBytes = 0;
      }
    }
    if (this.active && pieces.length > 0) await this.writePieces(this.active, pieces, pieceBytes);
  }

  private async writePieces(segment: Segment, pieces: Uint8Array[], pieceBytes: number): Promise<void> {
    if (pieces.length === 0) return;
    const file = openFile(segment);
    await new Promise<void>((resolve, reject) => {
      file.write(pieces, segment.sizeBytes, (error) => (error ? reject(error) : resolve()));
    });
    segment.sizeBytes += pieceBytes;
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
