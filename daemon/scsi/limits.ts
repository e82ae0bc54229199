/** Limits of single commands, in sectors, as VPD page B0h reports them. Transfers: base/limits.ts. */
import { assert } from '../base/assert.ts';
import { MiB, maxTransferBytes, sectorSizeBytes } from '../base/limits.ts';

/** The field of the CDB has one byte (SBC-3 5.3). */
export const maxCompareAndWriteBlocks = 255;
/** 512 MiB an UNMAP: more would keep other commands of the unit waiting for the extent map. */
export const maxUnmapBlocks = (512 * MiB) / sectorSizeBytes;
/** 4 KiB of descriptors. */
export const maxUnmapDescriptors = 256;
/** 16 MiB: what WRITE SAME may have to write out in full before it answers. */
export const maxWriteSameBlocks = (16 * MiB) / sectorSizeBytes;
/** 1 MiB: what databases and file systems write as one, many times over, and an eighth of a journal batch. */
export const maxAtomicWriteBlocks = MiB / sectorSizeBytes;
/** The longest step of a command that works in steps (WRITE SAME, VERIFY), in bytes. */
export const stepBytes = MiB;
/** Descriptors in one GET LBA STATUS answer. */
export const maxLbaStatusDescriptors = 256;
/** Questions to the device for one GET LBA STATUS; the answer may cover less than the unit (SBC-3 5.5.2). */
export const maxLbaStatusQuestions = 1024;

assert(
  2 * maxCompareAndWriteBlocks * sectorSizeBytes <= maxTransferBytes,
  'both halves come in one transfer',
);
assert(maxWriteSameBlocks <= maxUnmapBlocks, 'WRITE SAME may unmap what it writes');
assert(maxAtomicWriteBlocks * sectorSizeBytes <= maxTransferBytes, 'an atomic write is one transfer');
assert(maxAtomicWriteBlocks <= 0xffff, 'the field of the CDB has two bytes');
assert(stepBytes <= maxTransferBytes, 'a step fits into a pooled buffer');
