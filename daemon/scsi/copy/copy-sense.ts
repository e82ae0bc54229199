/**
 * Sense data of a copy that failed at a segment (SPC-4 6.4.3.5): sense key COPY ABORTED, the number of the segment,
 * and, when the source or the destination refused, the status and the sense data it would have given.
 *
 * Fixed format: COMMAND-SPECIFIC INFORMATION (bytes 8 to 11) is where the source's status lies in this sense data, where the
 * destination's does (0: nowhere), and the segment's number (2). Descriptor format: a command-specific information
 * descriptor (01h) with the segment's number, and a forwarded sense data descriptor (0Ch).
 */
import { encodeSense, type SenseCode } from '../sense.ts';

/** What the source or the destination would have answered. */
export interface Forwarded {
  side: 'source' | 'target';
  status: number;
  sense: SenseCode | null;
  /** The first bad LBA, when it is known. */
  information: number | null;
}

export interface SegmentFailure {
  code: SenseCode;
  segment: number;
  /** The byte of the segment descriptor that is wrong, when it is the descriptor. */
  byte: number | null;
  forwarded: Forwarded | null;
}

const fixedBytes = 18;

export function encodeCopySense(failure: SegmentFailure, descriptorFormat: boolean): Buffer {
  return descriptorFormat ? descriptorSense(failure) : fixedSense(failure);
}

function fixedSense({ code, segment, byte, forwarded }: SegmentFailure): Buffer {
  const bytes = Buffer.concat([encodeSense(code, null, false), forwardedBytes(forwarded, false)]);
  bytes[7] = bytes.length - 8;
  if (forwarded !== null) bytes[forwarded.side === 'source' ? 8 : 9] = fixedBytes;
  bytes.writeUInt16BE(segment, 10);
  if (byte !== null) writeSegmentPointer(bytes, 15, byte);
  return bytes;
}

function descriptorSense({ code, segment, byte, forwarded }: SegmentFailure): Buffer {
  const parts = [encodeSense(code, null, true)];
  const information = Buffer.alloc(12);
  information[0] = 0x01;
  information[1] = 10;
  information.writeUInt32BE(segment, 8);
  parts.push(information);
  if (byte !== null) {
    const pointer = Buffer.from([0x02, 6, 0, 0, 0, 0, 0, 0]);
    writeSegmentPointer(pointer, 4, byte);
    parts.push(pointer);
  }
  if (forwarded !== null) {
    const inner = forwardedBytes(forwarded, true);
    // SENSE DATA SOURCE: 1 the source, 2 the destination (SPC-4 table 41). Then the status, and the sense data.
    const side = forwarded.side === 'source' ? 1 : 2;
    parts.push(Buffer.from([0x0c, 1 + inner.length, side]), inner);
  }
  const bytes = Buffer.concat(parts);
  bytes[7] = bytes.length - 8;
  return bytes;
}

/** The status, and the sense data if there is any. */
function forwardedBytes(forwarded: Forwarded | null, descriptorFormat: boolean): Buffer {
  if (forwarded === null) return Buffer.alloc(0);
  const status = Buffer.from([forwarded.status]);
  if (forwarded.sense === null) return status;
  return Buffer.concat([status, encodeSense(forwarded.sense, forwarded.information, descriptorFormat)]);
}

/** SKSV 80h, SD 20h: counted from the segment descriptor's first byte (SPC-4 table 44). */
function writeSegmentPointer(bytes: Buffer, at: number, byte: number): void {
  bytes[at] = 0xa0;
  bytes.writeUInt16BE(byte, at + 1);
}
