/**
 * The sizes and limits of the fabric, with their units, asserted against each other below.
 */
import { assert } from './assert.ts';

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

/** What initiators address, in bytes. */
export const sectorSizeBytes = 512;
/** The unit of the journal's index, in bytes; reported to initiators as the physical block. */
export const blockSizeBytes = 4 * KiB;
/** The unit of the extent map, in bytes. */
export const extentSizeBytes = 4 * MiB;
/** The unit of placement and of replica configuration, in bytes. */
export const sliceSizeBytes = GiB;

export const defaultChunkSizeBytes = 16 * KiB;
export const minChunkSizeBytes = 4 * KiB;
export const maxChunkSizeBytes = 64 * KiB;

/** A segment takes no more chunks once it is this long, in bytes. */
export const segmentSizeBytes = 64 * MiB;

export const defaultVolumeSizeBytes = 10 * GiB;
export const minVolumeSizeBytes = MiB;
export const maxVolumeSizeBytes = 64 * TiB;
/** Volume sizes are rounded up to this, in bytes. */
export const volumeSizeGranuleBytes = MiB;

/** The longest transfer one SCSI command may ask for, in bytes (VPD page B0h). */
export const maxTransferBytes = 8 * MiB;

assert(sliceSizeBytes % extentSizeBytes === 0, 'slices consist of whole extents');
assert(extentSizeBytes % maxChunkSizeBytes === 0, 'extents consist of whole chunks');
assert(minChunkSizeBytes % blockSizeBytes === 0, 'chunks consist of whole blocks');
assert(blockSizeBytes % sectorSizeBytes === 0, 'blocks consist of whole sectors');
assert(volumeSizeGranuleBytes % blockSizeBytes === 0, 'volumes consist of whole blocks');
assert(maxTransferBytes < segmentSizeBytes, 'the longest write fits into a segment');
