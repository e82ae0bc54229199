/**
 * A batch of the journal: header pages, then the payloads of its writes, back to back. Everything is a multiple of
 * 4 KiB, so that no write ever shares a page with what was durable before. Integers are little-endian; u53 is a
 * u64 below 2^53.
 *
 *   0   4  magic "WFJB"
 *   4   4  u32 version: the lowest that knows all its records, so that an older weftd reads what it can and refuses
 *          the rest; the first 48 bytes stay as they are in every version
 *   8   4  u32 crc32c of the header (all `headerBytes`, padding included) with this field 0
 *  12   4  u32 header length in bytes, a multiple of 4096
 *  16  16  incarnation of the file
 *  32   8  u53 number of the file
 *  40   8  u53 batch number; rises by one with every batch, across files
 *  48   8  u53 durable batch: every batch up to this number was durable when this one was written. It is what tells
 *          a torn tail (may be dropped) from damage to what was promised (must not be)
 *  56   4  u32 total length in bytes, payloads included
 *  60   4  u32 record count
 *  64      records, one after another; then zeros
 *
 * A record:
 *   0   1  u8 kind: 1 write, 2 zero (the range reads as zeros from here on), 3 stored (from version 2: from here on the
 *          range reads as the extent store has it; what earlier records say of it is void)
 *   1   3  zeros
 *   4   4  u32 payload: where it starts, in 4 KiB blocks from the batch's first byte; 0 without one
 *   8   8  u53 volume key
 *  16   8  u53 offset in the volume in bytes, a multiple of 4096
 *  24   8  u53 length in bytes, a multiple of 4096
 *  32   8  u53 epoch of the volume's owner
 *  40   8  u53 sequence within the epoch
 *  48      for writes: u32 crc32c of each 4 KiB block of the payload
 */
import { crc32c } from '@node-rs/crc32';
import { assert } from '../base/assert.ts';
import { WeftError } from '../base/errors.ts';
import { blockSizeBytes, KiB, maxTransferBytes } from '../base/limits.ts';
import { incarnationBytes, readUInt53, writeUInt53 } from './journal-file.ts';

export const journalBatchVersion = 2;
const magicNumber = 0x424a4657; // "WFJB" read as a little-endian u32
const fixedBytes = 64;
const recordBytes = 48;
const crcOffset = 8;
const kindCodes = { write: 1, zero: 2, stored: 3 } as const;
/** The first version that knows a kind. */
const kindVersions = { write: 1, zero: 1, stored: 2 } as const;

export type RecordKind = keyof typeof kindCodes;

/** Records in one batch: with the header they stay below the 1024 pieces one writev takes (IOV_MAX). */
export const maxBatchRecords = 1000;
/** Blocks of payload in one batch: those of the longest write, which may begin and end within a block. */
export const maxBatchBlocks = maxTransferBytes / blockSizeBytes + 1;
export const maxBatchHeaderBytes = batchHeaderBytes(maxBatchRecords, maxBatchBlocks);

/** What is appended. Offsets and lengths in bytes, multiples of the block (4 KiB). */
export interface JournalRecord {
  kind: RecordKind;
  volumeKey: number;
  offsetBytes: number;
  lengthBytes: number;
  epoch: number;
  sequence: number;
  /** `lengthBytes` long for a write; else null. */
  data: Buffer | null;
}

export interface BatchIdentity {
  incarnation: Buffer;
  fileNumber: number;
}

/** A record as read back: where things are, instead of the data. */
export interface DecodedRecord {
  kind: RecordKind;
  volumeKey: number;
  offsetBytes: number;
  lengthBytes: number;
  epoch: number;
  sequence: number;
  /** From the batch's first byte, in bytes: of the record's header, and of its payload (0 without one). */
  headerOffsetBytes: number;
  payloadOffsetBytes: number;
  /** One crc32c for each block of a write; else empty. */
  checksums: Uint32Array;
}

export interface DecodedBatch {
  batchNumber: number;
  durableBatch: number;
  headerBytes: number;
  totalBytes: number;
  records: DecodedRecord[];
}

