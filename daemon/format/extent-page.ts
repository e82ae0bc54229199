/**
 * The page of one extent: the ids of its chunks, packed. All numbers are little-endian.
 *
 *     0   4  magic "WFEP"
 *     4   1  version (1)
 *     5   1  zero
 *     6   2  how many chunk ids follow (64 to 1024: an extent of 4 MiB in chunks of 64 to 4 KiB)
 *     8   8  epoch    \ the newest write in the extent, for resync between replicas;
 *     16  8  sequence / zero where nothing is replicated
 *     24  4  zero
 *     28  4  crc32c of bytes 0..27 and of the chunk ids
 *     32  8  each: chunk id; 0 where nothing is stored
 */
import { crc32c } from '@node-rs/crc32';
import { assert } from '../base/assert.ts';
import { WeftError } from '../base/errors.ts';

const formatVersion = 1;
const headerBytes = 32;
/** "WFEP" read as a little-endian number. */
const magic = 0x50454657;
const high = 2 ** 32;

export function encodeExtentPage(chunkIds: ArrayLike<number>): Buffer {
  assert(chunkIds.length > 0 && chunkIds.length <= 0xffff, 'a page holds 1 to 65535 chunk ids');
  const page = Buffer.alloc(headerBytes + 8 * chunkIds.length);
  page.writeUInt32LE(magic, 0);
  page[4] = formatVersion;
  page.writeUInt16LE(chunkIds.length, 6);
  for (let slot = 0, at = headerBytes; slot < chunkIds.length; slot++, at += 8) {
    const chunkId = chunkIds[slot]!;
    if (chunkId === 0) continue;
    page.writeUInt32LE(chunkId % high, at);
    page.writeUInt32LE(Math.floor(chunkId / high), at + 4);
  }
  page.writeUInt32LE(checksum(page), 28);
  return page;
}

/** The chunk ids of a page; refuses what is wrong: CORRUPT, FORMAT_TOO_NEW. */
export function decodeExtentPage(page: Buffer): Float64Array {
  if (page.length < headerBytes) throw corrupt('is shorter than its header');
  if (page.readUInt32LE(0) !== magic) throw corrupt('is not an extent page');
  const count = page.readUInt16LE(6);
  if (page[4] === formatVersion && page.length !== headerBytes + 8 * count)
    throw corrupt('has a wrong length');
  if (page.readUInt32LE(28) !== checksum(page)) throw corrupt('fails its checksum');
  if (page[4] !== formatVersion) {
    const versions = `has format version ${page[4]}; this Weft reads ${formatVersion}`;
    throw new WeftError('FORMAT_TOO_NEW', `the page ${versions}. Start the version that wrote it.`);
  }
  const chunkIds = new Float64Array(count);
  for (let slot = 0, at = headerBytes; slot < count; slot++, at += 8) {
    chunkIds[slot] = page.readUInt32LE(at) + page.readUInt32LE(at + 4) * high;
  }
  return chunkIds;
}

function checksum(page: Buffer): number {
  return crc32c(page.subarray(headerBytes), crc32c(page.subarray(0, 28)));
}

function corrupt(what: string): WeftError {
  return new WeftError('CORRUPT', `the page ${what}`);
}
