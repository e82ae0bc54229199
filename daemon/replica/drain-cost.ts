/** What draining the journal will take in segments: a chunk is stored whole for one block of it. */
import { blockSizeBytes } from '../base/limits.ts';
import type { BlockIndex } from '../journal/block-index.ts';

/** Of each chunk beside its payload, at most: its header, and its row with the map's log. */
const chunkOverheadBytes = 256;

export function chunksCostBytes(chunks: number, chunkSizeBytes: number): number {
  return chunks * (chunkSizeBytes + chunkOverheadBytes);
}

/**
 * In bytes; more than it really takes as long as even that is less than `enoughBytes`: the exact figure costs a walk
 * through the index.
 * @param chunkSizes of each volume by its key, in bytes.
 */
export function drainCostBytes(
  index: BlockIndex,
  chunkSizes: ReadonlyMap<number, number>,
  enoughBytes: number,
): number {
  const sum = (chunksOf: (volumeKey: number, chunkSizeBytes: number) => number): number => {
    let bytes = 0;
    for (const [volumeKey, chunkSizeBytes] of chunkSizes) {
      bytes += chunksCostBytes(chunksOf(volumeKey, chunkSizeBytes), chunkSizeBytes);
    }
    return bytes;
  };
  const atMostBytes = sum((volumeKey) => index.entries(volumeKey));
  if (atMostBytes < enoughBytes) return atMostBytes;
  return sum((volumeKey, chunkSizeBytes) => index.touchedChunks(volumeKey, chunkSizeBytes / blockSizeBytes));
}
