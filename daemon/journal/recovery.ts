/**
 * What the journal contains when a store is opened.
 *
 * Files are read in the order of their numbers, batches in order. The first batch that is not whole ends what is
 * recovered when nothing later proves it was durable (`durableBatch` in a later batch or file header): then it was
 * never promised, and neither was anything after it. When it was promised:
 *  - a header that cannot be read means records of unknown blocks are lost: CORRUPT, nothing is served;
 *  - a payload block that fails its checksum is kept with that checksum: reading it gives CORRUPT, the rest is served.
 * What was cut off is taken away from the last file down, so that a crash in between leads to the same answer.
 *
 * What is taken in is made durable. A sync alone does not do that: one that failed in an earlier life of the daemon may
 * have left pages the system takes for written. So batches nothing proves durable are written once more, as they are.
 */
import { crc32c } from '@node-rs/crc32';
import { WeftError } from '../base/errors.ts';
import { blockSizeBytes, MiB } from '../base/limits.ts';
import type { Disk, DiskFile } from '../env/disk.ts';
import { type DecodedBatch, decodeBatchHeader, looksLikeBatch } from '../format/journal-batch.ts';
import {
  decodeJournalFileHeader,
  type JournalFileHeader,
  journalFileHeaderBytes,
  notBegun,
} from '../format/journal-file.ts';
import type { BlockIndex } from './block-index.ts';
import type { FilePool } from './file-pool.ts';
import { JournalFile, readFromFile, syncFile, writeToFile } from './journal-file.ts';

/** Batches are written once more in pieces of this size, in bytes. */
const rewriteBytes = MiB;

export interface RecoveryEnvironment {
  disk: Disk;
  pool: FilePool;
  index: BlockIndex;
  keepVolume: (volumeKey: number) => boolean;
  fileSizeBytes: number;
  log: (message: string, facts: Record<string, unknown>) => void;
}

export interface Recovered {
  /** Those with records, oldest first, all durable. */
  files: JournalFile[];
  nextFileNumber: number;
  nextBatch: number;
  /** An address is file number × stride + offset in the file, in bytes. */
  strideBytes: number;
}

interface OpenFile {
  path: string;
  header: JournalFileHeader;
  file: JournalFile;
}

export async function recoverJournal(env: RecoveryEnvironment): Promise<Recovered> {
  const numbers = await env.pool.scan();
  const opened: OpenFile[] = [];
  try {
    for (const number of numbers) opened.push(await openNumbered(env, number));
    checkOrder(opened);
    const recovery = new Recovery(env, opened);
    return await recovery.run();
  } catch (error) {
    for (const each of opened) await each.file.handle.close();
    throw error;
  }
}

