/**
 * Gives the room of dead chunks back: the live ones of a segment are copied elsewhere, then its file goes.
 */
import { WeftError } from '../base/errors.ts';
import { extentSizeBytes, MiB } from '../base/limits.ts';
import {
  chunkFault,
  chunkHeaderBytes,
  chunkRecordBytes,
  decodeChunkHeader,
  segmentHeaderBytes,
} from '../format/segment-chunk.ts';
import type { ExtentMap } from './extent-map.ts';
import type { LocatedChunk } from './map-store.ts';
import type { NewChunk, SegmentWriter } from './segment-writer.ts';
import type { Segment, SegmentLog, Segments } from './segments.ts';
import type { WriteTurns } from './write-turns.ts';

/** A segment is worth compacting below this part of live bytes: copying costs at most as much as it frees. */
const maxLiveFraction = 0.5;
/** Copied in one turn, in bytes: what a waiting drain waits for. */
const stepBytes = 4 * MiB;

export interface CompactionEnv {
  map: ExtentMap;
  segments: Segments;
  /** Not the drain's: chunks that have stayed alive lie together, so segments empty as a whole. */
  writer: SegmentWriter;
  turns: WriteTurns;
  log: SegmentLog | undefined;
  /** Throws when the store closes. */
  checkOpen: () => void;
}

/** Compacts the sealed segment with the least live data; false when none is worth it. */
export async function compactOnce(env: CompactionEnv): Promise<boolean> {
  const segment = emptiest(env.segments);
  if (!segment) return false;
  const chunks = await env.map.listSegment(segment.segmentNumber);
  for (let first = 0; first < chunks.length; ) {
    let end = first;
    for (let bytes = 0; end < chunks.length && bytes < stepBytes; end++) {
      bytes += chunkRecordBytes(chunks[end]!.storedBytes);
    }
    env.checkOpen();
    // The drain may have replaced what was left of it.
    if (segment.retired) break;
    const copies = await readCopies(env, segment, chunks.slice(first, end));
    // A chunk nobody refers to any more by then is skipped by the map.
    await env.turns.run('background', () => moveCopies(env, copies));
    first = end;
  }
  return true;
}

function emptiest(segments: Segments): Segment | null {
  let best: Segment | null = null;
  let bestFraction = maxLiveFraction;
  for (const segment of segments.all()) {
    if (!segment.sealed || segment.uncertain || segment.rotten || segment.liveBytes === 0) continue;
    const fraction = segment.liveBytes / (segment.sizeBytes - segmentHeaderBytes);
    if (fraction < bestFraction) {
      best = segment;
      bestFraction = fraction;
    }
  }
  return best;
}

/**
 * The chunks with their payloads, checked. One that is damaged stays where it is, and the segment with it.
 */
async function readCopies(env: CompactionEnv, segment: Segment, chunks: LocatedChunk[]): Promise<NewChunk[]> {
  const copies: NewChunk[] = [];
  await new Promise<void>((resolve, reject) => {
    env.segments.use(segment, (error) => (error ? reject(error) : resolve()));
  });
  try {
    for (const chunk of chunks) {
      const record = await readRecord(segment, chunk);
      const fault =
        record instanceof Error
          ? record.message
          : chunkFault(record, 0, chunk.chunkId, chunk.storedBytes, chunk.checksum);
      if (record instanceof Error || fault !== null) {
        segment.rotten = true;
        const facts = { segmentNumber: segment.segmentNumber, chunkId: chunk.chunkId, fault };
        env.log?.warn(facts, 'a damaged chunk keeps its segment from being compacted');
        continue;
      }
      const { volumeKey, chunkIndex } = decodeChunkHeader(record, 0);
      const payload = record.subarray(chunkHeaderBytes, chunkHeaderBytes + chunk.storedBytes);
      const { chunkId, codec, tier, rawBytes, checksum } = chunk;
      copies.push({ chunkId, volumeKey, chunkIndex, codec, tier, rawBytes, payload, checksum });
    }
  } finally {
    env.segments.release(segment);
  }
  return copies;
}

/** A record that cannot be read is like a damaged one: it must not keep other segments from being compacted. */
function readRecord(segment: Segment, chunk: LocatedChunk): Promise<Buffer | Error> {
  const record = Buffer.allocUnsafe(chunkRecordBytes(chunk.storedBytes));
  return new Promise((resolve) => {
    segment.file!.read(record, chunk.offsetBytes, (error, bytesRead) => {
      resolve(error ?? record.subarray(0, bytesRead));
    });
  });
}

async function moveCopies(env: CompactionEnv, copies: NewChunk[]): Promise<void> {
  if (copies.length === 0) return;
  env.checkOpen();
  const appended = await env.writer.append(copies);
  const change = { pages: [], addedChunks: [], movedChunks: appended.chunks, deletedVolumes: [] };
  try {
    await env.map.commit(change, appended.touched);
  } catch (error) {
    if (error instanceof WeftError && error.code === 'NO_SPACE') await env.writer.undo(appended);
    else env.writer.doubt(appended);
    throw error;
  }
  env.writer.keep(appended);
  for (const [index, copy] of copies.entries()) {
    const chunksPerExtent = extentSizeBytes / copy.rawBytes;
    const extentIndex = Math.floor(copy.chunkIndex / chunksPerExtent);
    const slot = copy.chunkIndex % chunksPerExtent;
    env.map.moved(copy.volumeKey, extentIndex, slot, appended.chunks[index]!);
  }
}
