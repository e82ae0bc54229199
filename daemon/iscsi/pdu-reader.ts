/**
 * Cuts the byte stream of a connection into PDUs, however it arrives.
 *
 * Bytes land in one slab and are parsed where they are; a large data segment that has not arrived whole lands straight
 * at its place in the command's transfer buffer, when the sink names one. Nothing is allocated per PDU but a view of
 * its data. Memory is bounded: the slab, and one data segment of at most the declared length.
 *
 *   header ──> [AHS, header digest] ──> data in the slab ───────> sink.pdu
 *                    │                └> data at its place ──┘
 *                    └──> violation: the stream cannot be trusted any more; nothing more is parsed
 */
import { crc32c } from '@node-rs/crc32';
import { assert } from '../base/assert.ts';
import { KiB } from '../base/limits.ts';
import { ahsLengthOf, bhsBytes, dataLengthOf, digestBytes } from './pdu.ts';

/** 64 writes of 4 KiB with their headers arrive in one read. */
const slabBytes = 256 * KiB + 16 * KiB;
/** Shorter segments are cheaper to wait for and to copy (0.1 µs per 4 KiB) than to read separately. */
export const directSegmentBytes = 16 * KiB;

export type Violation = 'header digest' | 'data segment too long' | 'additional header too long';

export interface PduSink {
  /** Where a data segment of that length shall land, or null: the sink takes it from where the reader put it. */
  place(bhs: Buffer, lengthBytes: number): Buffer | null;
  /**
   * A PDU is complete. Header and data are the reader's and change after the call returns. `placed`: the data lies
   * where `place` said.
   */
  pdu(bhs: Buffer, data: Buffer, placed: boolean): void;
  /** A PDU whose data does not match its digest. */
  damaged(bhs: Buffer, placed: boolean): void;
  violated(violation: Violation): void;
}

export interface ReaderSettings {
  headerDigest: boolean;
  dataDigest: boolean;
  /** The longest data segment we have declared to take. */
  maxDataBytes: number;
}

const noData = Buffer.alloc(0);
/** An extended CDB (at most 264 bytes) and a bidirectional length (8) are all there is (§11.2.2). */
const maxAhsBytes = 272;

export class PduReader {
  /** May be changed between PDUs (from inside `sink.pdu`). */
  settings: ReaderSettings;
  private readonly sink: PduSink;
  private readonly slab = Buffer.allocUnsafeSlow(slabBytes);
  private readonly bhs = Buffer.alloc(bhsBytes);
  /** Unparsed bytes are slab[start, end). */
  private start = 0;
  private end = 0;
  /** Where the running data segment lands when not in the slab. */
  private segment: Buffer | null = null;
  private segmentFilled = 0;
  private segmentPlaced = false;
  private isBroken = false;

  constructor(sink: PduSink, settings: ReaderSettings) {
    this.sink = sink;
    this.settings = settings;
  }

  /** Where the next bytes shall land. */
  room(): Buffer {
    if (this.segment !== null && this.segmentFilled < this.segment.length && this.start === this.end) {
      return this.segmentFilled === 0 ? this.segment : this.segment.subarray(this.segmentFilled);
    }
    if (this.start === this.end) {
      this.start = 0;
      this.end = 0;
      return this.slab;
    }
    // A PDU that is waited for in the slab is never longer than half of it.
    if (this.slab.length - this.end < slabBytes / 2) {
      this.slab.copyWithin(0, this.start, this.end);
      this.end -= this.start;
      this.start = 0;
    }
    return this.slab.subarray(this.end);
  }

  filled(bytes: number): void {
    if (this.isBroken) return;
    if (this.segment !== null && this.segmentFilled < this.segment.length) this.segmentFilled += bytes;
    else this.end += bytes;
    assert(this.end <= this.slab.length, 'bytes land in the room given');
    while (!this.isBroken && this.step()) {}
  }

  /** Parses nothing more; what still arrives is dropped. */
  stop(): void {
    this.isBroken = true;
    this.start = 0;
    this.end = 0;
    this.segment = null;
  }

  /** Takes one PDU off the slab; false when more bytes are needed. */
  private step(): boolean {
    if (this.segment !== null) return this.finishSegment();
    const available = this.end - this.start;
    if (available < bhsBytes) return false;
    const { bhs, slab, settings } = this;
    slab.copy(bhs, 0, this.start, this.start + bhsBytes);
    const ahsBytes = ahsLengthOf(bhs);
    if (ahsBytes > maxAhsBytes) return this.violate('additional header too long');
    const headerBytes = bhsBytes + ahsBytes + (settings.headerDigest ? digestBytes : 0);
    if (available < headerBytes) return false;
    if (settings.headerDigest) {
      const digestAt = this.start + bhsBytes + ahsBytes;
      const digest = crc32c(slab.subarray(this.start, digestAt));
      if (digest !== slab.readUInt32LE(digestAt)) return this.violate('header digest');
    }
    const dataBytes = dataLengthOf(bhs);
    if (dataBytes === 0) {
      this.start += headerBytes;
      this.sink.pdu(bhs, noData, false);
      return true;
    }
    if (dataBytes > settings.maxDataBytes) return this.violate('data segment too long');
    const dataAt = this.start + headerBytes;
    const whole = headerBytes + this.paddedBytes(dataBytes);
    if (available >= whole) {
      this.start += whole;
      this.deliver(slab.subarray(dataAt, dataAt + dataBytes), slab, dataAt + dataBytes, false);
      return true;
    }
    if (dataBytes < directSegmentBytes) return false;
    this.startSegment(dataAt, dataBytes);
    return this.segmentFilled === dataBytes;
  }

  /** What a data segment takes after its first byte: itself, padding, digest. */
  private paddedBytes(dataBytes: number): number {
    return ((dataBytes + 3) & ~3) + (this.settings.dataDigest ? digestBytes : 0);
  }

  private startSegment(dataAt: number, dataBytes: number): void {
    const place = this.sink.place(this.bhs, dataBytes);
    assert(place === null || place.length === dataBytes, 'a place as long as its data');
    this.segmentPlaced = place !== null;
    this.segment = place ?? Buffer.allocUnsafeSlow(dataBytes);
    this.segmentFilled = this.slab.copy(this.segment, 0, dataAt, Math.min(this.end, dataAt + dataBytes));
    this.start = dataAt + this.segmentFilled;
  }

  /** The segment has landed outside the slab; its padding and digest come through the slab. */
  private finishSegment(): boolean {
    const segment = this.segment!;
    if (this.segmentFilled < segment.length) return false;
    const tailBytes = this.paddedBytes(segment.length) - segment.length;
    if (this.end - this.start < tailBytes) return false;
    const tailAt = this.start;
    this.start += tailBytes;
    this.segment = null;
    this.deliver(segment, this.slab, tailAt, this.segmentPlaced);
    return true;
  }

  /** `tail[tailAt...]`: the padding and the digest (§11.2.3: the digest covers data and padding). */
  private deliver(data: Buffer, tail: Buffer, tailAt: number, placed: boolean): void {
    if (this.settings.dataDigest) {
      const digestAt = tailAt + (-data.length & 3);
      const digest = crc32c(tail.subarray(tailAt, digestAt), crc32c(data));
      if (digest !== tail.readUInt32LE(digestAt)) {
        this.sink.damaged(this.bhs, placed);
        return;
      }
    }
    this.sink.pdu(this.bhs, data, placed);
  }

  private violate(violation: Violation): boolean {
    this.stop();
    this.sink.violated(violation);
    return false;
  }
}
