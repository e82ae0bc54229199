/**
 * Chunks that were read in part, kept for those who read the rest, or the same again: a read that is found here costs a
 * copy instead of a turn of another thread, a read of the whole chunk and its checksum.
 *
 * What a chunk id stands for never changes, so nothing here is ever out of date. Whole chunks are not kept: they go
 * straight to whoever reads them, and long reads would push out what is read again and again.
 *
 * Drops what was not used lately, by second chance, as the page cache does.
 */

interface CachedChunk {
  bytes: Buffer;
  /** Set by reads, cleared when something is to be dropped. */
  recentlyUsed: boolean;
}

export class ChunkCache {
  private readonly limitBytes: number;
  private readonly giveBack: (buffer: Buffer) => void;
  private readonly chunks = new Map<number, CachedChunk>();
  private usedBytes = 0;

  /** @param giveBack takes the buffers that are dropped. */
  constructor(limitBytes: number, giveBack: (buffer: Buffer) => void) {
    this.limitBytes = limitBytes;
    this.giveBack = giveBack;
  }

  /** The chunk from the buffer's first byte on, to be copied out of in this tick. */
  get(chunkId: number): Buffer | undefined {
    const chunk = this.chunks.get(chunkId);
    if (chunk === undefined) return undefined;
    chunk.recentlyUsed = true;
    return chunk.bytes;
  }

  /** Takes the buffer over. Its content has been verified. */
  put(chunkId: number, bytes: Buffer): void {
    if (bytes.length > this.limitBytes || this.chunks.has(chunkId)) {
      this.giveBack(bytes);
      return;
    }
    this.chunks.set(chunkId, { bytes, recentlyUsed: false });
    this.usedBytes += bytes.length;
    for (const [oldest, chunk] of this.chunks) {
      if (this.usedBytes <= this.limitBytes) return;
      this.chunks.delete(oldest);
      if (chunk.recentlyUsed) {
        chunk.recentlyUsed = false;
        this.chunks.set(oldest, chunk);
        continue;
      }
      this.usedBytes -= chunk.bytes.length;
      this.giveBack(chunk.bytes);
    }
  }
}
