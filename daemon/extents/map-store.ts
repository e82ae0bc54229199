/**
 * Where the extent map is kept: durable pages and chunk locations, changed in atomic transactions.
 *
 * A commit survives power loss once it has resolved; one that was cut off is there whole or not at all. The
 * system's engine is SQLite in a worker thread (`sqlite-map-store.ts`); a simulated fabric brings its own.
 */
export interface MapStore {
  /**
   * What is needed at start: segments with their live bytes, chunks per volume, the highest chunk id ever
   * given.
   */
  summary(): Promise<MapSummary>;
  /** One extent's page with the locations of its chunks, or null when nothing of it is stored. */
  loadPage(volumeKey: number, extentIndex: number): Promise<StoredPage | null>;
  /** Indexes of the extents of a volume that have a page, in order. */
  listExtents(volumeKey: number): Promise<number[]>;
  /** The chunks a segment still holds, in order of their offset. */
  listSegment(segmentNumber: number): Promise<LocatedChunk[]>;
  /** NO_SPACE: certainly not committed. Any other error: it may be there after a restart. */
  commit(change: MapChange): Promise<CommitEffect>;
  close(): Promise<void>;
}

export interface MapSummary {
  /** Higher than every chunk id ever committed. */
  nextChunkId: number;
  /** Live bytes are those of payloads, each with its padding. */
  segments: { segmentNumber: number; liveBytes: number }[];
  volumes: { volumeKey: number; chunkCount: number }[];
}

/** Where a chunk lies. Sizes and offsets in bytes. */
export interface ChunkLocation {
  segmentNumber: number;
  /** Of the payload in the segment. */
  offsetBytes: number;
  /** Of the payload as stored (after compression). */
  storedBytes: number;
  /** Of the payload before compression. */
  rawBytes: number;
  codec: number;
  tier: number;
  /** crc32c of the payload as stored. */
  checksum: number;
}

export interface LocatedChunk extends ChunkLocation {
  chunkId: number;
}

export interface StoredPage {
  /** One entry for each chunk of the extent; 0 where nothing is stored. */
  chunkIds: ArrayLike<number>;
  /** The locations of the ids that are not 0. */
  chunks: LocatedChunk[];
}

/** One transaction. References to a chunk are counted by the store: a chunk nobody refers to is removed. */
export interface MapChange {
  /** Pages as they are from now on; all zeros, or no entry at all, removes the page. */
  pages: { volumeKey: number; extentIndex: number; chunkIds: ArrayLike<number> }[];
  /** Chunks that `pages` refers to for the first time. */
  addedChunks: LocatedChunk[];
  /** Chunks that were copied elsewhere; skipped when the chunk is gone meanwhile. */
  movedChunks: LocatedChunk[];
  /** Volumes whose pages all go. */
  deletedVolumes: number[];
}

/** The counts a commit changed, as they are after it. */
export interface CommitEffect {
  /** 0: nothing refers to the segment any more. */
  segments: { segmentNumber: number; liveBytes: number }[];
  volumes: { volumeKey: number; chunkCount: number }[];
}
