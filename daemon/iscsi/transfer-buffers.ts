/**
 * Buffers for data-out, under one limit for all sessions and a share of it for each: what initiators announce must not
 * become what the daemon allocates, and one of them must not keep the others from their writes.
 */
import { assert } from '../base/assert.ts';
import { BufferPool, classBytes } from '../base/buffer-pool.ts';
import { MiB, maxTransferBytes } from '../base/limits.ts';
import { MemoryBudget, MemoryShare } from './memory-budget.ts';

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
/** Kept for reuse, in bytes: a burst's worth; the rest goes back to the system. */
const maxIdleBytes = 64 * MiB;

export class TransferBuffers {
  private readonly pool = new BufferPool(largestTransferBytes, maxIdleBytes);
  private readonly budget: MemoryBudget;
  /** Those with sessions. */
  private readonly sources = new Map<string, { budget: MemoryBudget; sessions: number }>();

  constructor(limitBytes: number = defaultLimitBytes) {
    this.budget = new MemoryBudget(limitBytes);
  }

  /** Bytes handed out and not given back. */
  get usedBytes(): number {
    return this.budget.usedBytes;
  }

  /** For one session, which says `leave` when it has ended. `source`: where it comes from. */
  share(source: string): SessionBuffers {
    const { limitBytes } = this.budget;
    const partBytes = Math.max(limitBytes * sourcePart, Math.min(limitBytes, largestTransferBytes));
    const entry = this.sources.get(source) ?? { budget: new MemoryBudget(partBytes), sessions: 0 };
    entry.sessions += 1;
    this.sources.set(source, entry);
    return new SessionBuffers(this.pool, new MemoryShare(this.budget, entry.budget));
  }

  leave(source: string): void {
    const entry = this.sources.get(source);
    assert(entry !== undefined, 'a session leaves once');
    entry.sessions -= 1;
    if (entry.sessions === 0) this.sources.delete(source);
  }
}

export class SessionBuffers {
  private readonly pool: BufferPool;
  private readonly share: MemoryShare;

  constructor(pool: BufferPool, share: MemoryShare) {
    this.pool = pool;
    this.share = share;
  }

  /** The session holds more than it would be given now. */
  get isOver(): boolean {
    return this.share.isOver;
  }

  /** A buffer of exactly that length with arbitrary content, or null at the limit. */
  take(lengthBytes: number): Buffer | null {
    assert(lengthBytes > 0 && lengthBytes <= largestTransferBytes, 'a transfer buffer within limits');
    const sizeBytes = classBytes(lengthBytes);
    if (!this.share.mayTake(sizeBytes)) return null;
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