/** Length of a header in bytes, for so many records with so many blocks of payload in all. */
export function batchHeaderBytes(recordCount: number, blockCount: number): number {
  const bytes = fixedBytes + recordCount * recordBytes + blockCount * 4;
  return Math.ceil(bytes / blockSizeBytes) * blockSizeBytes;
}

/** Computes the crc32c of each block of `data` into `checksums` from index `at`; returns the next index. */
export function checksumBlocks(data: Buffer, checksums: Uint32Array, at: number): number {
  let next = at;
  if (data.length < keptViewsFromBytes || data.byteOffset !== 0) {
    for (let offset = 0; offset < data.length; offset += blockSizeBytes) {
      checksums[next++] = crc32c(data.subarray(offset, offset + blockSizeBytes));
    }
    return next;
  }
  const blocks = blocksOf(data.buffer);
  for (let block = 0; block < data.length / blockSizeBytes; block += 1) {
    checksums[next++] = crc32c(blocks[block]!);
  }
  return next;
}

/** From this length on, in bytes, buffers come from a pool and come again. */
const keptViewsFromBytes = 64 * KiB;
/** Made anew, the 32 views of each write of 128 KiB are a tenth of what the garbage collector has to do. */
const blockViews = new WeakMap<ArrayBufferLike, Buffer[]>();

function blocksOf(memory: ArrayBufferLike): Buffer[] {
  let blocks = blockViews.get(memory);
  if (blocks === undefined) {
    const count = Math.floor(memory.byteLength / blockSizeBytes);
    blocks = Array.from({ length: count }, (_, block) =>
      Buffer.from(memory as ArrayBuffer, block * blockSizeBytes, blockSizeBytes),
    );
    blockViews.set(memory, blocks);
  }
  return blocks;
}

/**
 * Writes the header into `target`, which is as long as `batchHeaderBytes` says. `checksums` holds those of all the
 * writes, in order. Returns where in the header each record starts, for addresses of records without payload.
 */
export function encodeBatchHeader(
  target: Buffer,
  identity: BatchIdentity,
  batchNumber: number,
  durableBatch: number,
  records: readonly JournalRecord[],
  checksums: Uint32Array,
): number[] {
  let payload = target.length;
  let next = 0;
  let at = fixedBytes;
  let version: number = kindVersions.write;
  const starts: number[] = [];
  for (const record of records) {
    const write = record.kind === 'write';
    starts.push(at);
    version = Math.max(version, kindVersions[record.kind]);
    target.writeUInt32LE(kindCodes[record.kind], at);
    target.writeUInt32LE(write ? payload / blockSizeBytes : 0, at + 4);
    writeUInt53(target, record.volumeKey, at + 8);
    writeUInt53(target, record.offsetBytes, at + 16);
    writeUInt53(target, record.lengthBytes, at + 24);
    writeUInt53(target, record.epoch, at + 32);
    writeUInt53(target, record.sequence, at + 40);
    at += recordBytes;
    if (!write) continue;
    payload += record.lengthBytes;
    for (let left = record.lengthBytes; left > 0; left -= blockSizeBytes) {
      target.writeUInt32LE(checksums[next++]!, at);
      at += 4;
    }
  }
  assert(at <= target.length, 'the header has room for its records');
  target.fill(0, at);
  target.writeUInt32LE(magicNumber, 0);
  target.writeUInt32LE(version, 4);
  target.writeUInt32LE(0, crcOffset);
  target.writeUInt32LE(target.length, 12);
  identity.incarnation.copy(target, 16, 0, incarnationBytes);
  writeUInt53(target, identity.fileNumber, 32);
  writeUInt53(target, batchNumber, 40);
  writeUInt53(target, durableBatch, 48);
  target.writeUInt32LE(payload, 56);
  target.writeUInt32LE(records.length, 60);
  target.writeUInt32LE(crc32c(target), crcOffset);
  return starts;
}

/** Whether a header may start here: cheap, for looking at every page of a file. */
export function looksLikeBatch(bytes: Buffer, offset: number): boolean {
  return offset + blockSizeBytes <= bytes.length && bytes.readUInt32LE(offset) === magicNumber;
}

