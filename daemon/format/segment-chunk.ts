/**
 * A segment file: one header page, then chunk records, one after another. All numbers are little-endian.
 *
 * Segment header page (4096 bytes):
 *
 *     0     8  magic "WEFTSEG\n"
 *     8     4  version (1)
 *     12    4  segment number, the one in the file's name
 *     16  4076 zero
 *     4092  4  crc32c of bytes 0..4091
 *
 * Chunk record: a header of 96 bytes, the payload as stored, zeros up to a multiple of 8 bytes.
 *
 *     0   4  magic "WFCK"
 *     4   1  version (1)
 *     5   1  codec: 0 raw; 1 lz4 and 2 zstd are reserved
 *     6   1  tier the chunk was written to: 0 hot, 1 cold
 *     7   1  zero
 *     8   8  chunk id
 *     16  8  volume key \ where the chunk was first written: a hint for salvage,
 *     24  8  chunk index / the truth is the extent map
 *     32  4  bytes of the payload before compression
 *     36  4  bytes of the payload as stored
 *     40  4  crc32c of the payload as stored
 *     44  4  segment number
 *     48 32  fingerprint; zeros: not fingerprinted
 *     80  8  epoch of the slice; zero where nothing is replicated
 *     88  4  zero
 *     92  4  crc32c of bytes 0..91
 */
import { crc32c } from '@node-rs/crc32';
import { WeftError } from '../base/errors.ts';

export const segmentHeaderBytes = 4096;
export const chunkHeaderBytes = 96;
const formatVersion = 1;
const segmentMagic = Buffer.from('WEFTSEG\n', 'latin1');
/** "WFCK" read as a little-endian number. */
const chunkMagic = 0x4b434657;
const high = 2 ** 32;

/** Raw is the only one this version reads and writes. */
export const codecRaw = 0;

export interface ChunkHeader {
  chunkId: number;
  volumeKey: number;
  chunkIndex: number;
  codec: number;
  tier: number;
  rawBytes: number;
  storedBytes: number;
  /** crc32c of the payload as stored. */
  checksum: number;
  segmentNumber: number;
}

/** What a chunk takes in its segment: header, payload and padding, in bytes. */
export function chunkRecordBytes(storedBytes: number): number {
  return chunkHeaderBytes + ((storedBytes + 7) & ~7);
}

export function encodeSegmentHeader(segmentNumber: number): Buffer {
  const page = Buffer.alloc(segmentHeaderBytes);
  segmentMagic.copy(page);
  page.writeUInt32LE(formatVersion, 8);
  page.writeUInt32LE(segmentNumber, 12);
  page.writeUInt32LE(crc32c(page.subarray(0, segmentHeaderBytes - 4)), segmentHeaderBytes - 4);
  return page;
}

/** Refuses a page that is not the header of this segment: CORRUPT, FORMAT_TOO_NEW. */
export function checkSegmentHeader(page: Buffer, segmentNumber: number): void {
  const name = `segment ${segmentNumber}`;
  if (page.length < segmentHeaderBytes) throw corrupt(`${name} is shorter than its header`, segmentNumber);
  if (!segmentMagic.equals(page.subarray(0, 8)))
    throw corrupt(`${name} has no segment header`, segmentNumber);
  const sum = crc32c(page.subarray(0, segmentHeaderBytes - 4));
  if (sum !== page.readUInt32LE(segmentHeaderBytes - 4)) {
    throw corrupt(`the header of ${name} fails its checksum`, segmentNumber);
  }
  if (page.readUInt32LE(8) !== formatVersion) throw tooNew(name, page.readUInt32LE(8));
  if (page.readUInt32LE(12) !== segmentNumber) {
    throw corrupt(`${name} says it is segment ${page.readUInt32LE(12)}`, segmentNumber);
  }
}