async function openNumbered(env: RecoveryEnvironment, fileNumber: number): Promise<OpenFile> {
  const path = env.pool.path(fileNumber);
  const handle: DiskFile = await env.disk.open(path, 'write');
  try {
    const page = Buffer.alloc(journalFileHeaderBytes);
    const bytesRead = await readFromFile(handle, page, 0);
    const header = decodeJournalFileHeader(page.subarray(0, bytesRead), path);
    if (header.fileNumber !== fileNumber) {
      throw new WeftError(
        'CORRUPT',
        `${path} says it is journal file ${header.fileNumber}: give it its name back`,
        {
          details: { path, offsetBytes: 0 },
        },
      );
    }
    return {
      path,
      header,
      file: new JournalFile({
        fileNumber,
        incarnation: header.incarnation,
        sizeBytes: header.fileSizeBytes,
        handle,
        begun: true,
        sparse: false,
        own: false,
      }),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function checkOrder(opened: readonly OpenFile[]): void {
  for (let index = 1; index < opened.length; index += 1) {
    const before = opened[index - 1]!;
    const here = opened[index]!;
    const follows = here.header.fileNumber === before.header.fileNumber + 1;
    const isBegun = here.header.firstBatch !== notBegun;
    if (follows && (!isBegun || here.header.firstBatch >= before.header.firstBatch)) continue;
    throw new WeftError(
      'CORRUPT',
      `${here.path} at offset 0 does not follow ${before.path}: a journal file is missing; ` +
        'restore it, or restore the store from a replica or a backup',
      { details: { path: here.path, offsetBytes: 0 } },
    );
  }
}

class Recovery {
  readonly #env: RecoveryEnvironment;
  readonly #opened: OpenFile[];
  readonly #strideBytes: number;
  readonly #buffer: Buffer;
  /** Of the file being scanned. */
  #bytes: Buffer = Buffer.alloc(0);
  #nextBatch = 1;
  /** The highest durable batch anything not scanned yet speaks of; null until somebody had to know. */
  #provenDurable: number | null = null;
  /** Batches taken in that nothing scanned so far proves durable, oldest first. */
  #unproven: { file: JournalFile; batchNumber: number; offset: number }[] = [];

  constructor(env: RecoveryEnvironment, opened: OpenFile[]) {
    this.#env = env;
    this.#opened = opened;
    // A file is read as a whole: a batch costs no reads of its own, and looking at every page is cheap.
    this.#strideBytes = Math.max(env.fileSizeBytes, ...opened.map((each) => each.header.fileSizeBytes));
    this.#buffer = opened.length > 0 ? Buffer.allocUnsafe(this.#strideBytes) : Buffer.alloc(0);
  }

  async run(): Promise<Recovered> {
    let whole = 0;
    for (let index = 0; index < this.#opened.length; index += 1) {
      const { firstBatch, durableBatch } = this.#opened[index]!.header;
      if (firstBatch === notBegun) {
        if (index === 0) this.#nextBatch = durableBatch + 1;
        break;
      }
      this.#bytes = await load(this.#opened[index]!, this.#buffer);
      if (index === 0) this.#nextBatch = firstBatch;
      this.#proves(durableBatch);
      whole = index + 1;
      if (!(await this.#scanFile(index))) break;
    }
    const lastNumber = this.#opened.at(-1)?.file.fileNumber ?? 0;
    // Files without records, at the end, are of no use to anybody: starts without writes do not fill the journal.
    while (whole > 0 && this.#opened[whole - 1]!.file.records.count === 0) whole -= 1;
    while (this.#opened.length > whole) await this.#discardLast();
    const files = this.#opened.map((each) => each.file);
    for (const file of files) {
      await this.#writeUnproven(file);
      await syncFile(file.handle);
      file.syncedBatch = file.lastBatch;
    }
    return {
      files,
      nextFileNumber: (files.at(-1)?.fileNumber ?? lastNumber) + 1,
      // The batches of files that went leave no gap: the next file continues the last one that is there.
      nextBatch: files.length > 0 ? files.at(-1)!.lastBatch + 1 : this.#nextBatch,
      strideBytes: this.#strideBytes,
    };
  }

  /** Takes in the batches of a file. Returns false when the torn tail was met. */
  async #scanFile(index: number): Promise<boolean> {
    const { path, file } = this.#opened[index]!;
    const next = this.#opened[index + 1]?.header.firstBatch ?? notBegun;
    const endBatch = next === notBegun ? Number.POSITIVE_INFINITY : next;
    while (this.#nextBatch < endBatch) {
      const batch = this.#decode(index, file.endBytes);
      if (batch === null) {
        if ((await this.#durableFrom(index)) >= this.#nextBatch) {
          throw new WeftError(
            'CORRUPT',
            `${path} at offset ${file.endBytes}: batch ${this.#nextBatch} was durable and cannot be read any more: ` +
              'restore the store from a replica or a backup',
            { details: { path, offsetBytes: file.endBytes, batchNumber: this.#nextBatch } },
          );
        }
        return false;
      }
      if (!this.#payloadsHold(batch, file.endBytes)) {
        if ((await this.#durableFrom(index)) < this.#nextBatch) return false;
        this.#env.log('a durable batch of the journal has damaged data; its good blocks are served', {
          path,
          offsetBytes: file.endBytes,
          batchNumber: batch.batchNumber,
        });
      }
      this.#take(file, batch);
    }
    return true;
  }

  /** The batch expected at the offset, or null. */
  #decode(index: number, offset: number): DecodedBatch | null {
    const batch = this.#tryDecode(index, this.#bytes, offset);
    return batch !== null && batch.batchNumber === this.#nextBatch ? batch : null;
  }

  #tryDecode(index: number, bytes: Buffer, offset: number): DecodedBatch | null {
    if (!looksLikeBatch(bytes, offset)) return null;
    const { path, header } = this.#opened[index]!;
    try {
      return decodeBatchHeader(bytes, offset, header, path);
    } catch (error) {
      if (error instanceof WeftError && error.code === 'CORRUPT') return null;
      throw error;
    }
  }

  #payloadsHold(batch: DecodedBatch, start: number): boolean {
    for (const record of batch.records) {
      for (let block = 0; block < record.checksums.length; block += 1) {
        const at = start + record.payloadOffsetBytes + block * blockSizeBytes;
        if (crc32c(this.#bytes.subarray(at, at + blockSizeBytes)) !== record.checksums[block]) return false;
      }
    }
    return true;
  }

  /** Writes the tail of the file that may not be on the disk, whatever the system believes. The same bytes: a crash harms nothing. */
  async #writeUnproven(file: JournalFile): Promise<void> {
    const first = this.#unproven.find((each) => each.file === file);
    if (first === undefined) return;
    // The header of a file may have been written together with its first batch.
    const start = first.offset === journalFileHeaderBytes ? 0 : first.offset;
    for (let at = start; at < file.endBytes; at += rewriteBytes) {
      const bytes = this.#buffer.subarray(0, Math.min(rewriteBytes, file.endBytes - at));
      await readFromFile(file.handle, bytes, at);
      await writeToFile(file.handle, [bytes], at);
    }
  }

  #proves(durableBatch: number): void {
    let proven = 0;
    while (proven < this.#unproven.length && this.#unproven[proven]!.batchNumber <= durableBatch) proven += 1;
    if (proven > 0) this.#unproven.splice(0, proven);
  }

  /** Into the index and the file's list of records. */
  #take(file: JournalFile, batch: DecodedBatch): void {
    this.#proves(batch.durableBatch);
    this.#unproven.push({ file, batchNumber: batch.batchNumber, offset: file.endBytes });
    const start = file.fileNumber * this.#strideBytes + file.endBytes;
    for (const record of batch.records) {
      if (!this.#env.keepVolume(record.volumeKey)) continue;
      const { volumeKey, offsetBytes, lengthBytes, checksums } = record;
      const { kind } = record;
      const write = kind === 'write';
      const address = start + (write ? record.payloadOffsetBytes : record.headerOffsetBytes);
      const firstBlock = offsetBytes / blockSizeBytes;
      const count = lengthBytes / blockSizeBytes;
      if (write) this.#env.index.write(volumeKey, firstBlock, count, address, checksums, 0);
      else if (kind === 'zero') this.#env.index.zero(volumeKey, firstBlock, count, address);
      else this.#env.index.stored(volumeKey, firstBlock, count);
      file.records.add(kind, volumeKey, offsetBytes, lengthBytes, address);
    }
    file.endBytes += batch.totalBytes;
    file.lastBatch = batch.batchNumber;
    this.#nextBatch = batch.batchNumber + 1;
  }

  /** The highest batch proven durable by what follows the scanned part: the rest of this file and later files. */
  async #durableFrom(index: number): Promise<number> {
    if (this.#provenDurable !== null) return this.#provenDurable;
    let proven = this.#durableIn(index, this.#bytes, this.#opened[index]!.file.endBytes);
    if (index + 1 < this.#opened.length) {
      const buffer = Buffer.allocUnsafe(this.#strideBytes);
      for (let later = index + 1; later < this.#opened.length; later += 1) {
        const bytes = await load(this.#opened[later]!, buffer);
        const inBatches = this.#durableIn(later, bytes, journalFileHeaderBytes);
        proven = Math.max(proven, this.#opened[later]!.header.durableBatch, inBatches);
      }
    }
    this.#provenDurable = proven;
    return proven;
  }

  #durableIn(index: number, bytes: Buffer, from: number): number {
    let proven = 0;
    for (let offset = from; offset < bytes.length; offset += blockSizeBytes) {
      const batch = this.#tryDecode(index, bytes, offset);
      if (batch !== null) proven = Math.max(proven, batch.durableBatch);
    }
    return proven;
  }

  async #discardLast(): Promise<void> {
    const { file, header } = this.#opened.at(-1)!;
    // One that was begun may have a second name by now.
    await this.#env.pool.retire(file.fileNumber, file.sizeBytes, header.firstBatch === notBegun);
    this.#opened.pop();
    await file.handle.close();
  }
}

/** The whole file; what is missing at its end reads as zeros, which is no batch. */
async function load(opened: OpenFile, buffer: Buffer): Promise<Buffer> {
  const bytes = buffer.subarray(0, opened.header.fileSizeBytes);
  const bytesRead = await readFromFile(opened.file.handle, bytes, 0);
  bytes.fill(0, bytesRead);
  return bytes;
}
