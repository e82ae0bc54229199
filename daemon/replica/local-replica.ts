/**
 * The copy of volumes' data on this node: the journal takes every change, the extent store holds what was drained,
 * and the journal's index decides which of the two a block is read from.
 */
import { assert } from '../base/assert.ts';
import { asWeftError, WeftError } from '../base/errors.ts';
import { blockSizeBytes, MiB } from '../base/limits.ts';
import type { Clock } from '../env/clock.ts';
import type { Random } from '../env/random.ts';
import type { Store } from '../env/store.ts';
import { ExtentStore } from '../extents/extent-store.ts';
import type { MapStore } from '../extents/map-store.ts';
import { type BlockRun, Journal } from '../journal/journal.ts';
import { defaultAdoptedFraction } from './adoption.ts';
import { BackgroundPace } from './background-pace.ts';
import { copyRange, verifyRange } from './chunk-sharing.ts';
import { Drain } from './drain.ts';
import { drainCostBytes } from './drain-cost.ts';
import type { Done, Replica, VolumeIdentity, WriteOrder } from './replica.ts';
import { SpaceGuard } from './space-guard.ts';

/** How the replica tells of what it does beside answering; pino's loggers fit. */
export interface ReplicaLog {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
}

export interface LocalReplicaEnv {
  /** The first is hot, and holds the journal. */
  stores: readonly Store[];
  /** Stays open when the replica closes. */
  maps: MapStore;
  clock: Clock;
  random: Random;
  log: ReplicaLog;
}

export interface LocalReplicaOptions {
  /** Every volume that exists. Records of others are not replayed. */
  volumes: readonly VolumeIdentity[];
  journalCapacityBytes: number;
  journalFileBytes: number;
  /** Room kept free for the drain, in bytes; see SpaceGuard. */
  reserveBytes?: number;
  /** See `warm-up.ts`; 0 if not given. */
  warmUpBytes?: number;
  /** See `chunk-cache.ts`; 0 if not given. */
  chunkCacheBytes?: number;
  /** See `adoption.ts`. */
  adoptedFraction?: number;
}

export class LocalReplica implements Replica {
  readonly #journal: Journal;
  readonly #extents: ExtentStore;
  readonly #space: SpaceGuard;
  readonly #drain: Drain;
  readonly #pace: BackgroundPace;
  readonly #log: ReplicaLog;
  /** Chunk sizes of the volumes that exist. */
  readonly #chunkSizes: Map<number, number>;
  #compacting: Promise<void> | null = null;
  #closed = false;

  /** Recovers the journal. Errors: CORRUPT, FORMAT_TOO_NEW, IO_ERROR: the start is refused, nothing is changed. */
  static async open(env: LocalReplicaEnv, options: LocalReplicaOptions): Promise<LocalReplica> {
    let notice: (() => void) | null = null;
    const chunkSizes = new Map(options.volumes.map((volume) => [volume.volumeKey, volume.chunkSizeBytes]));
    const [journalStore] = env.stores;
    assert(journalStore?.tier === 'hot', 'the journal lives on a hot store');
    const { warmUpBytes = 0, chunkCacheBytes = 0, adoptedFraction = defaultAdoptedFraction } = options;
    const { stores, maps } = env;
    let pace: BackgroundPace | null = null;
    const giveWay = (bytes: number) => pace?.giveWay(bytes) ?? Promise.resolve();
    const extents = await ExtentStore.open({
      stores,
      maps,
      warmUpBytes,
      chunkCacheBytes,
      giveWay,
      log: env.log,
    });
    const journal = await Journal.open(
      { ...env, disk: journalStore.disk, log: (message, facts) => env.log.warn(facts, message) },
      {
        fileSizeBytes: options.journalFileBytes,
        capacityBytes: options.journalCapacityBytes,
        keepVolume: (volumeKey) => chunkSizes.has(volumeKey),
        // Writers may all be waiting for the journal by now, and none comes by to notice that it is full.
        onSealed: () => queueMicrotask(() => notice?.()),
      },
    );
    const space = await SpaceGuard.open({
      stores: env.stores,
      clock: env.clock,
      drainCostBytes: (enoughBytes) => drainCostBytes(journal.index, chunkSizes, enoughBytes),
      ...(options.reserveBytes === undefined ? {} : { reserveBytes: options.reserveBytes }),
    });
    pace = new BackgroundPace(env.clock, () => space.isNearlyFull);
    const replica = new LocalReplica(env, chunkSizes, journal, extents, space, pace, adoptedFraction);
    notice = () => replica.#drain.noticePressure();
    return replica;
  }

