/**
 * Cuts the byte stream of a connection into PDUs, however it arrives.
 *
 * Bytes land in one slab, which all connections share, and are parsed where they are before anything else lands; what
 * is left of a PDU then is carried over by its connection. A large data segment that has not arrived whole lands
 * straight at its place in the command's transfer buffer, when the sink names one. Nothing is allocated per PDU but a
 * view of its data. A connection at rest holds no memory for this; another one a carry, and one data segment of at most
 * the declared length.
 *
 *   header ──> [AHS, header digest] ──> data in the slab ───────> sink.pdu
 *                    │                └> data at its place ──┘
 *                    └──> violation: the stream cannot be trusted any more; nothing more is parsed
 */
import { crc32c } from '@node-rs/crc32';
import { assert } from '../base/assert.ts';
import { KiB } from '../base/limits.ts';
import { ahsLengthOf, bhsBytes, dataLengthOf, digestBytes } from './pdu.ts';

/** Most that is read at once: 60 writes of 4 KiB with their headers. */
const readBytes = 256 * KiB;
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

/** An extended CDB (at most 264 bytes) and a bidirectional length (8) are all there is (§11.2.2). */
const maxAhsBytes = 272;

/** The most that is left of a PDU: of a longer one, the data lands elsewhere. */
const carryBytes = 20 * KiB;
assert(
  carryBytes >= bhsBytes + maxAhsBytes + directSegmentBytes + 3 + 2 * digestBytes,
  'a PDU fits into a carry',
);
/** Carries kept for reuse: 1.25 MiB. */
const maxIdleCarries = 64;
const idleCarries: Buffer[] = [];

/** [a carry's content, as long as it is, at its end] [what lands]. */
const slab = Buffer.allocUnsafeSlow(carryBytes + readBytes);
const landing = slab.subarray(carryBytes);
let isParsing = false;

const noData = Buffer.alloc(0);

export class PduReader {
  /** May be changed between PDUs (from inside `sink.pdu`). */
  settings: ReaderSettings;
  private readonly sink: PduSink;
  private readonly bhs = Buffer.alloc(bhsBytes);
  /** The unparsed bytes of earlier reads. */
  private carry: Buffer | null = null;
  private carriedBytes = 0;
  /** While parsing: unparsed bytes are slab[start, end). */
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

  /** Where the next bytes shall land; what was given before is void. */
  room(): Buffer {
    if (!this.isSegmentNext) return landing;
    const segment = this.segment!;
    return this.segmentFilled === 0 ? segment : segment.subarray(this.segmentFilled);
  }

  /** To be called as soon as they have: other connections get the same room. */
  filled(bytes: number): void {
    if (this.isBroken) return;
    assert(!isParsing, 'what has landed is parsed before more lands');
    if (this.isSegmentNext) {
      this.segmentFilled += bytes;
      this.start = carryBytes;
      this.end = carryBytes;
    } else {
      this.start = carryBytes - this.carriedBytes;
      this.end = carryBytes + bytes;
      this.carry?.copy(slab, this.start, 0, this.carriedBytes);
    }
    isParsing = true;
    while (!this.isBroken && this.step()) {}
    isParsing = false;
    this.carryOver();
  }

  /** A PDU has begun, and its rest has not come. */
  get isWithinPdu(): boolean {
    return this.carriedBytes > 0 || this.segment !== null;
  }

  /** Of a data segment that lands where the sink said, bytes that are there. */
  get landedBytes(): number {
    return this.segment !== null && this.segmentPlaced ? this.segmentFilled : 0;
  }

  private get isSegmentNext(): boolean {
    return this.segment !== null && this.segmentFilled < this.segment.length && this.carriedBytes === 0;
  }

  private carryOver(): void {
    this.carriedBytes = this.end - this.start;
    if (this.carriedBytes > 0) {
      this.carry ??= idleCarries.pop() ?? Buffer.allocUnsafeSlow(carryBytes);
      slab.copy(this.carry, 0, this.start, this.end);
    } else if (this.carry !== null) {
      if (idleCarries.length < maxIdleCarries) idleCarries.push(this.carry);
      this.carry = null;
    }
  }

  /** Parses nothing more; what still arrives is dropped. */
  stop(): void {
    this.isBroken = true;
    this.start = 0;
    this.end = 0;
    this.segment = null;
    if (!isParsing) this.carryOver();
  }

  /** Takes one PDU off the slab; false when more bytes are needed. */
  private step(): boolean {
    if (this.segment !== null) return this.finishSegment();
    const available = this.end - this.start;
    if (available < bhsBytes) return false;
    const { bhs, settings } = this;
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
      this.deliver(slab.subarray(dataAt, dataAt + dataBytes), dataAt + dataBytes, false);
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
    this.segmentFilled = slab.copy(this.segment, 0, dataAt, Math.min(this.end, dataAt + dataBytes));
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
    this.deliver(segment, tailAt, this.segmentPlaced);
    return true;
  }

  /** slab[tailAt...]: the padding and the digest (§11.2.3: the digest covers data and padding). */
  private deliver(data: Buffer, tailAt: number, placed: boolean): void {
    if (this.settings.dataDigest) {
      const digestAt = tailAt + (-data.length & 3);
      const digest = crc32c(slab.subarray(tailAt, digestAt), crc32c(data));
      if (digest !== slab.readUInt32LE(digestAt)) {
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
