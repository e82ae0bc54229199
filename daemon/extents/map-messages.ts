/**
 * What passes between `sqlite-map-store.ts` and its thread. Rows travel as columns of numbers in one
 * Float64Array: cloning 256 objects costs some 150 µs, moving one array next to nothing.
 */
import type { ErrorCode } from '../base/errors.ts';
import type { LocatedChunk, MapChange } from './map-store.ts';

export interface MapThreadOptions {
  path: string;
}

export type MapRequest = { requestId: number } & (
  | { operation: 'summary' }
  | { operation: 'loadPage'; volumeKey: number; extentIndex: number }
  | { operation: 'listExtents'; volumeKey: number }
  | { operation: 'listSegment'; segmentNumber: number }
  | { operation: 'commit'; change: PackedChange }
  | { operation: 'close' }
);

export type MapReply = { requestId: number } & (
  | { result: unknown; failure?: never }
  | { result?: never; failure: { code: ErrorCode; message: string; details: Record<string, unknown> } }
);

export interface PackedPage {
  chunkIds: Float64Array;
  chunks: Float64Array;
}

export interface PackedChange {
  /** Volume key, extent index and number of chunk ids of each page. */
  pages: Float64Array;
  /** The chunk ids of all pages, one after another. */
  chunkIds: Float64Array;
  addedChunks: Float64Array;
  movedChunks: Float64Array;
  deletedVolumes: number[];
}

/** Numbers a chunk takes in packed form. */
export const chunkColumns = 8;

export function packChunks(chunks: readonly LocatedChunk[]): Float64Array {
  const packed = new Float64Array(chunks.length * chunkColumns);
  let at = 0;
  for (const chunk of chunks) {
    packed[at] = chunk.chunkId;
    packed[at + 1] = chunk.segmentNumber;
    packed[at + 2] = chunk.offsetBytes;
    packed[at + 3] = chunk.storedBytes;
    packed[at + 4] = chunk.rawBytes;
    packed[at + 5] = chunk.codec;
    packed[at + 6] = chunk.tier;
    packed[at + 7] = chunk.checksum;
    at += chunkColumns;
  }
  return packed;
}

export function unpackChunks(packed: Float64Array): LocatedChunk[] {
  const chunks: LocatedChunk[] = [];
  for (let at = 0; at < packed.length; at += chunkColumns) {
    chunks.push({
      chunkId: packed[at]!,
      segmentNumber: packed[at + 1]!,
      offsetBytes: packed[at + 2]!,
      storedBytes: packed[at + 3]!,
      rawBytes: packed[at + 4]!,
      codec: packed[at + 5]!,
      tier: packed[at + 6]!,
      checksum: packed[at + 7]!,
    });
  }
  return chunks;
}

export function packChange(change: MapChange): PackedChange {
  let idCount = 0;
  for (const page of change.pages) idCount += page.chunkIds.length;
  const pages = new Float64Array(change.pages.length * 3);
  const chunkIds = new Float64Array(idCount);
  let row = 0;
  let at = 0;
  for (const page of change.pages) {
    pages[row++] = page.volumeKey;
    pages[row++] = page.extentIndex;
    pages[row++] = page.chunkIds.length;
    chunkIds.set(page.chunkIds, at);
    at += page.chunkIds.length;
  }
  return {
    pages,
    chunkIds,
    addedChunks: packChunks(change.addedChunks),
    movedChunks: packChunks(change.movedChunks),
    deletedVolumes: change.deletedVolumes,
  };
}
