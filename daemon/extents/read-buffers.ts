/**
 * Buffers that chunk runs are read into, kept between reads: a fresh one of 16 KiB costs more than the copy
 * out of it. Sizes fit a few chunks, a 64 KiB chunk with its neighbour's header, and the longest run.
 */
import { assert } from '../base/assert.ts';
import { KiB, MiB } from '../base/limits.ts';

/** The longest run read at once, in bytes. */
export const maxRunBytes = MiB;

/** Sizes in bytes, and how many of each are kept: 2, 4 and 8 MiB. */
const classes = [
  { sizeBytes: 32 * KiB, keep: 64, free: [] as Buffer[] },
  { sizeBytes: 128 * KiB, keep: 32, free: [] as Buffer[] },
  { sizeBytes: maxRunBytes, keep: 8, free: [] as Buffer[] },
];

/** A buffer of at least `lengthBytes`; what is in it is old. */
export function takeReadBuffer(lengthBytes: number): Buffer {
  const size = classes.find(({ sizeBytes }) => sizeBytes >= lengthBytes);
  assert(size, `a run of ${lengthBytes} bytes is read in parts`);
  return size.free.pop() ?? Buffer.allocUnsafeSlow(size.sizeBytes);
}

export function giveReadBuffer(buffer: Buffer): void {
  const size = classes.find(({ sizeBytes }) => sizeBytes === buffer.length);
  if (size && size.free.length < size.keep) size.free.push(buffer);
}
