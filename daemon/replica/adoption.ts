/**
 * Large data is written once: a journal file that is nearly all whole chunks becomes a segment as it is, and the extent
 * map says where in it they lie. Nothing is read and nothing is copied; what else is in the file, the drain stores as
 * always.
 *
 *   1. the journal is flushed: all of the file is durable
 *   2. the file gets a second name among the segments, durably, and is not used again for the journal
 *   3. the map's commit is durable: the chunks lie in that segment
 *   4. index entries are dropped; the file's first name goes when the journal releases it
 *
 * A crash before 3 leaves a second name that nothing refers to: it goes at the next start. A crash between 3 and 4 leaves
 * both names: the file is replayed over chunks that say the same, drained once more, and removed.
 */
import { crc32c } from '@node-rs/crc32';
import { blockSizeBytes, extentSizeBytes, MiB, maxChunkSizeBytes } from '../base/limits.ts';
import type { ExtentStore, PlacedChunk } from '../extents/extent-store.ts';
import { joinedChecksum } from '../format/joined-checksum.ts';
import type { BlockRun, Journal, SealedFile } from '../journal/journal.ts';
import type { LivingRun } from './living-runs.ts';

/** A file is adopted when this part of its size is chunks: the rest stays as dead room until it is compacted. */
export const defaultAdoptedFraction = 0.75;
/** Chunks taken in one commit, in bytes. */
const commitBytes = 16 * MiB;

const zeros = Buffer.alloc(maxChunkSizeBytes);
const extentBlocks = extentSizeBytes / blockSizeBytes;

export interface AdoptionEnv {
  journal: Journal;
  extents: ExtentStore;
  /** Null for a volume that was deleted meanwhile. */
  chunkSizeOf: (volumeKey: number) => number | null;
  /** See `defaultAdoptedFraction`. */
  adoptedFraction: number;
}

/** Chunks of one extent that lie whole in the file, and the index entries that say so. */
interface ExtentShare {
  volumeKey: number;
  chunks: PlacedChunk[];
  runs: Pick<BlockRun, 'kind' | 'block' | 'count' | 'address'>[];
}

/** What can be adopted with the file; null when it is too little to keep the file for. */
export function findShares(
  env: AdoptionEnv,
  file: SealedFile,
  living: readonly LivingRun[],
): ExtentShare[] | null {
  if (!env.journal.canShare(file.fileNumber)) return null;
  const shares = new Map<string, ExtentShare>();
  let bytes = 0;
  for (const run of living) {
    const chunkSizeBytes = run.kind === 'journal' ? env.chunkSizeOf(run.volumeKey) : null;
    if (chunkSizeBytes === null || run.count * blockSizeBytes < chunkSizeBytes) continue;
    bytes += addChunks(shares, env.journal, run, chunkSizeBytes);
  }
  return bytes > 0 && bytes >= env.adoptedFraction * file.sizeBytes ? [...shares.values()] : null;
}

/** Those that lie whole in the run. Returns their length in bytes. */
function addChunks(
  shares: Map<string, ExtentShare>,
  journal: Journal,
  run: LivingRun,
  chunkSizeBytes: number,
): number {
  const { volumeKey } = run;
  const chunkBlocks = chunkSizeBytes / blockSizeBytes;
  const zeroChecksum = crc32c(zeros.subarray(0, chunkSizeBytes));
  const firstChunk = Math.ceil(run.block / chunkBlocks);
  const endChunk = Math.floor((run.block + run.count) / chunkBlocks);
  let bytes = 0;
  for (let chunkIndex = firstChunk; chunkIndex < endChunk; chunkIndex += 1) {
    const block = chunkIndex * chunkBlocks;
    const from = block - run.block;
    const checksum = joinedChecksum(run.checksums, from, chunkBlocks, blockSizeBytes);
    // Zeros, as it seems: the drain looks at them, and makes them a hole.
    if (checksum === zeroChecksum) continue;
    const key = `${volumeKey}/${Math.floor(block / extentBlocks)}`;
    const share = shares.get(key) ?? { volumeKey, chunks: [], runs: [] };
    shares.set(key, share);
    const address = run.address + from * blockSizeBytes;
    const offsetBytes = journal.offsetOf(address);
    share.chunks.push({ volumeKey, chunkSizeBytes, chunkIndex, offsetBytes, checksum });
    share.runs.push({ kind: 'journal', block, count: chunkBlocks, address });
    bytes += chunkSizeBytes;
  }
  return bytes;
}

/** Within a turn of the drain. Errors as WeftError: then some of the chunks may be adopted. */
export async function adoptFile(
  env: AdoptionEnv,
  file: SealedFile,
  shares: readonly ExtentShare[],
): Promise<void> {
  // A part of a write must not be durable before all of it is: power loss would leave that part alone.
  await new Promise<void>((resolve, reject) => {
    env.journal.flush((error) => (error === null ? resolve() : reject(error)));
  });
  const path = env.journal.shareFile(file.fileNumber);
  const segment = await env.extents.adopt(path, file.sizeBytes);
  try {
    for (let first = 0; first < shares.length; ) {
      const part: ExtentShare[] = [];
      for (let bytes = 0; first < shares.length && bytes < commitBytes; first += 1) {
        const share = shares[first]!;
        part.push(share);
        bytes += share.chunks.length * share.chunks[0]!.chunkSizeBytes;
      }
      const kept = part.filter(({ volumeKey }) => env.chunkSizeOf(volumeKey) !== null);
      await env.extents.place(
        segment,
        kept.flatMap(({ chunks }) => chunks),
      );
      for (const { volumeKey, runs } of kept) {
        for (const run of runs) env.journal.index.remove(volumeKey, run);
      }
    }
  } finally {
    env.extents.adopted(segment);
  }
}
