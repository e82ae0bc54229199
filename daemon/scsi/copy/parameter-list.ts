/**
 * The parameter list of EXTENDED COPY(LID1) (SPC-4 6.4.1), decoded and checked as a whole before anything is copied.
 *
 *   0  LIST IDENTIFIER
 *   1  STR 20h, LIST ID USAGE 18h, PRIORITY 07h (none of ours streams, none goes before others)
 *   2  CSCD DESCRIPTOR LIST LENGTH (2); 4 reserved; 8 SEGMENT DESCRIPTOR LIST LENGTH (4); 12 INLINE DATA LENGTH (4)
 *  16  CSCD descriptors, segment descriptors
 *
 * An identification CSCD descriptor (6.4.5.2), 32 bytes: type E4h, LU ID TYPE C0h (ignored) and PERIPHERAL DEVICE
 * TYPE 1Fh, RELATIVE INITIATOR PORT (2, ignored), CODE SET 0Fh, ASSOCIATION 30h and DESIGNATOR TYPE 0Fh, reserved,
 * DESIGNATOR LENGTH, designator (20), PAD 04h, DISK BLOCK LENGTH (3).
 *
 * A block-to-block segment descriptor (6.4.6.5), 28 bytes: type 02h, DC 02h and CAT 01h, DESCRIPTOR LENGTH 0018h,
 * source id (2), destination id (2), reserved (2), NUMBER OF BLOCKS (2), source LBA (8), destination LBA (8). DC says whose
 * blocks are counted and CAT what becomes of odd bytes: with one block size everywhere they make no difference.
 */
import { sectorSizeBytes } from '../../base/limits.ts';
import { type SenseCode, sense } from '../sense.ts';
import {
  blockToBlockSegment,
  identificationTarget,
  maxDescriptorListBytes,
  maxSegmentDescriptors,
  maxTargetDescriptors,
  segmentDescriptorBytes,
  targetDescriptorBytes,
} from './copy-limits.ts';

/** What names a logical unit, as in VPD page 83h. */
export interface Designator {
  codeSet: number;
  association: number;
  type: number;
  identifier: Buffer;
}

export interface TargetDescriptor {
  peripheralType: number;
  designator: Designator;
}

export interface SegmentDescriptor {
  sourceId: number;
  targetId: number;
  blocks: number;
  /** Beyond 2^53 they are not exact, and far outside any unit. */
  sourceBlock: number;
  targetBlock: number;
}

/** How long what is known of the copy is to be kept, for RECEIVE COPY RESULTS (SPC-4 table 107). */
export type ListIdUsage = 'keep' | 'discard' | 'none';

export interface CopyParameters {
  listId: number;
  usage: ListIdUsage;
  targets: TargetDescriptor[];
  segments: SegmentDescriptor[];
}

/** Why a list is refused, before anything is copied; `byte`: where in the list, when that can be said. */
export interface ListRefusal {
  refusal: SenseCode;
  byte: number | null;
}

const headerBytes = 16;
/** IPv6 and IP copy service descriptors take two places (SPC-4 table 108). */
const longDescriptorTypes = new Set([0xea, 0xeb]);
const usages: readonly (ListIdUsage | null)[] = ['keep', null, 'discard', 'none'];

function refuse(refusal: SenseCode, byte: number | null = null): ListRefusal {
  return { refusal, byte };
}

export function decodeCopyParameters(list: Buffer): CopyParameters | ListRefusal {
  if (list.length < headerBytes) return refuse(sense.parameterListLengthError);
  const listId = list[0]!;
  const usage = usages[(list[1]! >> 3) & 0x03]!;
  const targetsBytes = list.readUInt16BE(2);
  const segmentsBytes = list.readUInt32BE(8);
  const inlineBytes = list.readUInt32BE(12);
  if (headerBytes + targetsBytes + segmentsBytes + inlineBytes > list.length) {
    return refuse(sense.parameterListLengthError);
  }
  if (targetsBytes + segmentsBytes > maxDescriptorListBytes) return refuse(sense.parameterListLengthError);
  if (inlineBytes > 0) return refuse(sense.inlineDataLengthExceeded, 12);
  if (usage === null || (usage === 'none' && listId !== 0)) {
    return refuse(sense.invalidFieldInParameterList, usage === null ? 1 : 0);
  }
  const segmentsAt = headerBytes + targetsBytes;
  const targets = decodeTargets(list.subarray(0, segmentsAt));
  if ('refusal' in targets) return targets;
  const segments = decodeSegments(list.subarray(0, segmentsAt + segmentsBytes), segmentsAt);
  if ('refusal' in segments) return segments;
  return { listId, usage, targets, segments };
}

function decodeTargets(list: Buffer): TargetDescriptor[] | ListRefusal {
  const targets: TargetDescriptor[] = [];
  for (let at = headerBytes; at < list.length; at += targetDescriptorBytes) {
    if (targets.length === maxTargetDescriptors) return refuse(sense.tooManyTargetDescriptors, at);
    const type = list[at]!;
    const lengthBytes = longDescriptorTypes.has(type) ? 2 * targetDescriptorBytes : targetDescriptorBytes;
    if (at + lengthBytes > list.length) return refuse(sense.parameterListLengthError);
    if (type !== identificationTarget) return refuse(sense.unsupportedTargetDescriptorType, at);
    const identifierBytes = list[at + 7]!;
    if (identifierBytes === 0 || identifierBytes > 20)
      return refuse(sense.invalidFieldInParameterList, at + 7);
    const peripheralType = list[at + 1]! & 0x1f;
    const sectorBytes = list.readUIntBE(at + 29, 3);
    // Of other types of devices these bytes mean something else.
    if (peripheralType === 0 && sectorBytes !== 0 && sectorBytes !== sectorSizeBytes) {
      return refuse(sense.invalidFieldInParameterList, at + 29);
    }
    const designator = {
      codeSet: list[at + 4]! & 0x0f,
      association: (list[at + 5]! >> 4) & 0x03,
      type: list[at + 5]! & 0x0f,
      identifier: list.subarray(at + 8, at + 8 + identifierBytes),
    };
    targets.push({ peripheralType, designator });
  }
  return targets;
}

function decodeSegments(list: Buffer, from: number): SegmentDescriptor[] | ListRefusal {
  const segments: SegmentDescriptor[] = [];
  for (let at = from; at < list.length; at += segmentDescriptorBytes) {
    if (segments.length === maxSegmentDescriptors) return refuse(sense.tooManySegmentDescriptors, at);
    if (at + 4 > list.length) return refuse(sense.parameterListLengthError);
    if (list[at] !== blockToBlockSegment) return refuse(sense.unsupportedSegmentDescriptorType, at);
    const lengthBytes = 4 + list.readUInt16BE(at + 2);
    if (lengthBytes !== segmentDescriptorBytes) return refuse(sense.invalidFieldInParameterList, at + 2);
    if (at + lengthBytes > list.length) return refuse(sense.parameterListLengthError);
    segments.push({
      sourceId: list.readUInt16BE(at + 4),
      targetId: list.readUInt16BE(at + 6),
      blocks: list.readUInt16BE(at + 10),
      sourceBlock: Number(list.readBigUInt64BE(at + 12)),
      targetBlock: Number(list.readBigUInt64BE(at + 20)),
    });
  }
  return segments;
}
