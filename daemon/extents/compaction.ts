/**
 * Gives the room of dead chunks back: the live ones of a segment are copied elsewhere, then its file goes.
 */
import { crc32c } from '@node-rs/crc32';
import { WeftError } from '../base/errors.ts';
import { MiB } from '../base/limits.ts';
import { payloadRoomBytes, segmentHeaderBytes } from '../format/segment.ts';
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
  /** Resolves when the next step, of so many bytes, may be taken. */
  giveWay: (bytes: number) => Promise<void>;
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
    let bytes = 0;
    for (; end < chunks.length && bytes < stepBytes; end++) {
      bytes += payloadRoomBytes(chunks[end]!.storedBytes);
    }
    await env.giveWay(bytes);
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
      const payload = await readPayload(segment, chunk);
      const fault = payload instanceof Error ? payload.message : payloadFault(payload, chunk);
      if (payload instanceof Error || fault !== null) {
        segment.rotten = true;
        const facts = { segmentNumber: segment.segmentNumber, chunkId: chunk.chunkId, fault };
        env.log?.warn(facts, 'a damaged chunk keeps its segment from being compacted');
        continue;
      }
      const { chunkId, codec, tier, rawBytes, checksum } = chunk;
      copies.push({ chunkId, codec, tier, rawBytes, payload, checksum });
    }
  } finally {
    env.segments.release(segment);
  }
  return copies;
}

/** One that cannot be read is like a damaged one: it must not keep other segments from being compacted. */
function readPayload(segment: Segment, chunk: LocatedChunk): Promise<Buffer | Error> {
  const payload = Buffer.allocUnsafe(chunk.storedBytes);
  return new Promise((resolve) => {
    segment.file!.read(payload, chunk.offsetBytes, (error, bytesRead) => {
      resolve(error ?? payload.subarray(0, bytesRead));
    });
  });
}

function payloadFault(payload: Buffer, chunk: LocatedChunk): string | null {
  if (payload.length < chunk.storedBytes) return 'it is cut off';
  return crc32c(payload) === chunk.checksum ? null : 'its data fails the checksum';
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
  // Pages in memory that still name the old segment are loaded anew once it is gone.
  env.writer.keep(appended);
}
