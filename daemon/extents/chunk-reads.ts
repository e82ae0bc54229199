/**
 * Reads of volumes: chunks that lie one behind the other in a segment are read at once, and nothing is handed on that
 * does not match its checksum. Whole chunks land where they are wanted, and are checked there as one; parts of a chunk
 * are copied out of it.
 *
 * Every 4 KiB read passes here, so there are callbacks and pooled buffers instead of promises.
 */
import { crc32c } from '@node-rs/crc32';
import { WeftError } from '../base/errors.ts';
import { extentSizeBytes } from '../base/limits.ts';
import { joinedChecksum } from '../format/joined-checksum.ts';
import { codecRaw } from '../format/segment.ts';
import { ChunkCache } from './chunk-cache.ts';
import type { ExtentMap, VolumeChunks } from './extent-map.ts';
import type { CachedPage } from './page-cache.ts';
import { maxRunBytes, readBuffers } from './read-buffers.ts';
import type { Segment, Segments } from './segments.ts';

export type ReadDone = (error: WeftError | null) => void;

/** How often a page is loaded anew because a segment it names is gone; compaction explains one or two. */
const maxReloads = 8;

/** One read of a volume; it may consist of several runs, all in flight together. */
interface Read {
  volume: VolumeChunks;
  offsetBytes: number;
  target: Buffer;
  /** Runs and page loads in flight, and one for the time they are being started. */
  pending: number;
  error: WeftError | null;
  done: ReadDone;
}

export class ChunkReads {
  private readonly map: ExtentMap;
  private readonly segments: Segments;
  private readonly cache: ChunkCache;
  private inFlight = 0;
  private whenIdle: (() => void)[] = [];

  constructor(map: ExtentMap, segments: Segments, cacheBytes: number) {
    this.map = map;
    this.segments = segments;
    this.cache = new ChunkCache(cacheBytes, (buffer) => readBuffers.give(buffer));
  }

  read(volume: VolumeChunks, offsetBytes: number, target: Buffer, done: ReadDone): void {
    const read: Read = { volume, offsetBytes, target, pending: 1, error: null, done };
    this.inFlight++;
    const endBytes = offsetBytes + target.length;
    for (let at = offsetBytes; at < endBytes; ) {
      const pieceEnd = Math.min(endBytes, at - (at % extentSizeBytes) + extentSizeBytes);
      this.readPiece(read, at, pieceEnd, 0);
      at = pieceEnd;
    }
    if (read.pending === 1) queueMicrotask(() => this.settle(read, null));
    else this.settle(read, null);
  }

  /** Resolves when no read is in flight. */
  async idle(): Promise<void> {
    if (this.inFlight > 0) await new Promise<void>((resolve) => this.whenIdle.push(resolve));
  }

  /** From `start` to `end` of the volume, in bytes; within one extent. */
  private readPiece(read: Read, start: number, end: number, reloads: number): void {
    const extentIndex = Math.floor(start / extentSizeBytes);
    const page = this.map.cached(read.volume, extentIndex);
    if (page) return this.readRuns(read, page, start, end, reloads);
    read.pending++;
    this.map.load(read.volume, extentIndex, (error, loaded) => {
      if (loaded) this.readRuns(read, loaded, start, end, reloads);
      this.settle(read, error);
    });
  }