/** Writes the 96 bytes at `at`. On the path of every chunk: two plain 32-bit writes beat one BigInt. */
export function encodeChunkHeader(target: Buffer, at: number, header: ChunkHeader): void {
  target.fill(0, at, at + chunkHeaderBytes);
  target.writeUInt32LE(chunkMagic, at);
  target[at + 4] = formatVersion;
  target[at + 5] = header.codec;
  target[at + 6] = header.tier;
  writeUInt64(target, at + 8, header.chunkId);
  writeUInt64(target, at + 16, header.volumeKey);
  writeUInt64(target, at + 24, header.chunkIndex);
  target.writeUInt32LE(header.rawBytes, at + 32);
  target.writeUInt32LE(header.storedBytes, at + 36);
  target.writeUInt32LE(header.checksum, at + 40);
  target.writeUInt32LE(header.segmentNumber, at + 44);
  target.writeUInt32LE(crc32c(target.subarray(at, at + 92)), at + 92);
}

/** Reads the header at `at`; refuses what is wrong: CORRUPT, FORMAT_TOO_NEW. */
export function decodeChunkHeader(source: Buffer, at: number): ChunkHeader {
  const fault = chunkHeaderFault(source, at);
  if (fault !== null) throw corrupt(fault, -1);
  const version = source[at + 4]!;
  if (version !== formatVersion) throw tooNew('the chunk', version);
  return {
    codec: source[at + 5]!,
    tier: source[at + 6]!,
    chunkId: readUInt64(source, at + 8),
    volumeKey: readUInt64(source, at + 16),
    chunkIndex: readUInt64(source, at + 24),
    rawBytes: source.readUInt32LE(at + 32),
    storedBytes: source.readUInt32LE(at + 36),
    checksum: source.readUInt32LE(at + 40),
    segmentNumber: source.readUInt32LE(at + 44),
  };
}

/**
 * Whether the record at `at` is the chunk the map means, whole and unharmed: null, or what is wrong with it.
 * On the path of every read: it allocates nothing.
 */
export function chunkFault(
  source: Buffer,
  at: number,
  chunkId: number,
  storedBytes: number,
  checksum: number,
): string | null {
  const fault = misplacedFault(source, at, chunkId, storedBytes, checksum);
  if (fault !== null) return fault;
  const start = at + chunkHeaderBytes;
  if (start + storedBytes > source.length) return 'it is cut off';
  if (crc32c(source.subarray(start, start + storedBytes)) !== checksum) return 'its data fails the checksum';
  return null;
}

/** Whether the header at `at` is that of the chunk the map means. */
export function misplacedFault(
  source: Buffer,
  at: number,
  chunkId: number,
  storedBytes: number,
  checksum: number,
): string | null {
  const fault = chunkHeaderFault(source, at);
  if (fault !== null) return fault;
  if (source[at + 4] !== formatVersion) return `the chunk has version ${source[at + 4]}`;
  if (readUInt64(source, at + 8) !== chunkId) return 'another chunk lies in its place';
  if (source.readUInt32LE(at + 36) !== storedBytes) return 'its length differs from the map';
  if (source.readUInt32LE(at + 40) !== checksum) return 'its checksum differs from the map';
  return null;
}

function chunkHeaderFault(source: Buffer, at: number): string | null {
  if (at + chunkHeaderBytes > source.length) return 'its header is cut off';
  if (source.readUInt32LE(at) !== chunkMagic) return 'there is no chunk header';
  if (crc32c(source.subarray(at, at + 92)) !== source.readUInt32LE(at + 92)) {
    return 'its header fails the checksum';
  }
  return null;
}

function writeUInt64(target: Buffer, at: number, value: number): void {
  target.writeUInt32LE(value % high, at);
  target.writeUInt32LE(Math.floor(value / high), at + 4);
}

function readUInt64(source: Buffer, at: number): number {
  return source.readUInt32LE(at) + source.readUInt32LE(at + 4) * high;
}

function corrupt(message: string, segmentNumber: number): WeftError {
  return new WeftError('CORRUPT', message, segmentNumber < 0 ? {} : { details: { segmentNumber } });
}

function tooNew(what: string, version: number): WeftError {
  return new WeftError(
    'FORMAT_TOO_NEW',
    `${what} has format version ${version}; this Weft reads ${formatVersion}. ` +
      'Start the version that wrote it.',
  );
}
