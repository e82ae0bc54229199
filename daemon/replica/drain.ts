/**
 * Moves what the journal holds into the extent store, so that journal files can be used again.
 *
 * For every extent the oldest files touch: take what the index knows of it, lay it over what is stored, store the
 * changed chunks, and only when that is durable drop the index entries that are still what was stored. The order is
 * the promise: journal durable -> segment durable -> map durable -> index entry dropped -> file released.
 *
 * A file that is nearly all whole chunks is not read and written again: see `adoption.ts`.
 *
 * It works in turns, a batch each: what is read is stored before anybody else may put something else under the journal.
 *
 * States: idle -> running (pressure, or nothing written for a while) -> idle; running -> waiting (an error: the store
 * is full, a disk fails) -> running. Nothing is lost in any of them: the journal keeps what is not stored.
 */
import { assert } from '../base/assert.ts';
import { asWeftError, type WeftError } from '../base/errors.ts';
import { blockSizeBytes, extentSizeBytes, MiB } from '../base/limits.ts';
import type { Clock, Timer } from '../env/clock.ts';
import type { ExtentStore } from '../extents/extent-store.ts';
import { WriteTurns } from '../extents/write-turns.ts';
import { joinedChecksum } from '../format/joined-checksum.ts';
import type { BlockRun, Journal, SealedFile } from '../journal/journal.ts';
import { adoptFile, findShares } from './adoption.ts';
import { type ExtentWork, setDamagedAside } from './damage.ts';
import { type LivingRun, livingRuns } from './living-runs.ts';
import type { Done } from './replica.ts';

/** Draining starts when this part of the journal is used: late, so that blocks written again are stored once... */
const startFraction = 0.5;
/** ...and goes on down to this, so that a burst finds room. */
const stopFraction = 0.25;
/** An idle journal is drained whole, so that a start after it has nothing to replay. */
const idleAfterMs = 5_000;
/** After an error the drain tries again: a full disk may have room by then. */
const retryAfterMs = 1_000;
/** Chunks stored in one transaction, in bytes: large enough that its fdatasyncs are few, small enough to be quick. */
const batchBytes = 16 * MiB;

const extentBlocks = extentSizeBytes / blockSizeBytes;

export interface DrainLog {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
}

export interface DrainEnv {
  journal: Journal;
  extents: ExtentStore;
  clock: Clock;
  log: DrainLog;
  /** Called after every run: old chunks may have left holes in segments. */
  ended: () => void;
  /** Null for a volume that was deleted meanwhile. */
  chunkSizeOf: (volumeKey: number) => number | null;
  /** A journal file is kept as a segment when this part of it is chunks. */
  adoptedFraction: number;
  /** The replica's own read path; the index is consulted before it returns. */
  read: (volumeKey: number, chunkSizeBytes: number, offsetBytes: number, target: Buffer, done: Done) => void;
}

export class Drain {
  readonly #env: DrainEnv;
  #running: Promise<void> | null = null;
  /** Whose turn it is to take from the index and put into the extent store: a batch of the drain, or a copy. */
  readonly #turns = new WriteTurns();
  #idleTimer: Timer | null = null;
  #retryTimer: Timer | null = null;
  #writtenSinceIdle = false;
  /** The run met damage: it may have put as much into the journal as it took out of it. */
  #metDamage = false;
  #closed = false;
  /** Nothing can be adopted on this disk. */
  #filesHaveOneName = false;
  /** One room for the chunks of a batch, reused: fresh memory of this size costs more than filling it. */
  #room: Buffer | null = null;
  #roomUsed = 0;

  constructor(env: DrainEnv) {
    this.#env = env;
    this.#watchIdle();
  }

  /** Called for every change: the journal is not idle. */
  noticeWrite(): void {
    this.#writtenSinceIdle = true;
    this.noticePressure();
  }