  private readRuns(read: Read, page: CachedPage, start: number, end: number, reloads: number): void {
    const { chunkSizeBytes } = read.volume;
    for (let at = start; at < end; ) {
      const slot = Math.floor((at % extentSizeBytes) / chunkSizeBytes);
      const lastSlot = Math.floor(((end - 1) % extentSizeBytes) / chunkSizeBytes);
      const chunkStart = at - (at % chunkSizeBytes);
      if (page.chunkIds[slot] === 0) {
        const holeEnd = Math.min(end, chunkStart + chunkSizeBytes);
        read.target.fill(0, at - read.offsetBytes, holeEnd - read.offsetBytes);
        at = holeEnd;
        continue;
      }
      const chunkEnd = Math.min(end, chunkStart + chunkSizeBytes);
      if (chunkEnd - at < chunkSizeBytes) {
        const cached = this.cache.get(page.chunkIds[slot]!);
        if (cached !== undefined) {
          cached.copy(read.target, at - read.offsetBytes, at - chunkStart, chunkEnd - chunkStart);
          at = chunkEnd;
          continue;
        }
      }
      const segment = this.segments.get(page.segmentNumbers[slot]!);
      if (!segment) return this.reload(read, page, slot, at, end, reloads);
      const fault = placeFault(read.volume, page, slot, at);
      if (fault) return this.fail(read, fault);
      const count = runLength(page, slot, lastSlot);
      const runEnd = Math.min(end, chunkStart + count * chunkSizeBytes);
      this.readRun(read, segment, runOf(page, slot, count), chunkStart, at, runEnd);
      at = runEnd;
    }
  }

  /** The page names a segment that has been compacted away meanwhile. */
  private reload(
    read: Read,
    page: CachedPage,
    slot: number,
    start: number,
    end: number,
    reloads: number,
  ): void {
    if (reloads === maxReloads) {
      return this.fail(read, corrupt(read.volume, start, page.segmentNumbers[slot]!, 'its segment is gone'));
    }
    this.map.forget(read.volume, Math.floor(start / extentSizeBytes));
    this.readPiece(read, start, end, reloads + 1);
  }

  /** Never calls back on the stack of `read`. */
  private fail(read: Read, error: WeftError): void {
    read.pending++;
    queueMicrotask(() => this.settle(read, error));
  }

  private readRun(
    read: Read,
    segment: Segment,
    run: Run,
    chunkStart: number,
    from: number,
    to: number,
  ): void {
    read.pending++;
    this.segments.use(segment, (openError) => {
      if (openError) {
        const damaged = openError.code === 'CORRUPT' || openError.code === 'NOT_FOUND';
        const { segmentNumber } = segment;
        const failure = damaged ? corrupt(read.volume, from, segmentNumber, openError.message) : openError;
        return this.settle(read, failure);
      }
      if (from === chunkStart && to === chunkStart + run.count * read.volume.chunkSizeBytes) {
        this.readWhole(read, segment, run, chunkStart, to);
        return;
      }
      const buffer = readBuffers.take(run.lengthBytes);
      const window = buffer.subarray(0, run.lengthBytes);
      segment.file!.read(window, run.offsetBytes, (error, bytesRead) => {
        const failure = error
          ? (error as WeftError)
          : this.deliver(read, segment, run, window.subarray(0, bytesRead), chunkStart, from, to);
        if (failure === null && run.count === 1) this.cache.put(run.firstChunkId, buffer);
        else readBuffers.give(buffer);
        this.segments.release(segment);
        this.settle(read, failure);
      });
    });
  }

  /** All of a run lands in the target. */
  private readWhole(read: Read, segment: Segment, run: Run, from: number, to: number): void {
    const target = read.target.subarray(from - read.offsetBytes, to - read.offsetBytes);
    segment.file!.read(target, run.offsetBytes, (error, bytesRead) => {
      const failure = error
        ? (error as WeftError)
        : runFault(read.volume, segment, run, target.subarray(0, bytesRead), from);
      this.segments.release(segment);
      this.settle(read, failure);
    });
  }

  /** Checks the chunks of a run and copies the part that was asked for. */
  private deliver(
    read: Read,
    segment: Segment,
    run: Run,
    source: Buffer,
    chunkStart: number,
    from: number,
    to: number,
  ): WeftError | null {
    const failure = runFault(read.volume, segment, run, source, chunkStart);
    if (failure === null)
      source.copy(read.target, from - read.offsetBytes, from - chunkStart, to - chunkStart);
    return failure;
  }

  private settle(read: Read, error: WeftError | null): void {
    if (error) read.error ??= error;
    if (--read.pending > 0) return;
    this.inFlight--;
    read.done(read.error);
    if (this.inFlight > 0 || this.whenIdle.length === 0) return;
    const waiting = this.whenIdle;
    this.whenIdle = [];
    for (const resolve of waiting) resolve();
  }
}

