/**
 * Copies a range without moving its data: the chunks that hold the source are given to the destination as well.
 *
 * In one turn of the drain (`drain.ts`), so that nothing older of the destination can be stored on top of the copy:
 *
 *   1. what the journal has of the source is stored: all of the source is chunks now
 *   2. one commit: the destination's pages refer to the source's chunks, and not to their own any more
 *   3. a record in the journal: what earlier records say of the destination is void, now in the index and at a replay
 *
 * A crash before 2 leaves the destination as it was. Between 2 and 3, records of the destination that are still in the
 * journal come back at the replay and lie over the copied chunks: each block is as before or copied, and the copy was
 * not answered. After 3 the copy is there, as any other acknowledged change. The record may not come before the commit:
 * it would void writes that were promised, for chunks that are not there. It is released after the records it voids,
 * since files are released in order.
 */
import { assert } from '../base/assert.ts';
import { extentSizeBytes } from '../base/limits.ts';
import type { ExtentStore } from '../extents/extent-store.ts';
import type { Journal } from '../journal/journal.ts';
import type { Drain } from './drain.ts';
import type { Replica, VolumeIdentity, WriteOrder } from './replica.ts';

export interface SharingEnv {
  journal: Journal;
  extents: ExtentStore;
  drain: Drain;
}

export interface RangeCopy {
  volume: VolumeIdentity;
  offsetBytes: number;
  lengthBytes: number;
  source: VolumeIdentity;
  sourceOffsetBytes: number;
  order: WriteOrder;
}

/** Within a turn of the drain. Errors as WeftError; then every chunk is as before or copied. */
export async function copyRange(env: SharingEnv, copy: RangeCopy): Promise<void> {
  const { volume, offsetBytes, lengthBytes, source, sourceOffsetBytes, order } = copy;
  const { volumeKey, chunkSizeBytes } = volume;
  assert(chunkSizeBytes === source.chunkSizeBytes, 'chunks of one size are shared');
  for (const bytes of [offsetBytes, lengthBytes, sourceOffsetBytes]) {
    assert(bytes % chunkSizeBytes === 0, 'whole chunks are shared');
  }
  const apart = Math.abs(offsetBytes - sourceOffsetBytes) >= lengthBytes;
  assert(volumeKey !== source.volumeKey || apart, 'a range is not copied over itself');
  const [sourceChunk, firstChunk] = [sourceOffsetBytes / chunkSizeBytes, offsetBytes / chunkSizeBytes];
  const count = lengthBytes / chunkSizeBytes;
  await env.drain.storeChunks(source.volumeKey, chunkSizeBytes, sourceChunk, count);
  await env.extents.share(source, sourceChunk, volume, firstChunk, count);
  await new Promise<void>((resolve, reject) => {
    env.journal.appendStored({ volumeKey, offsetBytes, lengthBytes }, order, (error) =>
      error === null ? resolve() : reject(error),
    );
  });
}

/**
 * Reads the range once, its holes excepted. Two volumes that share a damaged chunk would both answer CORRUPT; but a copy
 * that is acknowledged should be one that can be read, so that its source may be deleted.
 */
export async function verifyRange(
  replica: Replica,
  source: VolumeIdentity,
  offsetBytes: number,
  lengthBytes: number,
): Promise<void> {
  const endBytes = offsetBytes + lengthBytes;
  const room = Buffer.allocUnsafe(Math.min(lengthBytes, extentSizeBytes));
  for (let at = offsetBytes; at < endBytes; ) {
    const stepBytes = Math.min(endBytes, at - (at % extentSizeBytes) + extentSizeBytes) - at;
    const isHole = await isUnmapped(replica, source, at, stepBytes);
    if (!isHole) await read(replica, source, at, room.subarray(0, stepBytes));
    at += stepBytes;
  }
}

function isUnmapped(
  replica: Replica,
  source: VolumeIdentity,
  offsetBytes: number,
  lengthBytes: number,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    replica.allocation(source, offsetBytes, lengthBytes, (error, mapped, sameBytes) =>
      error === null ? resolve(!mapped && sameBytes >= lengthBytes) : reject(error),
    );
  });
}

function read(replica: Replica, source: VolumeIdentity, offsetBytes: number, target: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    replica.read(source, offsetBytes, target, (error) => (error === null ? resolve() : reject(error)));
  });
}
