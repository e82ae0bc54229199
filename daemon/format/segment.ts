/**
 * A segment file: one header page, then groups of chunks, one after another. All numbers are little-endian. Everything
 * but the payloads is whole pages of 4096 bytes, so that groups can be written past the page cache.
 *
 * Segment header page (4096 bytes):
 *
 *     0     8  magic "WEFTSEG\n"
 *     8     4  version (2)
 *     12    4  segment number, the one in the file's name
 *     16  4076 zero
 *     4092  4  crc32c of bytes 0..4091
 *
 * Group: a header of whole pages, then the payloads, each from a multiple of 8 bytes on, then zeros up to a whole page.
 *
 *     0   4  magic "WFCG"
 *     4   4  version (1)
 *     8   4  crc32c of the header (all its pages) with this field zero
 *     12  4  bytes of the header
 *     16  4  bytes of the group, header included
 *     20  4  segment number
 *     24  4  chunks in the group
 *     28  4  zero
 *     32     one description of 64 bytes for each chunk; then zeros
 *
 * Description of a chunk:
 *
 *     0   8  chunk id
 *     8   4  where its payload starts, in bytes from the start of the group
 *     12  4  bytes of the payload before compression
 *     16  4  bytes of the payload as stored
 *     20  4  crc32c of the payload as stored
 *     24  1  codec: 0 raw; 1 lz4 and 2 zstd are reserved
 *     25  1  tier the chunk was written to: 0 hot, 1 cold
 *     26  2  zero
 *     28  4  key the payload is encrypted with; 0: it is not
 *     32 32  fingerprint; zeros: not fingerprinted
 *
 * The extent map has the place and the checksum of every chunk that is alive: reading one needs no header. The groups
 * tell what else is in a file, so that all of it can be checked.
 *
 * A file of the journal may be kept as a segment, under a second name: it has the layout of `journal-file.ts` and
 * `journal-batch.ts`, and the payloads that the map refers to are those of its records.
 *
 * Version 1 had a header of 96 bytes in front of each payload instead. Its payloads are read as those of version 2.
 */
import { crc32c } from '@node-rs/crc32';
import { WeftError } from '../base/errors.ts';

export const segmentHeaderBytes = 4096;
/** What version 1 had in front of each payload, in bytes. */
export const version1ChunkHeaderBytes = 96;
const segmentVersion = 2;
const segmentMagic = Buffer.from('WEFTSEG\n', 'latin1');
const groupVersion = 1;
/** "WFCG" read as a little-endian number. */
const groupMagic = 0x47434657;
const groupFixedBytes = 32;
const descriptionBytes = 64;
const groupCrcOffset = 8;
const pageBytes = 4096;
const high = 2 ** 32;

/** Raw is the only one this version reads and writes. */
export const codecRaw = 0;

export interface ChunkDescription {
  chunkId: number;
  /** From the start of the group, in bytes. */
  payloadOffsetBytes: number;
  rawBytes: number;
  storedBytes: number;
  /** crc32c of the payload as stored. */
  checksum: number;
  codec: number;
  tier: number;
}

export interface ChunkGroup {
  segmentNumber: number;
  headerBytes: number;
  groupBytes: number;
  chunks: ChunkDescription[];
}

/** What the payload of a chunk takes in its segment, in bytes. */
export function payloadRoomBytes(storedBytes: number): number {
  return (storedBytes + 7) & ~7;
}

/** Of a group with so many chunks, in bytes. */
export function groupHeaderBytes(chunkCount: number): number {
  return wholePages(groupFixedBytes + chunkCount * descriptionBytes);
}

/** Of a group, header and padding included, in bytes. @param payloadBytes `payloadRoomBytes` of all its chunks. */
export function groupBytes(chunkCount: number, payloadBytes: number): number {
  return groupHeaderBytes(chunkCount) + wholePages(payloadBytes);
}