  /** The journal may be half full by now: a file was sealed. */
  noticePressure(): void {
    if (this.#running !== null || this.#retryTimer !== null || this.#usedFraction() < startFraction) return;
    if (this.#env.journal.sealedFiles().length > 0) this.#start(stopFraction);
  }

  /** Nothing is being drained, and nothing has been written for a while. */
  get isIdle(): boolean {
    return this.#running === null && !this.#writtenSinceIdle && !this.#closed;
  }

  /** Drains everything that is in the journal now. Errors as WeftError. */
  async drainAll(): Promise<void> {
    await this.#env.journal.sealActive();
    while (this.#running !== null) await this.#running.catch(() => {});
    await this.#run(0);
  }

  /**
   * Carries `work` out between two batches. Until it has ended, nothing the journal knows is stored, and nobody else has
   * a turn: what it reads of the index can be relied upon, but for what is appended meanwhile.
   */
  turn<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#turns.run('urgent', work);
  }

  /**
   * Within a turn: stores what the journal has of these chunks, so that the extent store has them as they were in this
   * tick, or newer. Errors: CORRUPT and others of reading; then some of it may be stored.
   */
  async storeChunks(
    volumeKey: number,
    chunkSizeBytes: number,
    firstChunk: number,
    count: number,
  ): Promise<void> {
    const firstByte = firstChunk * chunkSizeBytes;
    const endByte = firstByte + count * chunkSizeBytes;
    let works: ExtentWork[] = [];
    this.#roomUsed = 0;
    for (let at = firstByte; at < endByte; ) {
      const end = Math.min(endByte, at - (at % extentSizeBytes) + extentSizeBytes);
      const range = { firstBlock: at / blockSizeBytes, count: (end - at) / blockSizeBytes };
      const { work, damage } = await this.#readRange(volumeKey, chunkSizeBytes, range);
      if (damage !== null) throw damage;
      if (work !== null) works.push(work);
      at = end;
      if (this.#roomUsed < batchBytes && at < endByte) continue;
      await this.#store(works);
      works = [];
      this.#roomUsed = 0;
    }
  }

  /** Starts nothing new, and resolves when the batch in hand is stored. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#idleTimer?.cancel();
    this.#retryTimer?.cancel();
    await this.#running?.catch(() => {});
    // A copy may have the turn.
    await this.turn(async () => {});
  }

  #usedFraction(): number {
    return this.#env.journal.usedBytes / this.#env.journal.capacityBytes;
  }

  /** Every `idleAfterMs`: was anything written since the last look? If not, but before that, drain all. */
  #watchIdle(): void {
    let dirty = true;
    const look = (): void => {
      if (this.#closed) return;
      if (this.#writtenSinceIdle) {
        this.#writtenSinceIdle = false;
        dirty = true;
      } else if (dirty && this.#running === null && this.#retryTimer === null) {
        void this.#env.journal.sealActive().then(() => {
          // Sealing may have started a drain that leaves some: then the next look finds the rest.
          if (this.#running !== null) return;
          dirty = false;
          this.#start(0);
        });
      }
      this.#idleTimer = this.#env.clock.after(idleAfterMs, look);
    };
    this.#idleTimer = this.#env.clock.after(idleAfterMs, look);
  }

  #start(untilFraction: number): void {
    if (this.#closed || this.#running !== null) return;
    const { usedBytes } = this.#env.journal;
    const later = (): void => {
      if (this.#closed) return;
      this.#retryTimer = this.#env.clock.after(retryAfterMs, () => {
        this.#retryTimer = null;
        this.#start(untilFraction);
      });
    };
    const retry = (error: unknown): void => {
      const failure = asWeftError(error);
      this.#env.log.warn(
        { code: failure.code, error: failure.message },
        'the journal cannot be drained; trying again',
      );
      // Writers behind a full journal hear of it rather than wait for what may never come.
      this.#env.journal.refuseWaiting(failure);
      later();
    };
    const ended = (): void => {
      // Blocks of damaged chunks go round in the journal until somebody writes those chunks over: not without a pause.
      if (this.#metDamage && this.#env.journal.usedBytes >= usedBytes) later();
      // What was sealed while the run ended has told nobody else.
      else this.noticePressure();
    };
    this.#run(untilFraction).then(ended, retry);
  }

  #run(untilFraction: number): Promise<void> {
    assert(this.#running === null, 'one drain at a time');
    this.#metDamage = false;
    const run = this.#drainFiles(untilFraction)
      .catch((error) => {
        throw asWeftError(error);
      })
      .finally(() => {
        this.#running = null;
        // Also after a failure: on a full store, what was stored before it may have left the room that is wanted.
        this.#env.ended();
      });
    this.#running = run;
    return run;
  }

  async #drainFiles(untilFraction: number): Promise<void> {
    const { journal } = this.#env;
    // What is sealed later belongs to a later run: a drain ends although writes go on, or damage keeps coming back.
    const lastFile = journal.sealedFiles().at(-1)?.fileNumber ?? 0;
    while (!this.#closed && (untilFraction === 0 || this.#usedFraction() > untilFraction)) {
      const file = journal.sealedFiles()[0];
      if (file === undefined || file.fileNumber > lastFile) return;
      await this.#drainFile(file);
      if (this.#closed) return;
      await journal.release(file.fileNumber);
    }
  }

  async #drainFile(file: SealedFile): Promise<void> {
    if (!this.#filesHaveOneName) await this.turn(() => this.#adopt(file));
    const extents = extentsOf(await this.#living(file));
    for (let next = 0; next < extents.length && !this.#closed; ) {
      await this.turn(async () => {
        next = await this.#drainBatch(extents, next);
      });
    }
  }

  /** Keeps the file for the extent store as it is, where it is mostly chunks. */
  async #adopt(file: SealedFile): Promise<void> {
    // Looked at within the turn: what a copy voids must not be placed over the copy.
    const shares = findShares(this.#env, file, await this.#living(file));
    if (shares === null) return;
    try {
      await adoptFile(this.#env, file, shares);
    } catch (error) {
      // What was not adopted is stored as always: the file is not given away a second time.
      const { code, message } = asWeftError(error);
      if (code === 'UNSUPPORTED') this.#filesHaveOneName = true;
      this.#env.log.warn({ code, error: message }, 'a journal file cannot be kept as a segment');
    }
  }

  /** As many of the extents from `first` on as make a batch. Returns the index of the one after them. */
  async #drainBatch(extents: readonly [number, number][], first: number): Promise<number> {
    const works: ExtentWork[] = [];
    this.#roomUsed = 0;
    let next = first;
    while (next < extents.length && this.#roomUsed < batchBytes) {
      if (this.#closed) return next;
      const [volumeKey, extentIndex] = extents[next]!;
      next += 1;
      const chunkSizeBytes = this.#env.chunkSizeOf(volumeKey);
      if (chunkSizeBytes === null) continue;
      const work = await this.#readExtent(volumeKey, chunkSizeBytes, extentIndex);
      if (work !== null) works.push(work);
    }
    await this.#store(works);
    return next;
  }

  #living(file: SealedFile): Promise<LivingRun[]> {
    return livingRuns(this.#env.journal, file, this.#env.clock);
  }

  /** Reads the chunks of an extent that the journal changed; null when there is nothing to do. */
  async #readExtent(
    volumeKey: number,
    chunkSizeBytes: number,
    extentIndex: number,
  ): Promise<ExtentWork | null> {
    const range = { firstBlock: extentIndex * extentBlocks, count: extentBlocks };
    const { work, damage } = await this.#readRange(volumeKey, chunkSizeBytes, range);
    if (work === null || damage === null) return work;
    this.#metDamage = true;
    return setDamagedAside(this.#env, work, chunkSizeBytes);
  }

  /**
   * Reads the chunks of a range, whole ones of one extent, that the journal changed. `damage`: part of them could not be
   * read. Other errors are thrown.
   */
  async #readRange(
    volumeKey: number,
    chunkSizeBytes: number,
    { firstBlock, count }: { firstBlock: number; count: number },
  ): Promise<{ work: ExtentWork | null; damage: WeftError | null }> {
    // What is mapped must be known before the index is looked at: nothing may come between that and the reads.
    const holeOnly = await this.#isHole(volumeKey, chunkSizeBytes, Math.floor(firstBlock / extentBlocks));
    const runs = this.#env.journal.index
      .runs(volumeKey, firstBlock, count)
      .filter((run) => run.kind !== 'below');
    if (runs.length === 0) return { work: null, damage: null };
    const chunks = changedChunks(runs, firstBlock, count, chunkSizeBytes);
    const checksums = chunkChecksums(runs, firstBlock, count, chunkSizeBytes);
    const work: ExtentWork = { volumeKey, updates: [], runs };
    const firstChunk = (firstBlock * blockSizeBytes) / chunkSizeBytes;
    const reads: Promise<void>[] = [];
    for (let chunk = 0; chunk < chunks.length; ) {
      const kind = chunks[chunk];
      let end = chunk + 1;
      while (end < chunks.length && chunks[end] === kind) end++;
      if (kind === 'zero' && !holeOnly) {
        for (let each = chunk; each < end; each++) {
          work.updates.push({ volumeKey, chunkSizeBytes, chunkIndex: firstChunk + each, data: null });
        }
      } else if (kind === 'data') {
        const part = checksums.slice(chunk, end);
        reads.push(this.#readChunks(work, chunkSizeBytes, firstChunk + chunk, part));
      }
      chunk = end;
    }
    if (work.updates.length === 0) {
      // Zeros over a hole, which is durable already. A host may unmap millions of such extents: none is kept for later.
      for (const run of runs) this.#env.journal.index.remove(volumeKey, run);
      return { work: null, damage: null };
    }
    const failed = (await Promise.allSettled(reads)).find((result) => result.status === 'rejected');
    const damage = failed === undefined ? null : asWeftError(failed.reason);
    if (damage !== null && damage.code !== 'CORRUPT') throw damage;
    return { work, damage };
  }

  /** One chunk for each of the checksums, which are null where they are not known. */
  #readChunks(
    work: ExtentWork,
    chunkSizeBytes: number,
    firstChunk: number,
    checksums: readonly (number | null)[],
  ): Promise<void> {
    const count = checksums.length;
    this.#room ??= Buffer.allocUnsafeSlow(batchBytes + extentSizeBytes);
    const room = this.#room.subarray(this.#roomUsed, this.#roomUsed + count * chunkSizeBytes);
    this.#roomUsed += room.length;
    for (let index = 0; index < count; index++) {
      const data = room.subarray(index * chunkSizeBytes, (index + 1) * chunkSizeBytes);
      const update = { volumeKey: work.volumeKey, chunkSizeBytes, chunkIndex: firstChunk + index, data };
      const checksum = checksums[index]!;
      work.updates.push(checksum === null ? update : { ...update, checksum });
    }
    return new Promise((resolve, reject) => {
      this.#env.read(work.volumeKey, chunkSizeBytes, firstChunk * chunkSizeBytes, room, (error) => {
        if (error === null) resolve();
        else reject(error);
      });
    });
  }