/**
 * Reads the header at `offset` of a file's bytes. Payloads are not looked at. Throws CORRUPT (damaged, or of another
 * use of the file) or FORMAT_TOO_NEW; `path` is for the message.
 */
export function decodeBatchHeader(
  bytes: Buffer,
  offset: number,
  identity: BatchIdentity,
  path: string,
): DecodedBatch {
  const corrupt = (what: string) =>
    new WeftError(
      'CORRUPT',
      `${path} at offset ${offset}: ${what}: restore the store from a replica or a backup`,
      {
        details: { path, offsetBytes: offset },
      },
    );
  if (!looksLikeBatch(bytes, offset)) throw corrupt('no header of a batch');
  const headerBytes = bytes.readUInt32LE(offset + 12);
  if (
    headerBytes < blockSizeBytes ||
    headerBytes % blockSizeBytes !== 0 ||
    headerBytes > bytes.length - offset
  ) {
    throw corrupt('the batch header has an impossible length');
  }
  const header = Buffer.from(bytes.subarray(offset, offset + headerBytes));
  const checksum = header.readUInt32LE(crcOffset);
  header.writeUInt32LE(0, crcOffset);
  if (crc32c(header) !== checksum) throw corrupt('the batch header fails its checksum');
  // First of all whose it is: what an earlier use left behind may be of any version.
  if (
    header.compare(identity.incarnation, 0, incarnationBytes, 16, 16 + incarnationBytes) !== 0 ||
    readUInt53(header, 32) !== identity.fileNumber
  ) {
    throw corrupt('the batch belongs to an earlier use of the file');
  }
  const version = header.readUInt32LE(4);
  if (version > journalBatchVersion) {
    throw new WeftError(
      'FORMAT_TOO_NEW',
      `${path} at offset ${offset} has batch version ${version}, this weftd knows up to ${journalBatchVersion}: ` +
        'run the newer weftd',
      { details: { path, offsetBytes: offset, version } },
    );
  }
  const totalBytes = header.readUInt32LE(56);
  const records = decodeRecords(header, version, totalBytes);
  if (records === null || totalBytes > bytes.length - offset)
    throw corrupt('the batch header contradicts itself');
  return {
    batchNumber: readUInt53(header, 40),
    durableBatch: readUInt53(header, 48),
    headerBytes,
    totalBytes,
    records,
  };
}

/** The records of a header whose checksum holds, or null when they do not fit into the batch. */
function decodeRecords(header: Buffer, version: number, totalBytes: number): DecodedRecord[] | null {
  const records: DecodedRecord[] = [];
  const count = header.readUInt32LE(60);
  let payload = header.length;
  let at = fixedBytes;
  for (let index = 0; index < count; index += 1) {
    if (at + recordBytes > header.length) return null;
    const kind = kindOf(header.readUInt32LE(at), version);
    const lengthBytes = readUInt53(header, at + 24);
    const write = kind === 'write';
    if (kind === null || lengthBytes % blockSizeBytes !== 0) return null;
    const blocks = write ? lengthBytes / blockSizeBytes : 0;
    const start = at;
    at += recordBytes + blocks * 4;
    if (at > header.length) return null;
    const checksums = new Uint32Array(blocks);
    for (let block = 0; block < blocks; block += 1) {
      checksums[block] = header.readUInt32LE(start + recordBytes + block * 4);
    }
    const payloadOffsetBytes = header.readUInt32LE(start + 4) * blockSizeBytes;
    if (payloadOffsetBytes !== (write ? payload : 0)) return null;
    payload += blocks * blockSizeBytes;
    records.push({
      kind,
      volumeKey: readUInt53(header, start + 8),
      offsetBytes: readUInt53(header, start + 16),
      lengthBytes,
      epoch: readUInt53(header, start + 32),
      sequence: readUInt53(header, start + 40),
      headerOffsetBytes: start,
      payloadOffsetBytes,
      checksums,
    });
  }
  return payload === totalBytes ? records : null;
}

/** Null when no batch of the version has such a record. */
function kindOf(code: number, version: number): RecordKind | null {
  for (const kind of ['write', 'zero', 'stored'] as const) {
    if (kindCodes[kind] === code) return kindVersions[kind] <= version ? kind : null;
  }
  return null;
}
