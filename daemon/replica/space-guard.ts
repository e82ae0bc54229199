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
import type { Disk } from '../env/disk.ts';

/** Room the drain needs beside the data: one segment begun, the map's write-ahead log. */
export const drainReserveBytes = 2 * segmentSizeBytes + 64 * MiB;
/**
 * The free space is asked for again after this much was admitted, or this long; and every so often while there is
 * little, also when nobody writes: that there is room again must not be found out by refusing a write.
 */
const askAgainBytes = 32 * MiB;
const askAgainMs = 500;

export interface SpaceGuardEnv {
  disk: Disk;
  clock: Clock;
  /** Bytes in the journal that are not stored in segments yet. */
  undrainedBytes: () => number;
  /** Bytes that preallocated journal files hold already: what is appended there takes no new room. */
  reserveBytes?: number;
}

export class SpaceGuard {
  readonly #env: SpaceGuardEnv;
  #freeBytes = 0;
  #totalBytes = 0;
  /** In the journal when the free space was asked for. What is drained since takes as much of one as of the other. */
  #undrainedBytes = 0;
  /** Admitted since the free space was asked for. */
  #admittedBytes = 0;
  #asking: Promise<void> | null = null;
  #timer: Timer | null = null;

  private constructor(env: SpaceGuardEnv) {
    this.#env = env;
  }

  static async open(env: SpaceGuardEnv): Promise<SpaceGuard> {
    const guard = new SpaceGuard(env);
    await guard.ask();
    if (guard.#isNearlyFull()) guard.#askLater();
    return guard;
  }

  get space(): { totalBytes: number; freeBytes: number } {
    return { totalBytes: this.#totalBytes, freeBytes: this.#freeBytes };
  }

  /** Null when there is room for the write, else the error to answer it with. */
  admit(lengthBytes: number): WeftError | null {
    const reserveBytes = this.#env.reserveBytes ?? drainReserveBytes;
    // Drained twice at worst: a chunk is written whole for one block of it, and the old one goes later.
    const neededBytes = this.#undrainedBytes + this.#admittedBytes + lengthBytes + reserveBytes;
    if (this.#timer === null) this.#askLater();
    if (neededBytes > this.#freeBytes) {
      if (this.#admittedBytes > 0) void this.ask().catch(() => {});
      return new WeftError(
        'NO_SPACE',
        `the store is full (${this.#freeBytes} bytes free, ${neededBytes} needed): free space on its file system, or remove volumes and empty the trash`,
      );
    }
    this.#admittedBytes += lengthBytes;
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
    const undrainedBytes = this.#env.undrainedBytes();
    const { totalBytes, freeBytes } = await this.#env.disk.space();
    this.#totalBytes = totalBytes;
    this.#freeBytes = freeBytes;
    this.#undrainedBytes = undrainedBytes;
    this.#admittedBytes -= admittedBefore;
  }

  #isNearlyFull(): boolean {
    const reserveBytes = this.#env.reserveBytes ?? drainReserveBytes;
    return this.#undrainedBytes + this.#admittedBytes + reserveBytes + 2 * askAgainBytes > this.#freeBytes;
  }

  #askLater(): void {
    this.#timer = this.#env.clock.after(askAgainMs, () => {
      void this.ask()
        .catch(() => {})
        .then(() => {
          if (this.#timer === null) return;
          this.#timer = null;
          if (this.#isNearlyFull()) this.#askLater();
        });
    });
  }
}