export function encodeSegmentHeader(segmentNumber: number): Buffer {
  const page = Buffer.alloc(segmentHeaderBytes);
  segmentMagic.copy(page);
  page.writeUInt32LE(segmentVersion, 8);
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
  if (page.readUInt32LE(8) > segmentVersion) throw tooNew(name, page.readUInt32LE(8), segmentVersion);
  if (page.readUInt32LE(12) !== segmentNumber) {
    throw corrupt(`${name} says it is segment ${page.readUInt32LE(12)}`, segmentNumber);
  }
}

/** The pages in front of the payloads. `payloadOffsetBytes` of the chunks rises, from `groupHeaderBytes` on. */
export function encodeGroupHeader(
  segmentNumber: number,
  totalBytes: number,
  chunks: readonly ChunkDescription[],
): Buffer {
  const header = Buffer.alloc(groupHeaderBytes(chunks.length));
  header.writeUInt32LE(groupMagic, 0);
  header.writeUInt32LE(groupVersion, 4);
  header.writeUInt32LE(header.length, 12);
  header.writeUInt32LE(totalBytes, 16);
  header.writeUInt32LE(segmentNumber, 20);
  header.writeUInt32LE(chunks.length, 24);
  let at = groupFixedBytes;
  for (const chunk of chunks) {
    header.writeUInt32LE(chunk.chunkId % high, at);
    header.writeUInt32LE(Math.floor(chunk.chunkId / high), at + 4);
    header.writeUInt32LE(chunk.payloadOffsetBytes, at + 8);
    header.writeUInt32LE(chunk.rawBytes, at + 12);
    header.writeUInt32LE(chunk.storedBytes, at + 16);
    header.writeUInt32LE(chunk.checksum, at + 20);
    header[at + 24] = chunk.codec;
    header[at + 25] = chunk.tier;
    at += descriptionBytes;
  }
  header.writeUInt32LE(crc32c(header), groupCrcOffset);
  return header;
}

/** Reads the header at `at`; refuses what is wrong: CORRUPT, FORMAT_TOO_NEW. */
export function decodeGroupHeader(source: Buffer, at: number): ChunkGroup {
  const fault = (what: string) => corrupt(`the group of chunks at byte ${at} ${what}`, -1);
  if (source.length < at + groupFixedBytes || source.readUInt32LE(at) !== groupMagic) {
    throw fault('is not there');
  }
  const headerBytes = source.readUInt32LE(at + 12);
  const count = source.readUInt32LE(at + 24);
  if (headerBytes % pageBytes !== 0 || headerBytes === 0 || at + headerBytes > source.length) {
    throw fault('is cut off');
  }
  const header = Buffer.from(source.subarray(at, at + headerBytes));
  const checksum = header.readUInt32LE(groupCrcOffset);
  header.writeUInt32LE(0, groupCrcOffset);
  if (crc32c(header) !== checksum) throw fault('fails its checksum');
  const version = header.readUInt32LE(4);
  if (version !== groupVersion) throw tooNew(`the group of chunks at byte ${at}`, version, groupVersion);
  if (headerBytes !== groupHeaderBytes(count)) throw fault('says less, or more, than it has chunks');
  const chunks: ChunkDescription[] = [];
  for (let index = 0; index < count; index++) {
    const from = groupFixedBytes + index * descriptionBytes;
    chunks.push({
      chunkId: header.readUInt32LE(from) + header.readUInt32LE(from + 4) * high,
      payloadOffsetBytes: header.readUInt32LE(from + 8),
      rawBytes: header.readUInt32LE(from + 12),
      storedBytes: header.readUInt32LE(from + 16),
      checksum: header.readUInt32LE(from + 20),
      codec: header[from + 24]!,
      tier: header[from + 25]!,
    });
  }
  return {
    segmentNumber: header.readUInt32LE(20),
    headerBytes,
    groupBytes: header.readUInt32LE(16),
    chunks,
  };
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / pageBytes) * pageBytes;
}

function corrupt(message: string, segmentNumber: number): WeftError {
  return new WeftError('CORRUPT', message, segmentNumber < 0 ? {} : { details: { segmentNumber } });
}

function tooNew(what: string, version: number, known: number): WeftError {
  return new WeftError(
    'FORMAT_TOO_NEW',
    `${what} has format version ${version}; this Weft reads ${known}. Start the version that wrote it.`,
  );
}