  #isHole(volumeKey: number, chunkSizeBytes: number, extentIndex: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const offsetBytes = extentIndex * extentSizeBytes;
      const volume = { volumeKey, chunkSizeBytes };
      this.#env.extents.allocation(volume, offsetBytes, extentSizeBytes, (error, mapped, lengthBytes) => {
        if (error !== null) reject(error);
        else resolve(!mapped && lengthBytes >= extentSizeBytes);
      });
    });
  }

  #journalDurable(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#env.journal.flush((error) => (error === null ? resolve() : reject(error)));
    });
  }

  async #store(works: readonly ExtentWork[]): Promise<void> {
    if (works.length === 0) return;
    // A part of a write must not be durable before all of it is: power loss would leave that part alone.
    await this.#journalDurable();
    const kept = works.filter((work) => this.#env.chunkSizeOf(work.volumeKey) !== null);
    await this.#env.extents.store(kept.flatMap((work) => work.updates));
    for (const work of kept) {
      for (const run of work.runs) this.#env.journal.index.remove(work.volumeKey, run);
    }
  }
}

/** Those the runs lie in, in order. */
function extentsOf(living: readonly LivingRun[]): [volumeKey: number, extentIndex: number][] {
  const extents = new Map<number, Set<number>>();
  for (const { volumeKey, block, count } of living) {
    const indexes = extents.get(volumeKey) ?? new Set();
    extents.set(volumeKey, indexes);
    const last = Math.floor((block + count - 1) / extentBlocks);
    for (let extent = Math.floor(block / extentBlocks); extent <= last; extent++) indexes.add(extent);
  }
  return [...extents].flatMap(([volumeKey, indexes]) =>
    [...indexes].sort((a, b) => a - b).map((extent): [number, number] => [volumeKey, extent]),
  );
}

