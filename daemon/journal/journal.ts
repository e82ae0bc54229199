/**
 * The journal: the append-only log every write enters first.
 *
 * Appends are committed in groups: one batch is being written, what arrives meanwhile forms the next one; one
 * fdatasync is under way beside it and covers all batches complete when it started (`sync-queue.ts`). Payloads are
 * written straight from the callers' buffers. A batch is in the block index before anybody is told of it.
 *
 *   append -> queue -> batch (one write) -> index -> done            not durable: the operating system has it
 *                                              \-> fdatasync -> done  durable
 *
 * Invariants
 *  - batches are written, indexed and recovered in the order of their numbers; a batch is there whole or not at all;
 *  - everything written is synced before a file is released, and files are released in order, each durably before the
 *    next: so no flushed block goes with its file while a newer version of it can still be lost, and a recovered
 *    journal never lays an older version over a newer one that was drained and flushed;
 *  - recovered files are never appended to;
 *  - a failed write (other than NO_SPACE) or any failed fdatasync ends all writing until the daemon is restarted.
 *
 * The queue of appends needs no limit of its own: callers bound what they have in flight (the iSCSI command window).
 */
import { assert } from '../base/assert.ts';
import { asWeftError, WeftError } from '../base/errors.ts';
import { blockSizeBytes, KiB } from '../base/limits.ts';
import type { JournalRecord } from '../format/journal-batch.ts';
import { assertFits, BatchWriter, countThatFit } from './batch-writer.ts';
import { BlockIndex, type BlockRun } from './block-index.ts';
import { type ReadableRun, readBlocks } from './block-reader.ts';
import { FilePool } from './file-pool.ts';
import { type JournalFile, syncFile } from './journal-file.ts';
import {
  type AppendDone,
  defaultBatchSizeBytes,
  defaultJournalCapacityBytes,
  defaultJournalFileBytes,
  type JournalEnvironment,
  type JournalOptions,
  minJournalFileBytes,
  type SealedFile,
} from './journal-options.ts';
import { Throttle } from './pressure.ts';
import { type Recovered, recoverJournal } from './recovery.ts';
import { SyncQueue } from './sync-queue.ts';

export type { JournalRecord } from '../format/journal-batch.ts';
export type { BlockRun } from './block-index.ts';
export type {
  AppendDone,
  JournalEnvironment,
  JournalOptions,
  SealedFile,
} from './journal-options.ts';

/** Batches of this length, in bytes, are large writes, or many: their files are likely to be kept as they are. */
const streamedFromBytes = 256 * KiB;

interface Append {
  record: JournalRecord;
  durable: boolean;
  /** The drain waits for it: it goes before the others, beyond the capacity if need be. */
  urgent: boolean;
  done: AppendDone;
}

export class Journal {
  /** Where the newest content of blocks lies. Read-only for everybody but the drain, which removes what it stored. */
  readonly index: BlockIndex;
  readonly capacityBytes: number;

  readonly #throttle: Throttle;
  readonly #options: JournalOptions;
  readonly #pool: FilePool;
  readonly #fileSizeBytes: number;
  readonly #batchSizeBytes: number;
  readonly #strideBytes: number;
  readonly #sync: SyncQueue;
  readonly #writer: BatchWriter;

  readonly #files = new Map<number, JournalFile>();
  #sealed: JournalFile[];
  #active: JournalFile | null = null;
  /** Taken beyond the capacity for a rewrite. */
  #borrowed: JournalFile | null = null;
  /** Most of the last file's content came in large batches. */
  #streaming = false;
  #nextFileNumber: number;
  /** Files before this one were recovered. */
  readonly #firstOwnFile: number;
  #nextBatch: number;
  #releasing: Promise<void> = Promise.resolve();