/** Chunks side by side in a segment. Copied out of the page, which may change while they are being read. */
interface Run {
  offsetBytes: number;
  lengthBytes: number;
  count: number;
  firstChunkId: number;
  /** Of each chunk. A plain array: for one chunk it costs less than a typed one. */
  checksums: number[];
}

/**
 * What is wrong with a run as it was read, or null. One checksum over all of it: a call for every chunk costs a third
 * more. @param from where the run begins in the volume, in bytes.
 */
function runFault(
  volume: VolumeChunks,
  segment: Segment,
  run: Run,
  bytes: Buffer,
  from: number,
): WeftError | null {
  const { chunkSizeBytes } = volume;
  const { checksums, count, lengthBytes } = run;
  const { segmentNumber } = segment;
  const isWhole = bytes.length === lengthBytes;
  if (isWhole && crc32c(bytes) === joinedChecksum(checksums, 0, count, chunkSizeBytes)) return null;
  for (let index = 0; index < count; index++) {
    const payload = bytes.subarray(index * chunkSizeBytes, (index + 1) * chunkSizeBytes);
    const at = from + index * chunkSizeBytes;
    if (payload.length < chunkSizeBytes) return corrupt(volume, at, segmentNumber, 'it is cut off');
    if (crc32c(payload) === checksums[index]) continue;
    return corrupt(volume, at, segmentNumber, 'its data fails the checksum');
  }
  // Good one by one and not together: memory that does not keep what is written to it.
  return corrupt(volume, from, segmentNumber, 'its data changes while it is looked at');
}

/** Chunks from `slot` on that follow one another in the segment. All are raw, and so of one length. */
function runLength(page: CachedPage, slot: number, lastSlot: number): number {
  const { chunkIds, segmentNumbers, offsetsBytes, storedBytes, codecs } = page;
  const payloadBytes = storedBytes[slot]!;
  const maxCount = Math.floor(maxRunBytes / payloadBytes);
  let count = 1;
  while (slot + count <= lastSlot && count < maxCount) {
    const next = slot + count;
    if (chunkIds[next] === 0 || segmentNumbers[next] !== segmentNumbers[slot]) break;
    if (offsetsBytes[next] !== offsetsBytes[slot]! + count * payloadBytes) break;
    if (codecs[next] !== codecRaw || storedBytes[next] !== payloadBytes) break;
    count++;
  }
  return count;
}

function runOf(page: CachedPage, slot: number, count: number): Run {
  const checksums: number[] = [];
  for (let index = slot; index < slot + count; index++) checksums.push(page.checksums[index]!);
  const lengthBytes = count * page.storedBytes[slot]!;
  const firstChunkId = page.chunkIds[slot]!;
  return { offsetBytes: page.offsetsBytes[slot]!, lengthBytes, count, firstChunkId, checksums };
}

/** What this version cannot read, or what no version has written. */
function placeFault(
  volume: VolumeChunks,
  page: CachedPage,
  slot: number,
  offsetBytes: number,
): WeftError | null {
  if (page.codecs[slot] !== codecRaw) {
    const where = `volume ${volume.volumeKey}, offset ${offsetBytes}`;
    const message = `${where}: codec ${page.codecs[slot]} is not known here`;
    return new WeftError('FORMAT_TOO_NEW', `${message}. Start the version of Weft that wrote it.`);
  }
  if (page.storedBytes[slot] === volume.chunkSizeBytes) return null;
  const lengths = `the map says ${page.storedBytes[slot]} bytes instead of ${volume.chunkSizeBytes}`;
  return corrupt(volume, offsetBytes, page.segmentNumbers[slot]!, lengths);
}

function corrupt(volume: VolumeChunks, offsetBytes: number, segmentNumber: number, fault: string): WeftError {
  const { volumeKey } = volume;
  const where = `volume ${volumeKey}, offset ${offsetBytes}, segment ${segmentNumber}`;
  return new WeftError('CORRUPT', `a stored chunk is damaged (${where}): ${fault}`, {
    details: { volumeKey, offsetBytes, segmentNumber },
  });
}
