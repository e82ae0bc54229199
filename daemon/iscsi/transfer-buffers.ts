/**
 * Buffers for data-out, under one limit for all sessions and a share of it for each: what initiators announce must not
 * become what the daemon allocates, and one of them must not keep the others from their writes.
 */
import { assert } from '../base/assert.ts';
import { BufferPool, classBytes } from '../base/buffer-pool.ts';
import { MiB, maxTransferBytes } from '../base/limits.ts';
import type { Clock } from '../env/clock.ts';
import { MemoryBudget, MemoryShare, SourceShare } from './memory-budget.ts';

/** The longest data-out a command may announce, in bytes; the longest transfer the LUN reports fits. */
export const largestTransferBytes = 16 * MiB;
assert(largestTransferBytes >= maxTransferBytes, 'every transfer the LUN allows has a buffer');

/**
 * In use at once, in bytes. A host alone may have 128 commands of 2 MiB outstanding; beyond its share, commands get
 * TASK SET FULL and its window stays closed.
 */
const defaultLimitBytes = 512 * MiB;
/** Of that for the sessions of one source address: a host that asks for data and never sends it leaves others theirs. */
const sourcePart = 3 / 4;
/**
 * Beside it, reserved: so much of each source's first data always has room, whatever others hold, for 32 sources at
 * once. With the default that is 2 MiB each, a host's longest requests but one at a time, and 64 MiB in all.
 */
const reservedPart = 1 / 256;
const reservedSources = 32;
/** A source that was curbed may hold that much for that time. */
const curbedPart = 1 / 32;
assert(defaultLimitBytes * curbedPart >= largestTransferBytes, 'its longest transfer is still possible');
const curbMs = 60_000;
/** Curbs remembered; the oldest is forgotten first. */
const maxCurbs = 4096;
/** Kept for reuse, in bytes: a burst's worth; the rest goes back to the system. */
const maxIdleBytes = 64 * MiB;

interface Source {
  share: SourceShare;
  sessions: number;
}

export class TransferBuffers {
  private readonly pool = new BufferPool(largestTransferBytes, maxIdleBytes);
  private readonly budget: MemoryBudget;
  private readonly reserve: MemoryBudget;
  /** Those with sessions. */
  private readonly sources = new Map<string, Source>();
  /** Until when sources are curbed, on the monotonic clock. */
  private readonly curbs = new Map<string, number>();
  private readonly clock: Clock;
  private readonly refused: () => void;

  /** `refused`: somebody did not get what it asked for. */
  constructor(clock: Clock, refused: () => void, limitBytes: number = defaultLimitBytes) {
    this.clock = clock;
    this.refused = refused;
    this.budget = new MemoryBudget(limitBytes);
    this.reserve = new MemoryBudget(limitBytes * reservedPart * reservedSources);
  }

  /** Bytes handed out and not given back. */
  get usedBytes(): number {
    return this.budget.usedBytes + this.reserve.usedBytes;
  }

  /** For one session, which says `leave` when it has ended. `source`: where it comes from. */
  share(source: string): SessionBuffers {
    const entry = this.sources.get(source) ?? { share: this.makeShare(source), sessions: 0 };
    entry.sessions += 1;
    this.sources.set(source, entry);
    return new SessionBuffers(this.pool, new MemoryShare(this.budget, entry.share), this.refused);
  }

  private makeShare(source: string): SourceShare {
    const { limitBytes } = this.budget;
    const share = new SourceShare(this.sourceLimitBytes, this.reserve, limitBytes * reservedPart);
    if ((this.curbs.get(source) ?? 0) > this.clock.monotonicMs()) share.limitBytes = this.curbedLimitBytes;
    return share;
  }

  private get sourceLimitBytes(): number {
    const { limitBytes } = this.budget;
    return Math.max(limitBytes * sourcePart, Math.min(limitBytes, largestTransferBytes));
  }

  private get curbedLimitBytes(): number {
    return this.budget.limitBytes * curbedPart;
  }

  leave(source: string): void {
    const entry = this.sources.get(source);
    assert(entry !== undefined, 'a session leaves once');
    entry.sessions -= 1;
    if (entry.sessions === 0) this.sources.delete(source);
  }

  /**
   * A source held memory that others waited for, and did nothing with it: for a while it may hold less, also with
   * sessions that it begins anew.
   */
  curb(source: string): void {
    const untilMs = this.clock.monotonicMs() + curbMs;
    this.curbs.delete(source);
    this.curbs.set(source, untilMs);
    for (const oldest of this.curbs.keys()) {
      if (this.curbs.size <= maxCurbs) break;
      this.curbs.delete(oldest);
    }
    const entry = this.sources.get(source);
    if (entry !== undefined) entry.share.limitBytes = this.curbedLimitBytes;
    this.clock.after(curbMs, () => {
      if ((this.curbs.get(source) ?? 0) > untilMs) return;
      this.curbs.delete(source);
      const later = this.sources.get(source);
      if (later !== undefined) later.share.limitBytes = this.sourceLimitBytes;
    });
  }
}

export class SessionBuffers {
  private readonly pool: BufferPool;
  private readonly share: MemoryShare;
  private readonly refused: () => void;

  constructor(pool: BufferPool, share: MemoryShare, refused: () => void) {
    this.pool = pool;
    this.share = share;
    this.refused = refused;
  }

  /** The session holds more than it would be given now. */
  get isOver(): boolean {
    return this.share.isOver;
  }

  /** A buffer of exactly that length with arbitrary content, or null at the limit. */
  take(lengthBytes: number): Buffer | null {
    assert(lengthBytes > 0 && lengthBytes <= largestTransferBytes, 'a transfer buffer within limits');
    const sizeBytes = classBytes(lengthBytes);
    if (!this.share.mayTake(sizeBytes)) {
      this.refused();
      return null;
    }
    this.share.take(sizeBytes);
    const whole = this.pool.take(lengthBytes);
    return whole.length === lengthBytes ? whole : whole.subarray(0, lengthBytes);
  }

  /** Takes a buffer back; nobody may touch it afterwards. */
  give(buffer: Buffer): void {
    this.forget(buffer);
    const sizeBytes = classBytes(buffer.length);
    this.pool.give(buffer.length === sizeBytes ? buffer : Buffer.from(buffer.buffer, 0, sizeBytes));
  }

  /** Counts a buffer as given back without reusing it: bytes may still be landing in it. */
  forget(buffer: Buffer): void {
    this.share.give(classBytes(buffer.length));
  }
}