  #queue: Append[] = [];
  /** Those of the batch that is being written. */
  #batch: readonly Append[] = [];
  #afterBatch: (() => void)[] = [];
  #writing = false;
  #rolling = false;
  #pumpScheduled = false;
  #sealWaiters: (() => void)[] = [];
  #failed: WeftError | null = null;
  #closing = false;
  #settled: (() => void) | null = null;

  /**
   * Recovers what the directory holds and starts a new file. Errors: CORRUPT (something promised cannot be read),
   * FORMAT_TOO_NEW, IO_ERROR. A full disk is no error: the journal is readable and appends report NO_SPACE.
   */
  static async open(env: JournalEnvironment, options: JournalOptions = {}): Promise<Journal> {
    const fileSizeBytes = options.fileSizeBytes ?? defaultJournalFileBytes;
    const capacityBytes = options.capacityBytes ?? defaultJournalCapacityBytes;
    assert(
      fileSizeBytes >= minJournalFileBytes && fileSizeBytes % blockSizeBytes === 0,
      'a file is whole blocks',
    );
    const maxFiles = Math.floor(capacityBytes / fileSizeBytes);
    assert(maxFiles >= 2, 'while one journal file is drained, another is written');
    const pool = new FilePool(env, options.directory ?? 'journal', fileSizeBytes, maxFiles);
    const index = new BlockIndex();
    const recovered = await recoverJournal({
      disk: env.disk,
      pool,
      index,
      keepVolume: options.keepVolume ?? (() => true),
      fileSizeBytes,
      log: env.log ?? (() => {}),
    });
    const journal = new Journal(
      env,
      options,
      pool,
      index,
      recovered,
      fileSizeBytes,
      maxFiles * fileSizeBytes,
    );
    try {
      await journal.#activateAtOpen();
    } catch (error) {
      await journal.#closeFiles();
      throw error;
    }
    return journal;
  }

  private constructor(
    env: JournalEnvironment,
    options: JournalOptions,
    pool: FilePool,
    index: BlockIndex,
    recovered: Recovered,
    fileSizeBytes: number,
    capacityBytes: number,
  ) {
    this.#throttle = new Throttle(env.clock, () => this.#pump(), options.onPressure);
    this.#options = options;
    this.#pool = pool;
    this.index = index;
    this.capacityBytes = capacityBytes;
    this.#fileSizeBytes = fileSizeBytes;
    this.#batchSizeBytes = options.batchSizeBytes ?? defaultBatchSizeBytes;
    this.#strideBytes = recovered.strideBytes;
    this.#sealed = recovered.files;
    for (const file of recovered.files) this.#files.set(file.fileNumber, file);
    this.#nextFileNumber = recovered.nextFileNumber;
    this.#firstOwnFile = recovered.nextFileNumber;
    this.#nextBatch = recovered.nextBatch;
    this.#writer = new BatchWriter(this.index, recovered.strideBytes);
    this.#sync = new SyncQueue(recovered.nextBatch - 1, (error) => this.#fail(error));
  }

