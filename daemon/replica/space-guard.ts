/**
 * Decides whether the store has room for another write.
 *
 * A write that is acknowledged must be stored later, whatever else fills the file system meanwhile. So a write is
 * admitted only while the free space covers it, everything the journal still has to drain, and a reserve for the
 * drain itself (a new segment, the map's log). Reads, unmaps and deletions are always let through: they are the way
 * out of a full store.
 */
import { WeftError } from '../base/errors.ts';
import { MiB, segmentSizeBytes } from '../base/limits.ts';
import type { Clock, Timer } from '../env/clock.ts';
import { type Store, spaceOf } from '../env/store.ts';
import { chunksCostBytes } from './drain-cost.ts';

/** Room the drain needs beside the data: one segment begun, the map's write-ahead log. */
export const drainReserveBytes = 2 * segmentSizeBytes + 64 * MiB;
/**
 * The free space is asked for again after this much was admitted, or this long; and every so often while there is
 * little, also when nobody writes: that there is room again must not be found out by refusing a write.
 */
const askAgainBytes = 32 * MiB;
const askAgainMs = 500;

export interface SpaceGuardEnv {
  stores: readonly Store[];
  clock: Clock;
  /** See drain-cost.ts. */
  drainCostBytes: (enoughBytes: number) => number;
  /** Room kept free beside that; `drainReserveBytes` when not given. */
  reserveBytes?: number;
}

export class SpaceGuard {
  readonly #env: SpaceGuardEnv;
  #freeBytes = 0;
  #totalBytes = 0;
  /** When the free space was asked for. What is drained since takes as much of one as of the other. */
  #drainCostBytes = 0;
  /** What draining the writes admitted since then will take. */
  #admittedBytes = 0;
  #asking: Promise<void> | null = null;
  #timer: Timer | null = null;

  private constructor(env: SpaceGuardEnv) {
    this.#env = env;
  }

  static async open(env: SpaceGuardEnv): Promise<SpaceGuard> {
    const guard = new SpaceGuard(env);
    await guard.ask();
    if (guard.isNearlyFull) guard.#askLater();
    return guard;
  }

  get #reserveBytes(): number {
    return this.#env.reserveBytes ?? drainReserveBytes;
  }

  get space(): { totalBytes: number; freeBytes: number } {
    return { totalBytes: this.#totalBytes, freeBytes: this.#freeBytes };
  }

  /** Null when there is room for the write, else the error to answer it with. */
  admit(offsetBytes: number, lengthBytes: number, chunkSizeBytes: number): WeftError | null {
    const firstChunk = Math.floor(offsetBytes / chunkSizeBytes);
    const endChunk = Math.ceil((offsetBytes + lengthBytes) / chunkSizeBytes);
    return this.#admit(chunksCostBytes(endChunk - firstChunk, chunkSizeBytes));
  }

  /** As `admit`, for chunks that are shared instead of stored: only the map grows. */
  admitShared(chunks: number): WeftError | null {
    return this.#admit(chunksCostBytes(chunks, 0));
  }

  #admit(costBytes: number): WeftError | null {
    const neededBytes = this.#drainCostBytes + this.#admittedBytes + costBytes + this.#reserveBytes;
    if (this.#timer === null) this.#askLater();
    if (neededBytes > this.#freeBytes) {
      if (this.#admittedBytes > 0) void this.ask().catch(() => {});
      return new WeftError(
        'NO_SPACE',
        `the store is full (${this.#freeBytes} bytes free, ${neededBytes} needed): free space on its file system, or remove volumes and empty the trash`,
      );
    }
    this.#admittedBytes += costBytes;
    if (this.#admittedBytes > askAgainBytes) void this.ask().catch(() => {});
    return null;
  }

  /** Asks the disk now. Several calls at once share one question; a disk that does not answer keeps the last figure. */
  ask(): Promise<void> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  async #ask(): Promise<void> {
    const admittedBefore = this.#admittedBytes;
    const enoughBytes = this.#freeBytes - this.#reserveBytes - 2 * askAgainBytes;
    const drainCostBytes = this.#env.drainCostBytes(enoughBytes);
    const { totalBytes, freeBytes } = await spaceOf(this.#env.stores);
    this.#totalBytes = totalBytes;
    this.#freeBytes = freeBytes;
    this.#drainCostBytes = drainCostBytes;
    this.#admittedBytes -= admittedBefore;
  }

  get isNearlyFull(): boolean {
    const neededBytes = this.#drainCostBytes + this.#admittedBytes + this.#reserveBytes;
    return neededBytes + 2 * askAgainBytes > this.#freeBytes;
  }

  #askLater(): void {
    this.#timer = this.#env.clock.after(askAgainMs, () => {
      void this.ask()
        .catch(() => {})
        .then(() => {
          if (this.#timer === null) return;
          this.#timer = null;
          if (this.isNearlyFull) this.#askLater();
        });
    });
  }
}
