/**
 * The first 4 KiB of a journal file. A file gets its numbered name only after this page is durable, so a numbered
 * file whose page cannot be read is damage, never a crash. Integers are little-endian; u53 is a u64 below 2^53.
 *
 * A file may be made ready before anybody knows with which batch it begins: its page then says 0, and is written anew
 * together with that batch. Pages differ in the first sector only, so a crash leaves one of the two. Where it leaves
 * the first, nothing in the file was ever promised to be durable.
 *
 *   0   8  magic "WEFTJRNL"
 *   8   4  u32 version, 1
 *  12   4  u32 crc32c of the 4096 bytes with this field 0
 *  16  16  incarnation: random, new for every file; batches repeat it, so content of an earlier use is never read
 *  32   8  u53 file number, as in the file's name
 *  40   8  u53 number of the first batch in this file; 0: not begun
 *  48   8  u53 durable batch: every batch up to this number was durable when the file was made
 *  56   8  u53 file size in bytes
 *  64      zeros
 */
import { crc32c } from '@node-rs/crc32';
import { WeftError } from '../base/errors.ts';
import { blockSizeBytes } from '../base/limits.ts';

export const journalFileHeaderBytes = blockSizeBytes;
export const journalFileVersion = 1;
export const incarnationBytes = 16;
/** Stands for the first batch of a file that is ready and not begun. */
export const notBegun = 0;
const magic = Buffer.from('WEFTJRNL', 'latin1');
const crcOffset = 12;

export interface JournalFileHeader {
  incarnation: Buffer;
  fileNumber: number;
  firstBatch: number;
  durableBatch: number;
  fileSizeBytes: number;
}

export function encodeJournalFileHeader(header: JournalFileHeader): Buffer {
  const page = Buffer.alloc(journalFileHeaderBytes);
  magic.copy(page, 0);
  page.writeUInt32LE(journalFileVersion, 8);
  header.incarnation.copy(page, 16, 0, incarnationBytes);
  writeUInt53(page, header.fileNumber, 32);
  writeUInt53(page, header.firstBatch, 40);
  writeUInt53(page, header.durableBatch, 48);
  writeUInt53(page, header.fileSizeBytes, 56);
  page.writeUInt32LE(crc32c(page), crcOffset);
  return page;
}

export function isJournalFile(bytes: Buffer): boolean {
  return bytes.length >= magic.length && bytes.compare(magic, 0, magic.length, 0, magic.length) === 0;
}

/** Throws CORRUPT or FORMAT_TOO_NEW; `path` is for the message. */
export function decodeJournalFileHeader(bytes: Buffer, path: string): JournalFileHeader {
  const corrupt = (what: string) =>
    new WeftError('CORRUPT', `${path} at offset 0: ${what}: restore the store from a replica or a backup`, {
      details: { path, offsetBytes: 0 },
    });
  if (bytes.length < journalFileHeaderBytes) throw corrupt('the journal file is cut short');
  if (!isJournalFile(bytes)) throw corrupt('no header of a journal file');
  const page = Buffer.from(bytes.subarray(0, journalFileHeaderBytes));
  page.writeUInt32LE(0, crcOffset);
  if (crc32c(page) !== bytes.readUInt32LE(crcOffset)) throw corrupt('the file header fails its checksum');
  const version = bytes.readUInt32LE(8);
  if (version > journalFileVersion) {
    throw new WeftError(
      'FORMAT_TOO_NEW',
      `${path} has format version ${version}, this weftd knows up to ${journalFileVersion}: run the newer weftd`,
      { details: { path, version } },
    );
  }
  return {
    incarnation: Buffer.from(bytes.subarray(16, 16 + incarnationBytes)),
    fileNumber: readUInt53(bytes, 32),
    firstBatch: readUInt53(bytes, 40),
    durableBatch: readUInt53(bytes, 48),
    fileSizeBytes: readUInt53(bytes, 56),
  };
}

export function writeUInt53(target: Buffer, value: number, offset: number): void {
  target.writeUInt32LE(value % 0x1_0000_0000, offset);
  target.writeUInt32LE(Math.floor(value / 0x1_0000_0000), offset + 4);
}

export function readUInt53(source: Buffer, offset: number): number {
  return source.readUInt32LE(offset + 4) * 0x1_0000_0000 + source.readUInt32LE(offset);
}
