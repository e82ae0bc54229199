/**
 * Transfer buffers for data-out, pooled by size class (powers of two), under one limit for all connections.
 *
 * Reused because a fresh 4 KiB buffer costs 1.4 µs and a reused one nothing; limited because what initiators announce
 * must not become what the daemon allocates.
 */
import { assert } from '../base/assert.ts';
import { KiB, MiB, maxTransferBytes } from '../base/limits.ts';

const smallestClassBytes = 4 * KiB;
/** The longest data-out a command may announce, in bytes; the longest transfer the LUN reports fits. */
export const largestTransferBytes = 16 * MiB;
assert(largestTransferBytes >= maxTransferBytes, 'every transfer the LUN allows has a buffer');

/** In use at once, in bytes. 128 commands of 1 MiB from each of four busy hosts; beyond it commands get TASK SET FULL. */
export const defaultPoolLimitBytes = 512 * MiB;
/** Kept for reuse, in bytes: a burst's worth; the rest goes back to the system. */
const keptLimitBytes = 64 * MiB;

export class BufferPool {
  private readonly limitBytes: number;
  private readonly free: Buffer[][] = [];
  private keptBytes = 0;
  /** Bytes handed out and not given back. */
  usedBytes = 0;

  constructor(limitBytes: number = defaultPoolLimitBytes) {
    this.limitBytes = limitBytes;
  }

  /** A buffer of exactly that length with arbitrary content, or null at the limit. */
  take(lengthBytes: number): Buffer | null {
    assert(lengthBytes > 0 && lengthBytes <= largestTransferBytes, 'a transfer buffer within limits');
    const sizeClass = classOf(lengthBytes);
    const sizeBytes = smallestClassBytes * 2 ** sizeClass;
    if (this.usedBytes + sizeBytes > this.limitBytes) return null;
    this.usedBytes += sizeBytes;
    const kept = this.free[sizeClass]?.pop();
    if (kept !== undefined) this.keptBytes -= sizeBytes;
    const whole = kept ?? Buffer.allocUnsafeSlow(sizeBytes);
    return whole.length === lengthBytes ? whole : whole.subarray(0, lengthBytes);
  }

  /** Takes a buffer back; nobody may touch it afterwards. */
  give(buffer: Buffer): void {
    const sizeClass = classOf(buffer.length);
    const sizeBytes = smallestClassBytes * 2 ** sizeClass;
    this.usedBytes -= sizeBytes;
    assert(this.usedBytes >= 0, 'a buffer is given back once');
    if (this.keptBytes + sizeBytes > keptLimitBytes) return;
    this.keptBytes += sizeBytes;
    const whole = buffer.length === sizeBytes ? buffer : Buffer.from(buffer.buffer, 0, sizeBytes);
    const list = this.free[sizeClass];
    if (list === undefined) this.free[sizeClass] = [whole];
    else list.push(whole);
  }

  /** Counts a buffer as given back without reusing it: bytes may still be landing in it. */
  forget(buffer: Buffer): void {
    this.usedBytes -= smallestClassBytes * 2 ** classOf(buffer.length);
    assert(this.usedBytes >= 0, 'a buffer is given back once');
  }
}

function classOf(lengthBytes: number): number {
  if (lengthBytes <= smallestClassBytes) return 0;
  return 32 - Math.clz32(lengthBytes - 1) - 12;
}
