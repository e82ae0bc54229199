/**
 * The files the journal lives in: numbered ones (`0000000042.wfj`) that are replayed at the next start, and free ones
 * (`free-0000000007.wfj`) that are not, whatever they contain.
 *
 * Every file is written full of zeros when it is made, so that fdatasync of a batch changes no metadata. Free files
 * are used again, last freed first: their pages are in the page cache, and fresh ones are expensive on virtual
 * machines. A file gets its numbered name only after its header is durable, and loses it durably before it is used
 * again: names and directory are what recovery relies on.
 *
 * Files that are kept by others (`replica/adoption.ts`) do not come back. Where large writes stream in and take one file
 * after another, the next one is made sparse (`new-0000000008.wfj`): zeros under data that will stay would be written
 * for nothing, and few large batches can bear what their metadata costs. Some free files stay in reserve all the same: on
 * a full disk the journal has to go on, with unmaps above all.
 */
import { assert } from '../base/assert.ts';
import { asWeftError, WeftError } from '../base/errors.ts';
import { MiB } from '../base/limits.ts';
import type { Disk, DiskFile } from '../env/disk.ts';
import type { Random } from '../env/random.ts';
import { encodeJournalFileHeader, incarnationBytes, notBegun } from '../format/journal-file.ts';
import { JournalFile, syncFile, writeToFile } from './journal-file.ts';

/** Zeros are written in pieces of this size, in bytes: long enough for full speed, short enough to keep around. */
const zeroPieceBytes = MiB;
let zeros: Buffer | null = null;

const numberedName = /^(\d{10})\.wfj$/;
const freeName = /^free-(\d{10})\.wfj$/;
/** Not numbered yet, and of no use after a crash: nobody knows how much of it has room on the disk. */
const newName = /^new-(\d{10})\.wfj$/;
/**
 * Sparse files are made while the disk has room for as many, in bytes: on a fuller one a batch might find none, and the
 * drain needs the journal to go on.
 */
const sparseFromFreeFiles = 32;

export interface FilePoolEnvironment {
  disk: Disk;
  random: Random;
}

/** Free files that are not given away while others can be made; with fewer files in all than twice this, none is. */
const reservedFiles = 2;

/** A file without a number. */
interface BlankFile {
  name: string;
  sparse: boolean;
}

export class FilePool {
  readonly #disk: Disk;
  readonly #random: Random;
  readonly #directory: string;
  readonly #fileSizeBytes: number;
  readonly #maxFiles: number;
  /** Names of free files; the last one is used next. */
  readonly #free: string[] = [];
  #nextFreeNumber = 1;
  #numberedCount = 0;
  #preparing: Promise<void> | null = null;
  /** Files that are being made or named: on neither count, for the moment. */
  #betweenNames = 0;
  /** The next numbered file, waiting for its first batch. */
  #ready: JournalFile | null = null;
  /** What befell the preparation: nothing more can be promised. */
  #failure: WeftError | null = null;

  constructor(env: FilePoolEnvironment, directory: string, fileSizeBytes: number, maxFiles: number) {
    this.#disk = env.disk;
    this.#random = env.random;
    this.#directory = directory;
    this.#fileSizeBytes = fileSizeBytes;
    this.#maxFiles = maxFiles;
  }

  path(fileNumber: number): string {
    return `${this.#directory}/${String(fileNumber).padStart(10, '0')}.wfj`;
  }