  private constructor(
    env: LocalReplicaEnv,
    chunkSizes: Map<number, number>,
    journal: Journal,
    extents: ExtentStore,
    space: SpaceGuard,
    pace: BackgroundPace,
    adoptedFraction: number,
  ) {
    this.#journal = journal;
    this.#extents = extents;
    this.#space = space;
    this.#pace = pace;
    this.#log = env.log;
    this.#chunkSizes = chunkSizes;
    this.#drain = new Drain({
      journal,
      extents,
      clock: env.clock,
      log: env.log,
      chunkSizeOf: (volumeKey) => this.#chunkSizes.get(volumeKey) ?? null,
      read: (volumeKey, chunkSizeBytes, offsetBytes, target, done) =>
        this.#read({ volumeKey, chunkSizeBytes }, offsetBytes, target, done),
      adoptedFraction,
      ended: () => {
        this.#compact();
        if (this.#drain.isIdle) this.#extents.idle(() => this.#drain.isIdle);
      },
    });
  }

  /** A volume that was created. */
  add(volume: VolumeIdentity): void {
    this.#chunkSizes.set(volume.volumeKey, volume.chunkSizeBytes);
  }

  /** Gives a volume's space back. Nobody may use it any more. May be repeated after a crash. */
  async destroy(volumeKey: number): Promise<void> {
    this.#chunkSizes.delete(volumeKey);
    this.#journal.dropVolume(volumeKey);
    // Whoever has the turn now may still store something of it.
    await this.#drain.turn(async () => {});
    await this.#extents.deleteVolume(volumeKey);
    this.#compact();
  }

  write(
    volume: VolumeIdentity,
    offsetBytes: number,
    data: Buffer,
    order: WriteOrder,
    durable: boolean,
    done: Done,
  ): void {
    const refusal =
      this.#refusal(volume) ?? this.#space.admit(offsetBytes, data.length, volume.chunkSizeBytes);
    if (refusal !== null) {
      queueMicrotask(() => done(refusal));
      return;
    }
    this.#pace.noticeCommand();
    this.#drain.noticeWrite();
    const { volumeKey } = volume;
    const { epoch, sequence } = order;
    this.#journal.append(
      { kind: 'write', volumeKey, offsetBytes, lengthBytes: data.length, epoch, sequence, data },
      durable,
      done,
    );
  }

  zero(
    volume: VolumeIdentity,
    offsetBytes: number,
    lengthBytes: number,
    order: WriteOrder,
    durable: boolean,
    done: Done,
  ): void {
    const refusal = this.#refusal(volume);
    if (refusal !== null) {
      queueMicrotask(() => done(refusal));
      return;
    }
    this.#drain.noticeWrite();
    const { volumeKey } = volume;
    const { epoch, sequence } = order;
    this.#journal.append(
      { kind: 'zero', volumeKey, offsetBytes, lengthBytes, epoch, sequence, data: null },
      durable,
      done,
    );
  }

  prepareCopy(source: VolumeIdentity, offsetBytes: number, lengthBytes: number, done: Done): void {
    const { chunkSizeBytes, volumeKey } = source;
    const [firstChunk, count] = [offsetBytes / chunkSizeBytes, lengthBytes / chunkSizeBytes];
    const prepare = async (): Promise<void> => {
      this.#checkServed(source);
      await verifyRange(this, source, offsetBytes, lengthBytes);
      await this.#drain.turn(async () => {
        this.#checkServed(source);
        await this.#drain.storeChunks(volumeKey, chunkSizeBytes, firstChunk, count);
      });
    };
    settle(prepare(), done);
  }

  copy(
    volume: VolumeIdentity,
    offsetBytes: number,
    lengthBytes: number,
    source: VolumeIdentity,
    sourceOffsetBytes: number,
    order: WriteOrder,
    durable: boolean,
    done: Done,
  ): void {
    const copy = async (): Promise<void> => {
      const refusal = this.#space.admitShared(lengthBytes / volume.chunkSizeBytes);
      if (refusal !== null) throw refusal;
      await this.#drain.turn(async () => {
        for (const each of [volume, source]) this.#checkServed(each);
        const env = { journal: this.#journal, extents: this.#extents, drain: this.#drain };
        await copyRange(env, { volume, offsetBytes, lengthBytes, source, sourceOffsetBytes, order });
      });
      this.#drain.noticeWrite();
      // The extent map is durable by now; what says that it counts may be in the operating system's hands only.
      if (durable)
        await new Promise<void>((resolve, reject) =>
          this.flush((error) => (error ? reject(error) : resolve())),
        );
    };
    settle(copy(), done);
  }

  read(volume: VolumeIdentity, offsetBytes: number, target: Buffer, done: Done): void {
    this.#pace.noticeCommand();
    this.#read(volume, offsetBytes, target, done);
  }

  #read(volume: VolumeIdentity, offsetBytes: number, target: Buffer, done: Done): void {
    const firstBlock = offsetBytes / blockSizeBytes;
    const runs = this.#journal.index.runs(volume.volumeKey, firstBlock, target.length / blockSizeBytes);
    if (runs.length === 1) {
      this.#readRun(volume, runs[0]!, target, done);
      return;
    }
    let waiting = runs.length;
    let failure: Error | null = null;
    const runDone: Done = (error) => {
      failure ??= error;
      if (--waiting === 0) done(failure);
    };
    for (const run of runs) {
      const start = (run.block - firstBlock) * blockSizeBytes;
      this.#readRun(volume, run, target.subarray(start, start + run.count * blockSizeBytes), runDone);
    }
  }

  flush(done: Done): void {
    this.#journal.flush(done);
  }

  allocation(
    volume: VolumeIdentity,
    offsetBytes: number,
    limitBytes: number,
    done: (error: Error | null, mapped: boolean, lengthBytes: number) => void,
  ): void {
    // The index is asked block by block: no further than a few extents, the caller asks again behind the answer.
    const blocks = Math.min(limitBytes, maxAllocationBytes) / blockSizeBytes;
    const [first] = this.#journal.index.runs(volume.volumeKey, offsetBytes / blockSizeBytes, blocks);
    assert(first !== undefined, 'a range has a run');
    const lengthBytes = first.count * blockSizeBytes;
    if (first.kind !== 'below') {
      queueMicrotask(() => done(null, first.kind === 'journal', lengthBytes));
      return;
    }
    this.#extents.allocation(volume, offsetBytes, lengthBytes, done);
  }

  /** Bytes a volume holds. A block that is in the journal and in a chunk counts twice until it is drained. */
  usedBytes(volume: VolumeIdentity): number {
    const chunks = this.#extents.usage(volume.volumeKey).chunkCount;
    return chunks * volume.chunkSizeBytes + this.#journal.index.liveBlocks(volume.volumeKey) * blockSizeBytes;
  }

  /** The state of the whole copy, in bytes. */
  state(): {
    journal: { usedBytes: number; capacityBytes: number };
    /** Data that is in the journal only, or newer there. */
    undrainedBytes: number;
    segmentBytes: number;
    liveBytes: number;
    totalBytes: number;
    freeBytes: number;
  } {
    const { usedBytes, capacityBytes, index } = this.#journal;
    const liveBlocks = index.volumeKeys().reduce((sum, volumeKey) => sum + index.liveBlocks(volumeKey), 0);
    return {
      journal: { usedBytes, capacityBytes },
      undrainedBytes: liveBlocks * blockSizeBytes,
      ...this.#extents.totals(),
      ...this.#space.space,
    };
  }

  /** Stores everything the journal holds in segments. */
  async drain(): Promise<void> {
    await this.#drain.drainAll();
    await this.#compacting;
  }

  /** Makes everything durable and closes. Operations in flight must be done. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#space.close();
    await this.#drain.close();
    await this.#compacting;
    try {
      await this.#journal.close();
    } finally {
      await this.#extents.close();
    }
  }

  #refusal(volume: VolumeIdentity): WeftError | null {
    if (this.#chunkSizes.has(volume.volumeKey)) return null;
    return new WeftError('NOT_FOUND', `volume ${volume.volumeKey} is gone: log out of it`);
  }

  #checkServed(volume: VolumeIdentity): void {
    if (this.#closed)
      throw new WeftError('SHUTTING_DOWN', 'the store is being closed: log in again when weftd is back');
    const refusal = this.#refusal(volume);
    if (refusal !== null) throw refusal;
  }

  #readRun(volume: VolumeIdentity, run: BlockRun, target: Buffer, done: Done): void {
    switch (run.kind) {
      case 'journal':
        this.#journal.read(volume.volumeKey, run, target, done);
        break;
      case 'zero':
        target.fill(0);
        queueMicrotask(() => done(null));
        break;
      case 'below':
        this.#extents.read(volume, run.block * blockSizeBytes, target, done);
        break;
    }
  }

  /** Compacts as long as there is a segment worth it. */
  #compact(): void {
    if (this.#closed || this.#compacting !== null) return;
    const compact = async (): Promise<void> => {
      while (!this.#closed && (await this.#extents.compactOnce())) {
        // The next one is chosen anew: what was sparse may be empty by now.
      }
    };
    this.#compacting = compact()
      .catch((error) =>
        this.#log.warn(
          { error: asWeftError(error).message },
          'compaction stopped; it is tried again after the next drain',
        ),
      )
      .finally(() => {
        this.#compacting = null;
      });
  }
}

function settle(work: Promise<void>, done: Done): void {
  work.then(
    () => done(null),
    (error) => done(asWeftError(error)),
  );
}

/** `allocation` looks this far ahead, in bytes: GET LBA STATUS continues where an answer ends. */
const maxAllocationBytes = 64 * MiB;
