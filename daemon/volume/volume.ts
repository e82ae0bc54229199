/**
 * An open volume: sectors in, whole blocks out, every operation numbered within its slice and sent to the replica.
 *
 * Ordering. Replicas keep writes in the order they are called in, so aligned writes go straight through. A write that
 * covers part of a block must read the rest of it first, and nothing may change the block in between: it waits until
 * the writes before it are done, and the writes after it wait until it is. Initiators that respect the reported
 * physical block (4 KiB) never take this path.
 */
import { assert } from '../base/assert.ts';
import { WeftError } from '../base/errors.ts';
import { blockSizeBytes, sectorSizeBytes, sliceSizeBytes } from '../base/limits.ts';
import type { Replica, VolumeIdentity, WriteOrder } from '../replica/replica.ts';
import type { BlockDevice, BlockDone, SharingDevice } from './block-device.ts';

export interface VolumeOptions {
  identity: VolumeIdentity;
  sizeBytes: number;
  durability: 'flush' | 'sync';
  /** The owner's epoch: every order of this volume carries it. */
  epoch: number;
  replica: Replica;
}

export class Volume implements SharingDevice {
  readonly durability: 'flush' | 'sync';
  readonly allocationUnitBytes: number;
  #sizeBytes: number;
  readonly #identity: VolumeIdentity;
  readonly #epoch: number;
  readonly #replica: Replica;
  /** The last sequence of each slice that was changed. */
  readonly #sequences = new Map<number, number>();
  /** Changes handed to the replica and not answered yet. */
  #changesInFlight = 0;
  /** Changes that wait behind a read-modify-write, in the order they came. */
  readonly #waiting: (() => void)[] = [];
  /** A read-modify-write waits for the changes in flight, or runs. */
  #exclusive = false;
  #startExclusive: (() => void) | null = null;
  #closed = false;
  #whenIdle: (() => void) | null = null;

  constructor(options: VolumeOptions) {
    this.#identity = options.identity;
    this.#sizeBytes = options.sizeBytes;
    this.durability = options.durability;
    this.allocationUnitBytes = options.identity.chunkSizeBytes;
    this.#epoch = options.epoch;
    this.#replica = options.replica;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  grow(sizeBytes: number): void {
    assert(sizeBytes >= this.#sizeBytes, 'a volume never shrinks');
    this.#sizeBytes = sizeBytes;
  }

  /** Refuses new operations with SHUTTING_DOWN and resolves when those in flight are done. */
  close(): Promise<void> {
    this.#closed = true;
    return new Promise((resolve) => {
      this.#whenIdle = resolve;
      this.#settle();
    });
  }

  read(offsetBytes: number, target: Buffer, done: BlockDone): void {
    this.#check(offsetBytes, target.length);
    if (this.#closed) return refuse(done);
    if (isAligned(offsetBytes, target.length)) {
      this.#replica.read(this.#identity, offsetBytes, target, done);
      return;
    }
    const start = alignDown(offsetBytes);
    const blocks = Buffer.allocUnsafe(alignUp(offsetBytes + target.length) - start);
    this.#replica.read(this.#identity, start, blocks, (error) => {
      if (error === null) blocks.copy(target, 0, offsetBytes - start, offsetBytes - start + target.length);
      done(error);
    });
  }