  /** Takes stock: returns the numbers of the numbered files, in order. Free files of another size go. */
  async scan(): Promise<number[]> {
    await this.#disk.makeDirectory(this.#directory);
    const numbers: number[] = [];
    for (const name of await this.#disk.list(this.#directory)) {
      const numbered = numberedName.exec(name);
      const free = freeName.exec(name);
      if (numbered) numbers.push(Number(numbered[1]));
      if (newName.test(name)) await this.#disk.remove(`${this.#directory}/${name}`);
      if (!free) continue;
      this.#nextFreeNumber = Math.max(this.#nextFreeNumber, Number(free[1]) + 1);
      if (await this.#hasRightSize(`${this.#directory}/${name}`)) this.#free.push(name);
      else await this.#disk.remove(`${this.#directory}/${name}`);
    }
    this.#numberedCount = numbers.length;
    while (this.#free.length > 0 && this.#total() > this.#maxFiles) await this.#removeFree();
    return numbers.sort((a, b) => a - b);
  }

  /** There are more files than the capacity allows, for the drain's sake: see `Journal.rewrite`. */
  get overfull(): boolean {
    return this.#total() > this.#maxFiles;
  }

  /** Whether a file with room of its own may be given away: others are in reserve. */
  get canSpare(): boolean {
    return this.#free.length >= reservedFiles;
  }

  /** Whether `activate` would find a file without going over the capacity. */
  hasRoom(): boolean {
    if (this.#free.length > 0 || this.#ready !== null || this.#preparing !== null) return true;
    return this.#total() < this.#maxFiles;
  }

  /**
   * Makes the next numbered file ready in the background: neither zeros nor a commit of the file system's own journal,
   * which may take tens of milliseconds while much is written, shall keep writers waiting.
   * @param streaming large writes fill the file before it.
   */
  prepareAhead(fileNumber: number, durableBatch: number, streaming: boolean): void {
    if (this.#preparing || this.#ready || (this.#free.length === 0 && this.#total() >= this.#maxFiles))
      return;
    this.#preparing = this.#prepare(fileNumber, durableBatch, streaming).finally(() => {
      this.#preparing = null;
    });
  }

  async #prepare(fileNumber: number, durableBatch: number, streaming: boolean): Promise<void> {
    let blank: BlankFile;
    try {
      blank = await this.#takeBlank(streaming);
    } catch {
      // Without room the journal goes on in the file it has; the activation tries again and reports.
      return;
    }
    try {
      this.#ready = await this.#nameBlank(blank, fileNumber, notBegun, durableBatch);
    } catch (error) {
      if (asWeftError(error).code !== 'NO_SPACE') this.#failure = asWeftError(error);
    }
  }

  /**
   * The disk is full, and the file made ready has no room of its own: it goes. Errors: IO_ERROR (nothing more can be
   * promised).
   */
  async dropSparseReady(): Promise<void> {
    while (this.#preparing) await this.#preparing;
    const ready = this.#ready;
    if (!ready?.sparse) return;
    this.#ready = null;
    await this.retire(ready.fileNumber, ready.sizeBytes, false);
    await ready.handle.close();
  }

  /**
   * The next numbered file, to write to: the one made ready for this number, or one made now. Errors: NO_SPACE
   * (nothing changed), IO_ERROR.
   */
  async activate(
    fileNumber: number,
    firstBatch: number,
    durableBatch: number,
    streaming: boolean,
  ): Promise<JournalFile> {
    while (this.#preparing) await this.#preparing;
    if (this.#failure) throw this.#failure;
    const ready = this.#ready;
    if (ready) {
      assert(ready.fileNumber === fileNumber, 'files are taken in order');
      this.#ready = null;
      return ready;
    }
    const blank = await this.#takeBlank(streaming);
    return this.#nameBlank(blank, fileNumber, firstBatch, durableBatch);
  }

  /** A file that was used before, or else a new one. It counts as between names until `#nameBlank` has settled. */
  async #takeBlank(streaming: boolean): Promise<BlankFile> {
    this.#betweenNames += 1;
    try {
      if (streaming && this.#free.length <= reservedFiles && (await this.#hasAmpleRoom())) {
        await this.#fillReserve();
        // At the capacity the reserve is used up before writers wait.
        const mayMakeOne = this.#total() <= this.#maxFiles;
        if (mayMakeOne && this.canSpare) return { name: await this.#makeSparse(), sparse: true };
      }
      const name = this.#free.pop();
      if (name !== undefined) return { name, sparse: false };
      return { name: await this.#makeZeroed(), sparse: false };
    } catch (error) {
      this.#betweenNames -= 1;
      throw error;
    }
  }

  async #nameBlank(
    { name, sparse }: BlankFile,
    fileNumber: number,
    firstBatch: number,
    durableBatch: number,
  ): Promise<JournalFile> {
    const from = `${this.#directory}/${name}`;
    const incarnation = this.#random.bytes(incarnationBytes);
    const header = encodeJournalFileHeader({
      incarnation,
      fileNumber,
      firstBatch,
      durableBatch,
      fileSizeBytes: this.#fileSizeBytes,
    });
    let handle: DiskFile | null = null;
    try {
      handle = await this.#disk.open(from, 'write', 'log');
      await writeToFile(handle, [header], 0);
      await syncFile(handle);
      await this.#disk.rename(from, this.path(fileNumber));
    } catch (error) {
      if (sparse) await this.#disk.remove(from).catch(() => {});
      else this.#free.push(name);
      this.#betweenNames -= 1;
      await handle?.close();
      throw error;
    }
    this.#numberedCount += 1;
    this.#betweenNames -= 1;
    try {
      await this.#disk.syncDirectory(this.#directory);
    } catch (error) {
      await handle.close();
      // Never NO_SPACE, which means that nothing changed: the name may be there or not.
      throw new WeftError(
        'IO_ERROR',
        `the journal's directory cannot be made durable: ${asWeftError(error).message}`,
        {
          cause: error,
        },
      );
    }
    return new JournalFile({
      fileNumber,
      incarnation,
      sizeBytes: this.#fileSizeBytes,
      handle,
      begun: firstBatch !== notBegun,
      sparse,
      own: true,
    });
  }

  /** Takes the numbered name away, durably, and keeps the file for reuse where that is wanted and there is room. */
  async retire(fileNumber: number, sizeBytes: number, reusable: boolean): Promise<void> {
    if (!reusable || sizeBytes !== this.#fileSizeBytes) {
      await this.#disk.remove(this.path(fileNumber));
      await this.#disk.syncDirectory(this.#directory);
      this.#numberedCount -= 1;
      return;
    }
    const name = this.#newFreeName();
    await this.#disk.rename(this.path(fileNumber), `${this.#directory}/${name}`);
    await this.#disk.syncDirectory(this.#directory);
    this.#numberedCount -= 1;
    if (this.#total() < this.#maxFiles) this.#free.push(name);
    else await this.#disk.remove(`${this.#directory}/${name}`);
  }

  /** Nothing goes on in the background when it resolves. A file made ready is found empty at the next start. */
  async close(): Promise<void> {
    while (this.#preparing) await this.#preparing;
    await this.#ready?.handle.close();
    this.#ready = null;
  }

  #total(): number {
    return this.#numberedCount + this.#free.length + this.#betweenNames;
  }

  #newFreeName(): string {
    return `free-${String(this.#nextFreeNumber++).padStart(10, '0')}.wfj`;
  }

  async #removeFree(): Promise<void> {
    await this.#disk.remove(`${this.#directory}/${this.#free.shift()!}`);
  }

  async #hasRightSize(path: string): Promise<boolean> {
    const file = await this.#disk.open(path, 'read');
    try {
      return (await file.size()) === this.#fileSizeBytes;
    } finally {
      await file.close();
    }
  }

  async #fillReserve(): Promise<void> {
    while (!this.canSpare && this.#total() < this.#maxFiles) this.#free.push(await this.#makeZeroed());
  }

  async #hasAmpleRoom(): Promise<boolean> {
    const { freeBytes } = await this.#disk.space();
    return freeBytes >= sparseFromFreeFiles * this.#fileSizeBytes;
  }

  #makeSparse(): Promise<string> {
    const name = `new-${String(this.#nextFreeNumber++).padStart(10, '0')}.wfj`;
    return this.#make(name, (file) => file.truncate(this.#fileSizeBytes));
  }

  async #makeZeroed(): Promise<string> {
    // Not by trying: others need what is left.
    const { freeBytes } = await this.#disk.space();
    if (freeBytes < this.#fileSizeBytes) {
      throw new WeftError(
        'NO_SPACE',
        `no room for a journal file of ${this.#fileSizeBytes} bytes: free space`,
      );
    }
    return this.#make(this.#newFreeName(), async (file) => {
      zeros ??= Buffer.alloc(zeroPieceBytes);
      for (let at = 0; at < this.#fileSizeBytes; at += zeroPieceBytes) {
        await writeToFile(file, [zeros.subarray(0, Math.min(zeroPieceBytes, this.#fileSizeBytes - at))], at);
      }
      await syncFile(file);
    });
  }

  async #make(name: string, fill: (file: DiskFile) => Promise<void>): Promise<string> {
    const path = `${this.#directory}/${name}`;
    const file = await this.#disk.open(path, 'create', 'log');
    try {
      await fill(file);
    } catch (error) {
      await file.close();
      await this.#disk.remove(path);
      throw asWeftError(error);
    }
    await file.close();
    return name;
  }
}
