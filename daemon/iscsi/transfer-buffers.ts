/**
 * Buffers for data-out, under one limit for all connections: what initiators announce must not become what the daemon
 * allocates.
 */
import { assert } from '../base/assert.ts';
import { BufferPool, classBytes } from '../base/buffer-pool.ts';
import { MiB, maxTransferBytes } from '../base/limits.ts';

/** The longest data-out a command may announce, in bytes; the longest transfer the LUN reports fits. */
export const largestTransferBytes = 16 * MiB;
assert(largestTransferBytes >= maxTransferBytes, 'every transfer the LUN allows has a buffer');

/** In use at once, in bytes. 128 commands of 1 MiB from each of four busy hosts; beyond it commands get TASK SET FULL. */
const defaultLimitBytes = 512 * MiB;
/** Kept for reuse, in bytes: a burst's worth; the rest goes back to the system. */
const maxIdleBytes = 64 * MiB;

export class TransferBuffers {
  private readonly limitBytes: number;
  private readonly pool = new BufferPool(largestTransferBytes, maxIdleBytes);
  /** Bytes handed out and not given back. */
  usedBytes = 0;

  constructor(limitBytes: number = defaultLimitBytes) {
    this.limitBytes = limitBytes;
  }

  /** A buffer of exactly that length with arbitrary content, or null at the limit. */
  take(lengthBytes: number): Buffer | null {
    assert(lengthBytes > 0 && lengthBytes <= largestTransferBytes, 'a transfer buffer within limits');
    const sizeBytes = classBytes(lengthBytes);
    if (this.usedBytes + sizeBytes > this.limitBytes) return null;
    this.usedBytes += sizeBytes;
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
    this.usedBytes -= classBytes(buffer.length);
    assert(this.usedBytes >= 0, 'a buffer is given back once');
  }
}