/** What the journal makes of each chunk of a range: nothing, all zeros, or new data. */
function changedChunks(
  runs: readonly BlockRun[],
  firstBlock: number,
  count: number,
  chunkSizeBytes: number,
): ('same' | 'zero' | 'data')[] {
  const chunkBlocks = chunkSizeBytes / blockSizeBytes;
  const zeroBlocks = new Uint16Array(count / chunkBlocks);
  const touched = new Uint8Array(zeroBlocks.length);
  for (const run of runs) {
    for (let block = run.block - firstBlock; block < run.block - firstBlock + run.count; block++) {
      const chunk = Math.floor(block / chunkBlocks);
      touched[chunk] = 1;
      if (run.kind === 'zero') zeroBlocks[chunk]! += 1;
    }
  }
  return Array.from(touched, (is, chunk) =>
    is === 0 ? 'same' : zeroBlocks[chunk] === chunkBlocks ? 'zero' : 'data',
  );
}

/** The checksum of each chunk that comes from the journal whole, put together from those of its blocks; else null. */
function chunkChecksums(
  runs: readonly BlockRun[],
  firstBlock: number,
  count: number,
  chunkSizeBytes: number,
): (number | null)[] {
  const chunkBlocks = chunkSizeBytes / blockSizeBytes;
  const ofBlocks = new Uint32Array(count);
  const known = new Uint16Array(count / chunkBlocks);
  for (const run of runs) {
    if (run.kind !== 'journal') continue;
    const at = run.block - firstBlock;
    ofBlocks.set(run.checksums, at);
    for (let block = at; block < at + run.count; block++) known[Math.floor(block / chunkBlocks)]! += 1;
  }
  return Array.from(known, (blocks, chunk) =>
    blocks === chunkBlocks
      ? joinedChecksum(ofBlocks, chunk * chunkBlocks, chunkBlocks, blockSizeBytes)
      : null,
  );
}