  write(offsetBytes: number, data: Buffer, fua: boolean, done: BlockDone): void {
    this.#check(offsetBytes, data.length);
    if (this.#closed) return refuse(done);
    const durable = fua || this.durability === 'sync';
    if (isAligned(offsetBytes, data.length)) {
      this.#change(() => this.#write(offsetBytes, data, durable, done));
    } else {
      this.#changeAlone((end) => this.#writePartial(offsetBytes, data, durable, end), done);
    }
  }

  unmap(offsetBytes: number, lengthBytes: number, fua: boolean, done: BlockDone): void {
    this.#check(offsetBytes, lengthBytes);
    if (this.#closed) return refuse(done);
    const durable = fua || this.durability === 'sync';
    if (isAligned(offsetBytes, lengthBytes)) {
      this.#change(() => this.#zero(offsetBytes, lengthBytes, durable, done));
    } else {
      this.#changeAlone((end) => this.#zeroPartial(offsetBytes, lengthBytes, durable, end), done);
    }
  }

  canShareFrom(source: BlockDevice): source is Volume {
    if (!(source instanceof Volume) || source.#replica !== this.#replica) return false;
    return source.allocationUnitBytes === this.allocationUnitBytes;
  }

  prepareShare(offsetBytes: number, lengthBytes: number, done: BlockDone): void {
    this.#check(offsetBytes, lengthBytes);
    if (this.#closed) return refuse(done);
    this.#replica.prepareCopy(this.#identity, offsetBytes, lengthBytes, done);
  }

  shareFrom(
    source: SharingDevice,
    sourceOffsetBytes: number,
    offsetBytes: number,
    lengthBytes: number,
    fua: boolean,
    done: BlockDone,
  ): void {
    assert(this.canShareFrom(source), 'a source of the same replica');
    this.#check(offsetBytes, lengthBytes);
    source.#check(sourceOffsetBytes, lengthBytes);
    if (this.#closed || source.#closed) return refuse(done);
    const durable = fua || this.durability === 'sync';
    const behindBytes = sourceOffsetBytes - offsetBytes;
    this.#changeAlone(
      (end) => this.#replicateCopy(offsetBytes, lengthBytes, source, behindBytes, durable, end),
      done,
    );
  }

  flush(done: BlockDone): void {
    if (this.#closed) return refuse(done);
    this.#replica.flush(done);
  }

  allocation(
    offsetBytes: number,
    done: (error: Error | null, mapped: boolean, lengthBytes: number) => void,
  ): void {
    this.#check(offsetBytes, sectorSizeBytes);
    if (this.#closed) {
      refuse((error) => done(error, false, 0));
      return;
    }
    const start = alignDown(offsetBytes);
    const limitBytes = this.#sizeBytes - start;
    this.#replica.allocation(this.#identity, start, limitBytes, (error, mapped, lengthBytes) => {
      done(error, mapped, error === null ? lengthBytes - (offsetBytes - start) : 0);
    });
  }

  #check(offsetBytes: number, lengthBytes: number): void {
    assert(offsetBytes % sectorSizeBytes === 0 && lengthBytes % sectorSizeBytes === 0, 'whole sectors');
    assert(lengthBytes > 0 && offsetBytes >= 0, 'a range is not empty');
    assert(offsetBytes + lengthBytes <= this.#sizeBytes, 'inside the volume');
  }

  /** Runs a change now, or after the read-modify-write before it. */
  #change(run: () => void): void {
    if (this.#exclusive) this.#waiting.push(run);
    else run();
  }

  /** Runs a change while no other is in flight. */
  #changeAlone(run: (end: BlockDone) => void, done: BlockDone): void {
    if (this.#exclusive) {
      this.#waiting.push(() => this.#changeAlone(run, done));
      return;
    }
    this.#exclusive = true;
    this.#startExclusive = () =>
      run((error) => {
        this.#exclusive = false;
        done(error);
        while (!this.#exclusive) {
          const next = this.#waiting.shift();
          if (next === undefined) break;
          next();
        }
        this.#settle();
      });
    this.#settle();
  }

  #settle(): void {
    if (this.#changesInFlight > 0) return;
    const start = this.#startExclusive;
    if (start !== null) {
      this.#startExclusive = null;
      start();
    } else if (this.#closed && !this.#exclusive && this.#waiting.length === 0) {
      this.#whenIdle?.();
    }
  }

  #write(offsetBytes: number, data: Buffer, durable: boolean, done: BlockDone): void {
    this.#changesInFlight++;
    this.#replicate(offsetBytes, data, durable, (error) => {
      this.#changesInFlight--;
      done(error);
      this.#settle();
    });
  }

  /** Whole blocks, to the replicas of their slice; slices are placed, numbered and acknowledged each by itself. */
  #replicate(offsetBytes: number, data: Buffer, durable: boolean, done: BlockDone): void {
    const insideBytes = sliceSizeBytes - (offsetBytes % sliceSizeBytes);
    if (data.length <= insideBytes) {
      const order = this.#nextOrder(offsetBytes);
      this.#replica.write(this.#identity, offsetBytes, data, order, durable, done);
      return;
    }
    const whenBoth = afterAll(2, done);
    this.#replicate(offsetBytes, data.subarray(0, insideBytes), durable, whenBoth);
    this.#replicate(offsetBytes + insideBytes, data.subarray(insideBytes), durable, whenBoth);
  }

  #zero(offsetBytes: number, lengthBytes: number, durable: boolean, done: BlockDone): void {
    this.#changesInFlight++;
    this.#replicateZeros(offsetBytes, lengthBytes, durable, (error) => {
      this.#changesInFlight--;
      done(error);
      this.#settle();
    });
  }

  #replicateZeros(offsetBytes: number, lengthBytes: number, durable: boolean, done: BlockDone): void {
    const endBytes = offsetBytes + lengthBytes;
    const slices = Math.ceil(endBytes / sliceSizeBytes) - Math.floor(offsetBytes / sliceSizeBytes);
    const whenAll = afterAll(slices, done);
    for (let at = offsetBytes; at < endBytes; ) {
      const end = Math.min(endBytes, at - (at % sliceSizeBytes) + sliceSizeBytes);
      this.#replica.zero(this.#identity, at, end - at, this.#nextOrder(at), durable, whenAll);
      at = end;
    }
  }

  /** Slice by slice; the source of a block lies `behindBytes` behind it. */
  #replicateCopy(
    offsetBytes: number,
    lengthBytes: number,
    source: Volume,
    behindBytes: number,
    durable: boolean,
    done: BlockDone,
  ): void {
    const insideBytes = Math.min(lengthBytes, sliceSizeBytes - (offsetBytes % sliceSizeBytes));
    const order = this.#nextOrder(offsetBytes);
    const from = offsetBytes + behindBytes;
    const target = this.#identity;
    this.#replica.copy(target, offsetBytes, insideBytes, source.#identity, from, order, durable, (error) => {
      const leftBytes = lengthBytes - insideBytes;
      if (error !== null || leftBytes === 0) done(error);
      else this.#replicateCopy(offsetBytes + insideBytes, leftBytes, source, behindBytes, durable, done);
    });
  }

  #nextOrder(offsetBytes: number): WriteOrder {
    const slice = Math.floor(offsetBytes / sliceSizeBytes);
    const sequence = (this.#sequences.get(slice) ?? 0) + 1;
    this.#sequences.set(slice, sequence);
    return { epoch: this.#epoch, sequence };
  }

  /** Reads the blocks at both ends, lays the data over them, writes whole blocks. */
  #writePartial(offsetBytes: number, data: Buffer, durable: boolean, end: BlockDone): void {
    const start = alignDown(offsetBytes);
    const blocks = Buffer.alloc(alignUp(offsetBytes + data.length) - start);
    this.#readEnds(start, offsetBytes, offsetBytes + data.length, blocks, (error) => {
      if (error !== null) return end(error);
      data.copy(blocks, offsetBytes - start);
      this.#replicate(start, blocks, durable, end);
    });
  }

  /** Zeros the whole blocks inside without storing them, and writes zeros into the blocks at both ends. */
  #zeroPartial(offsetBytes: number, lengthBytes: number, durable: boolean, end: BlockDone): void {
    const endBytes = offsetBytes + lengthBytes;
    const inside = alignUp(offsetBytes);
    const insideEnd = alignDown(endBytes);
    if (insideEnd <= inside) {
      this.#writePartial(offsetBytes, Buffer.alloc(lengthBytes), durable, end);
      return;
    }
    const steps: ((next: BlockDone) => void)[] = [];
    if (offsetBytes < inside) {
      steps.push((next) =>
        this.#writePartial(offsetBytes, Buffer.alloc(inside - offsetBytes), durable, next),
      );
    }
    steps.push((next) => this.#replicateZeros(inside, insideEnd - inside, durable, next));
    if (insideEnd < endBytes) {
      steps.push((next) => this.#writePartial(insideEnd, Buffer.alloc(endBytes - insideEnd), durable, next));
    }
    const step = (error: Error | null): void => {
      const next = steps.shift();
      if (error !== null || next === undefined) end(error);
      else next(step);
    };
    step(null);
  }

  /** Fills the first and the last block of `blocks` (which begins at `start`) where the range leaves bytes of them. */
  #readEnds(start: number, from: number, to: number, blocks: Buffer, done: BlockDone): void {
    const lastStart = blocks.length - blockSizeBytes;
    const needFirst = from > start || blocks.length === blockSizeBytes;
    const needLast = lastStart > 0 && to % blockSizeBytes !== 0;
    const readLast: BlockDone = (error) => {
      if (error !== null || !needLast) return done(error);
      this.#replica.read(this.#identity, start + lastStart, blocks.subarray(lastStart), done);
    };
    if (!needFirst) return readLast(null);
    this.#replica.read(this.#identity, start, blocks.subarray(0, blockSizeBytes), readLast);
  }
}

/** Calls `done` once, when it has been called `count` times, with the first error. */
function afterAll(count: number, done: BlockDone): BlockDone {
  let [waiting, failure]: [number, Error | null] = [count, null];
  return (error) => {
    failure ??= error;
    waiting -= 1;
    if (waiting === 0) done(failure);
  };
}

function refuse(done: BlockDone): void {
  queueMicrotask(() =>
    done(new WeftError('SHUTTING_DOWN', 'the volume is being closed: log in again when weftd is back')),
  );
}

function isAligned(offsetBytes: number, lengthBytes: number): boolean {
  return offsetBytes % blockSizeBytes === 0 && lengthBytes % blockSizeBytes === 0;
}

function alignDown(bytes: number): number {
  return bytes - (bytes % blockSizeBytes);
}

function alignUp(bytes: number): number {
  return alignDown(bytes + blockSizeBytes - 1);
}