  /** Sealed files count whole: their space comes back only as a whole. */
  get usedBytes(): number {
    let used = this.#active?.endBytes ?? 0;
    for (const file of this.#sealed) used += file.sizeBytes;
    return used;
  }

  /**
   * Appends a record and calls back, never synchronously, in the order of the appends among those of one durability.
   * Not durable: once the operating system has it (it survives the process). Durable: once it survives power loss.
   * The record and its data stay untouched until then. While the journal is full this waits. Errors: NO_SPACE (a
   * later append may succeed), SHUTTING_DOWN, IO_ERROR (nothing can be written until weftd is restarted).
   */
  append(record: JournalRecord, durable: boolean, done: AppendDone): void {
    assertFits(record, this.#fileSizeBytes);
    const refusal = this.#failed ?? (this.#closing ? shuttingDown() : null);
    if (refusal) {
      queueMicrotask(() => done(refusal));
      return;
    }
    this.#queue.push({ record, durable, urgent: false, done });
    this.#pumpSoon();
  }

  /**
   * Appends that the extent store has a range as it is from here on: what was appended before is void in it, in the
   * index when this calls back, and at every replay. It does not wait for room in a full journal, since the drain
   * waits for it. Errors as `append`.
   */
  appendStored(
    range: { volumeKey: number; offsetBytes: number; lengthBytes: number },
    order: { epoch: number; sequence: number },
    done: AppendDone,
  ): void {
    const { volumeKey, offsetBytes, lengthBytes } = range;
    const { epoch, sequence } = order;
    const record: JournalRecord = {
      kind: 'stored',
      volumeKey,
      offsetBytes,
      lengthBytes,
      epoch,
      sequence,
      data: null,
    };
    assertFits(record, this.#fileSizeBytes);
    const refusal = this.#failed ?? (this.#closing ? shuttingDown() : null);
    if (refusal) {
      queueMicrotask(() => done(refusal));
      return;
    }
    this.#queue.unshift({ record, durable: false, urgent: true, done });
    this.#pumpSoon();
  }

  #pumpSoon(): void {
    // What one received buffer brings arrives in one tick, and goes into one batch.
    if (this.#pumpScheduled || this.#writing) return;
    this.#pumpScheduled = true;
    queueMicrotask(() => {
      this.#pumpScheduled = false;
      this.#pump();
    });
  }

  /**
   * Appends what one run of the index holds once more: for a drain that cannot store it. Nothing is done, and the
   * answer is false, when the blocks have changed since the index said so, or are being written (then once they are). It does not wait for room
   * in a full journal: the room it takes is given back with the file that is drained.
   */
  rewrite(
    volumeKey: number,
    run: BlockRun,
    data: Buffer,
    done: (error: Error | null, rewritten: boolean) => void,
  ): void {
    const [now, ...others] = this.index.runs(volumeKey, run.block, run.count);
    const same =
      others.length === 0 && now !== undefined && now.kind === run.kind && now.address === run.address;
    const offsetBytes = run.block * blockSizeBytes;
    const touches = ({ record }: Append): boolean =>
      record.volumeKey === volumeKey &&
      record.offsetBytes < offsetBytes + data.length &&
      offsetBytes < record.offsetBytes + record.lengthBytes;
    // What waits in the queue comes after it: it may itself be waiting for the drain.
    if (this.#batch.some(touches)) {
      this.#afterBatch.push(() => done(this.#failed, false));
      return;
    }
    if (this.#failed || !same) {
      const failed = this.#failed;
      queueMicrotask(() => done(failed, false));
      return;
    }
    const identity = { volumeKey, offsetBytes, lengthBytes: data.length, epoch: 0, sequence: 0 };
    const record: JournalRecord = { kind: 'write', ...identity, data };
    assertFits(record, this.#fileSizeBytes);
    this.#queue.unshift({ record, durable: false, urgent: true, done: (error) => done(error, true) });
    this.#pumpSoon();
  }

  /** Everything acknowledged before is durable when this calls back. Errors: IO_ERROR. */
  flush(done: AppendDone): void {
    this.#sync.whenDurable(this.#sync.completedBatch, done);
  }

  /**
   * Fills `target` with the blocks of a 'journal' run (or a part of one, with its checksums), in the tick the index
   * gave it: the file is kept until this calls back. Errors: CORRUPT with volumeKey and offsetBytes in the details,
   * IO_ERROR.
   */
  read(volumeKey: number, run: ReadableRun, target: Buffer, done: (error: Error | null) => void): void {
    const file = this.#files.get(this.fileOf(run.address));
    assert(file, 'a run is read in the tick the index gave it');
    readBlocks(
      file,
      this.#pool.path(file.fileNumber),
      this.offsetOf(run.address),
      volumeKey,
      run,
      target,
      done,
    );
  }

  /** The number of the file an address of the index lies in. */
  fileOf(address: number): number {
    return Math.floor(address / this.#strideBytes);
  }

  /** Where in its file an address of the index lies, in bytes. */
  offsetOf(address: number): number {
    return address % this.#strideBytes;
  }

  /** Whether a sealed file may be kept by others. */
  canShare(fileNumber: number): boolean {
    const file = this.#files.get(fileNumber);
    if (file === undefined || !file.own || file.shared) return false;
    return file.sparse || this.#pool.canSpare;
  }

  /** The path of a sealed file that is going to be kept by others: it is not used again for the journal. */
  shareFile(fileNumber: number): string {
    const file = this.#files.get(fileNumber);
    assert(file && this.canShare(fileNumber), 'a file that can be spared is shared');
    file.shared = true;
    return this.#pool.path(fileNumber);
  }

  /** Files that wait to be drained, oldest first. */
  sealedFiles(): readonly SealedFile[] {
    return this.#sealed.slice();
  }

  /** Ends the file being written, so that an idle journal can be drained whole. Resolves once it is sealed. */
  sealActive(): Promise<void> {
    if (this.#failed || !this.#active) return Promise.resolve();
    if (!this.#writing) {
      this.#seal();
      return Promise.resolve();
    }
    return new Promise((resolve) => this.#sealWaiters.push(resolve));
  }

  /**
   * The content of the oldest sealed file is durable elsewhere and gone from the index: its space is used again.
   * Waits for those who read it. Releases are carried out in the order of the calls. Errors: IO_ERROR.
   */
  release(fileNumber: number): Promise<void> {
    const released = this.#releasing.then(() => this.#release(fileNumber));
    this.#releasing = released.catch(() => {});
    return released;
  }

  /** Fails the appends that wait for space in a full journal: for a drain that cannot store anything either. */
  refuseWaiting(error: WeftError): void {
    if (this.#writing || this.#rolling || this.#canGoOn()) return;
    this.#failQueue(error);
  }

  /** The volume is gone: its blocks are in nobody's way any more. */
  dropVolume(volumeKey: number): void {
    this.index.dropVolume(volumeKey);
  }

  /** Writes and syncs what was appended, then closes the files. Appends waiting for space get SHUTTING_DOWN. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#throttle.stop();
    this.#pump();
    await this.#quiet();
    this.#failQueue(shuttingDown());
    await this.#releasing;
    await this.#pool.close();
    const flushed = new Promise<void>((resolve, reject) =>
      this.flush((error) => (error ? reject(error) : resolve())),
    );
    try {
      await flushed;
      await this.#writeMarker();
    } catch (error) {
      // The marker is no promise: on a full disk, a sparse file may have no room for it.
      if (!this.#failed && asWeftError(error).code !== 'NO_SPACE') throw error;
    } finally {
      await this.#closeFiles();
    }
  }

  async #closeFiles(): Promise<void> {
    for (const file of this.#files.values()) {
      await file.idle();
      await file.handle.close();
    }
  }

  async #activateAtOpen(): Promise<void> {
    try {
      await this.#activate();
    } catch (error) {
      if (asWeftError(error).code !== 'NO_SPACE') throw error;
    }
    this.#throttle.used(this.usedBytes / this.capacityBytes);
  }

  async #activate(): Promise<void> {
    const file = await this.#pool.activate(
      this.#nextFileNumber,
      this.#nextBatch,
      this.#sync.durableBatch,
      this.#streaming,
    );
    this.#nextFileNumber += 1;
    this.#files.set(file.fileNumber, file);
    this.#active = file;
  }

  #prepareAhead(): void {
    this.#pool.prepareAhead(this.#nextFileNumber, this.#sync.durableBatch, this.#streaming);
  }

  /** Starts what can be started: the next batch, or the next file for it. */
  #pump(): void {
    if (
      this.#writing ||
      this.#rolling ||
      this.#throttle.delaying ||
      this.#failed ||
      this.#queue.length === 0 ||
      !this.#canGoOn()
    ) {
      this.#announceQuiet();
      return;
    }
    const next = this.#isBorrowed() ? this.#queue.slice(0, 1) : this.#queue;
    const count = this.#active ? countThatFit(next, this.#active, this.#batchSizeBytes) : 0;
    if (count > 0) {
      this.#writeBatch(this.#active!, this.#queue.splice(0, count));
      return;
    }
    if (this.#active) this.#seal();
    if (this.#canGoOn()) this.#roll();
    else this.#announceQuiet();
  }

  /** Whether the first of the queue need not wait for the drain. */
  #canGoOn(): boolean {
    if (this.#queue[0]?.urgent) return true;
    return (this.#active !== null && !this.#isBorrowed()) || this.#pool.hasRoom();
  }

  /** Whether the file that is written goes beyond the capacity still: it is for the drain alone. */
  #isBorrowed(): boolean {
    return this.#active !== null && this.#active === this.#borrowed && this.#pool.overfull;
  }

  #writeBatch(file: JournalFile, appends: Append[]): void {
    const records = appends.map((append) => append.record);
    const batch = this.#nextBatch;
    this.#writing = true;
    this.#batch = appends;
    const { endBytes } = file;
    this.#writer.write(file, batch, this.#sync.durableBatch, records, (error) => {
      this.#writing = false;
      this.#batch = [];
      if (error || this.#failed) {
        this.#batchFailed(file, appends, error ?? this.#failed!);
      } else {
        this.#nextBatch += 1;
        const writtenBytes = file.endBytes - endBytes;
        if (writtenBytes >= streamedFromBytes) file.streamedBytes += writtenBytes;
        this.#sync.completed(file, batch);
        this.#batchWritten(file, appends, batch);
      }
      for (const tell of this.#afterBatch.splice(0)) tell();
    });
  }

  #batchWritten(file: JournalFile, appends: Append[], batch: number): void {
    if (this.#sealWaiters.length > 0) this.#seal();
    this.#throttle.batchWritten(this.usedBytes / this.capacityBytes);
    if (file.endBytes * 2 > file.sizeBytes) {
      this.#streaming = file.streamedBytes * 2 > file.endBytes;
      this.#prepareAhead();
    }
    for (const append of appends) {
      if (append.durable) this.#sync.whenDurable(batch, append.done);
    }
    // The next batch is on its way before anybody is told of this one.
    this.#pump();
    for (const append of appends) {
      if (!append.durable) append.done(null);
    }
  }

  #batchFailed(file: JournalFile, appends: Append[], error: Error): void {
    const cause = asWeftError(error);
    if (cause.code === 'NO_SPACE' && file.sparse && !this.#failed) {
      this.#queue.unshift(...appends);
      this.#leaveSparse(file);
      return;
    }
    if (cause.code !== 'NO_SPACE') {
      this.#fail(error);
      for (const append of appends) append.done(this.#failed);
      return;
    }
    // The next batch takes the same number and place: what came down of this one is overwritten or never whole.
    for (const resolve of this.#sealWaiters.splice(0)) resolve();
    this.#pump();
    for (const append of appends) append.done(cause);
  }

  #seal(): void {
    const file = this.#active;
    if (file && file.records.count > 0) {
      this.#sealed.push(file);
      this.#active = null;
      this.#prepareAhead();
      this.#throttle.used(this.usedBytes / this.capacityBytes);
      this.#options.onSealed?.();
    }
    for (const resolve of this.#sealWaiters.splice(0)) resolve();
  }

  #roll(): void {
    this.#rolling = true;
    const borrows = !this.#pool.hasRoom();
    const rolled = (thrown: unknown) => {
      this.#rolling = false;
      if (borrows) this.#borrowed = this.#active;
      if (thrown !== null) {
        const error = asWeftError(thrown);
        if (error.code === 'NO_SPACE') this.#failQueue(error);
        else this.#fail(error);
      }
      this.#pump();
    };
    this.#activate().then(() => rolled(null), rolled);
  }

  /** The disk is full under a file without room of its own: the journal goes on in one that has it. */
  #leaveSparse(file: JournalFile): void {
    this.#rolling = true;
    this.#streaming = false;
    const left = async (): Promise<void> => {
      await this.#pool.dropSparseReady();
      if (file.records.count > 0) {
        this.#seal();
        return;
      }
      // Nothing of it was ever promised: its number is given again.
      this.#active = null;
      this.#files.delete(file.fileNumber);
      await this.#pool.retire(file.fileNumber, file.sizeBytes, false);
      await file.handle.close();
      this.#nextFileNumber = file.fileNumber;
    };
    left().then(
      () => {
        this.#rolling = false;
        for (const resolve of this.#sealWaiters.splice(0)) resolve();
        this.#pump();
      },
      (thrown) => {
        this.#rolling = false;
        this.#fail(asWeftError(thrown));
      },
    );
  }

  async #release(fileNumber: number): Promise<void> {
    const file = this.#sealed[0];
    assert(file?.fileNumber === fileNumber, 'files are released in order');
    // The drain passes over blocks that have been written again: their newer content, further on in the journal, has
    // to be durable before the older one goes. And until the name is gone the file may be replayed, over what is
    // newer: then it has to be followed by all of that.
    await new Promise<void>((resolve, reject) => {
      this.#sync.whenDurable(this.#sync.completedBatch, (error) => (error ? reject(error) : resolve()));
    });
    await file.idle();
    try {
      await this.#pool.retire(fileNumber, file.sizeBytes, file.reusable);
    } catch (error) {
      // The name may be gone or not: nothing later may be released, nothing more promised.
      this.#fail(asWeftError(error));
      throw error;
    }
    this.#sealed.shift();
    this.#files.delete(fileNumber);
    await file.handle.close();
    this.#throttle.used(this.usedBytes / this.capacityBytes);
    this.#pump();
  }

  /** Nothing is written any more until the daemon is restarted. What is there can still be read. */
  #fail(cause: Error): void {
    if (this.#failed) return;
    this.#failed = new WeftError(
      'IO_ERROR',
      `the journal cannot be written (${cause.message}): check the store's disk, then restart weftd; ` +
        'everything that was flushed is recovered',
      { cause, details: { ...asWeftError(cause).details } },
    );
    for (const resolve of this.#sealWaiters.splice(0)) resolve();
    this.#failQueue(this.#failed);
    this.#sync.fail(this.#failed);
    this.#announceQuiet();
  }

  #failQueue(error: WeftError): void {
    const appends = this.#queue;
    this.#queue = [];
    for (const append of appends) append.done(error);
  }

  /** Resolves when no batch is under way and none can be started. */
  #quiet(): Promise<void> {
    return new Promise((resolve) => {
      this.#settled = resolve;
      this.#announceQuiet();
    });
  }

  #announceQuiet(): void {
    if (!this.#settled || this.#writing || this.#rolling) return;
    const waits = this.#queue.length > 0 && !this.#failed && this.#canGoOn();
    if (waits) return;
    this.#settled();
    this.#settled = null;
  }

  /** An empty batch that says everything before it is durable, so that later damage to it is told from a torn tail. */
  async #writeMarker(): Promise<void> {
    const file = this.#active ?? this.#sealed.at(-1);
    // Behind the last batch of a recovered file there may be whole ones that were cut off: never append to it.
    if (!file || file.fileNumber < this.#firstOwnFile) return;
    await new Promise<void>((resolve, reject) => {
      this.#writer.write(file, this.#nextBatch, this.#sync.durableBatch, [], (error) =>
        error ? reject(error) : resolve(),
      );
    });
    await syncFile(file.handle);
  }
}

function shuttingDown(): WeftError {
  return new WeftError('SHUTTING_DOWN', 'the journal is being closed: try again when weftd runs again');
}
