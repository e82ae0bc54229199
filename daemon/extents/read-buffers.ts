/** Buffers that chunk runs are read into, kept between reads: a fresh one costs more than the copy out of it. */
import { BufferPool } from '../base/buffer-pool.ts';
import { MiB } from '../base/limits.ts';

/** The longest run read at once, in bytes. */
export const maxRunBytes = MiB;

/** Kept for reuse, in bytes: 64 reads of 1 MiB under way. Only what was read into them takes memory. */
const maxIdleBytes = 64 * MiB;

export const readBuffers = new BufferPool(maxRunBytes, maxIdleBytes);
