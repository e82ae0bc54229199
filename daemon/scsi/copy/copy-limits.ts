/** What EXTENDED COPY takes at most, as OPERATING PARAMETERS and VPD page 8Fh report it. */
import { assert } from '../../base/assert.ts';
import { sectorSizeBytes } from '../../base/limits.ts';

export const maxTargetDescriptors = 64;
export const maxSegmentDescriptors = 64;
/** Target and segment descriptors together, in bytes. */
export const maxDescriptorListBytes = 4096;
/** The field of a block-to-block segment descriptor has two bytes: just below 32 MiB. */
export const maxSegmentBytes = 0xffff * sectorSizeBytes;
/** Commands that copy at the same time at a logical unit; each may hold a buffer of a MiB. More are answered BUSY. */
export const maxConcurrentCopies = 16;

export const targetDescriptorBytes = 32;
export const segmentDescriptorBytes = 28;
/** Block device to block device (SPC-4 6.4.6.5). */
export const blockToBlockSegment = 0x02;
/** Identification descriptor (SPC-4 6.4.5.2). */
export const identificationTarget = 0xe4;
/** The CSCD descriptor id that means the logical unit the command was sent to (SPC-4 table 109). */
export const thisUnitId = 0xffff;

assert(
  maxTargetDescriptors * targetDescriptorBytes + maxSegmentDescriptors * segmentDescriptorBytes <=
    maxDescriptorListBytes,
  'as many descriptors as are allowed fit',
);
