/** One node's data path on a simulated disk: crashed, started again and hurt under a writer that checks every block. */
import type { ErrorCode, WeftError } from '../../daemon/base/errors.ts';
import { blockSizeBytes, MiB, sectorSizeBytes } from '../../daemon/base/limits.ts';
import { LocalReplica } from '../../daemon/replica/local-replica.ts';
import { copyRange } from '../../daemon/volume/copy.ts';
import type { Generations, Loss } from './sector-ledger.ts';
import { SeededRandom } from './seeded-random.ts';
import { SimulatedClock } from './simulated-clock.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { SimulatedMapStore } from './simulated-map-store.ts';
import { SimulatedVolume } from './simulated-volume.ts';

export interface NodeOptions {
  seed: number;
  durability: 'flush' | 'sync';
  volumeBytes?: number;
  /** How many volumes there are at first. */
  volumes?: number;
  /** Operations in flight at most. */
  depth?: number;
  journalFileBytes?: number;
  /** Of the disk. */
  capacityBytes?: number;
  /** Kept free for the drain. */
  reserveBytes?: number;
  /** Random writes seldom fill a journal file with whole chunks: a few are enough to keep it as a segment. */
  adoptsReadily?: boolean;
}

const quiet = { info() {}, warn() {} };
/** Small, so that a few hundred operations fill it and the drain runs under them. */
const journalFiles = 6;
const longestWriteSectors = 512;

/** A range that is being copied to. */
interface CopyInFlight {
  source: SimulatedVolume;
  sourceOffsetBytes: number;
  target: SimulatedVolume;
  offsetBytes: number;
  lengthBytes: number;
  /** Others must keep out of the destination: the copy is many operations. */
  holds: boolean;
}

export class SimulatedNode {
  readonly clock: SimulatedClock;
  readonly random: SeededRandom;
  readonly #options: NodeOptions;
  readonly #depth: number;
  readonly #chunkSizeBytes: number;
  disk: SimulatedDisk;
  replica!: LocalReplica;
  /** Those that exist, those being deleted included. */
  readonly volumes: SimulatedVolume[] = [];
  #lastVolumeKey = 0;
  readonly #generations: Generations = { last: 0 };
  #copies = new Set<CopyInFlight>();
  #maps: SimulatedMapStore;
  #starts = 0;
  #inFlight = 0;
  /** What went wrong, in words; the first is what matters. */
  readonly faults: string[] = [];
  /** Errors that operations may be answered with: the scenario asked for them. */
  readonly tolerated = new Set<ErrorCode>();
  /** Operations that were answered with one of them. */
  refusals = 0;
  operations = 0;

  constructor(options: NodeOptions) {
    this.random = new SeededRandom(options.seed);
    this.clock = new SimulatedClock(this.random.fork());
    const { capacityBytes } = options;
    const room = capacityBytes === undefined ? {} : { capacityBytes };
    this.disk = new SimulatedDisk(this.clock, this.random.fork(), room);
    const mapRandom = this.random.fork();
    this.#maps = new SimulatedMapStore({
      schedule: (fire) => this.clock.schedule(fire),
      random: () => mapRandom.next(),
    });
    this.#options = options;
    this.#depth = options.depth ?? 12;
    this.#chunkSizeBytes = this.random.chance(0.5) ? 16_384 : 65_536;
    for (let count = 0; count < (options.volumes ?? 1); count++) this.#newVolume();
  }

  /** The first volume, as a host uses it. */
  get volume() {
    return this.volumes[0]!.device;
  }

  async start(): Promise<void> {
    this.#starts += 1;
    const journalFileBytes = this.#options.journalFileBytes ?? MiB;
    const env = {
      stores: [{ disk: this.disk, tier: 'hot' as const }],
      maps: this.#maps,
      clock: this.clock,
      random: this.random.fork(),
      log: quiet,
    };
    const open = LocalReplica.open(env, {
      volumes: this.volumes.map((volume) => volume.identity),
      journalFileBytes,
      journalCapacityBytes: journalFiles * journalFileBytes,
      reserveBytes: this.#options.reserveBytes ?? 0,
      warmUpBytes: 2 * MiB,
      chunkCacheBytes: this.#options.seed % 3 === 0 ? 0 : 128 * 1024,
      ...(this.#options.adoptsReadily ? { adoptedFraction: 0.02 } : {}),
    });
    this.replica = await this.#unlessCrashed(open);
    for (const volume of this.volumes) volume.open(this.replica, this.#starts, this.#options.durability);
    for (const volume of this.volumes.filter((each) => each.isDoomed)) this.#destroy(volume);
  }

  /** A crash ends the waiting: else it would keep the clock going behind everybody's back, timers being without end. */
  async #unlessCrashed<Result>(promise: Promise<Result>): Promise<Result> {
    const { disk } = this;
    let isSettled = false;
    const note = () => {
      isSettled = true;
    };
    promise.then(note, note);
    await this.clock.run(() => isSettled || this.disk !== disk);
    if (!isSettled) throw new Error('the node crashed while it started');
    return promise;
  }

  /** Ends the daemon cleanly. */
  async stop(): Promise<void> {
    await this.clock.settle(Promise.all(this.volumes.map((volume) => volume.device.close())));
    await this.clock.settle(this.replica.close());
  }

  /** Ends the daemon at this very event: nothing it asked for is answered any more. */
  crash(loss: Loss): void {
    this.disk = this.disk.crash(loss);
    this.#maps = this.#maps.crash();
    this.#inFlight = 0;
    this.#copies = new Set();
  }

  createVolume(): void {
    const volume = this.#newVolume();
    this.replica.add(volume.identity);
    volume.open(this.replica, this.#starts, this.#options.durability);
  }

  /** Withdraws a volume and gives its space back while the others are worked with. A start goes on with it. */
  deleteVolume(volume: SimulatedVolume): void {
    volume.isDoomed = true;
    this.#destroy(volume);
  }

  /** Issues `count` random operations, never more in flight than `depth`, until they are done or a crash is due. */
  async work(count: number, crashAtEvent = Number.POSITIVE_INFINITY): Promise<void> {
    const life = this.#starts;
    let left = count;
    const due = (): boolean => {
      while (left > 0 && this.#inFlight < this.#depth && life === this.#starts) {
        left -= 1;
        this.#operate(life);
      }
      return this.clock.eventCount >= crashAtEvent || (left === 0 && this.#inFlight === 0);
    };
    if (!(await this.clock.run(due, maxEventsOfWork)))
      this.faults.push('nothing is left to happen, and operations are unanswered');
  }

  /** Begins a random copy. */
  copy(): void {
    this.#inFlight += 1;
    this.#copy(this.#starts, this.random.pick(this.volumes.filter((each) => !each.isDoomed)));
  }

  /** Reads every block and compares; after a crash, with what that crash may have left. */
  async verify(loss: Loss | null): Promise<void> {
    for (const volume of this.volumes.filter((each) => !each.isDoomed)) {
      for (let at = 0; at < volume.sizeBytes; at += MiB) {
        await this.#verifyRange(volume, at, Math.min(MiB, volume.sizeBytes - at), loss);
      }
    }
  }

  /** Everything is drained, and what was deleted is gone: nothing is stored that no volume has. */
  async verifyDrained(): Promise<void> {
    const isDeleted = () => this.volumes.every((volume) => !volume.isDoomed);
    if (!(await this.clock.run(isDeleted, maxEventsOfWork))) this.faults.push('a deletion does not end');
    await this.clock.settle(this.replica.drain());
    await this.verify(null);
    const { journal, liveBytes } = this.replica.state();
    if (journal.usedBytes > 64 * 1024)
      this.faults.push(`the drained journal still takes ${journal.usedBytes} bytes`);
    const used = this.volumes.reduce((sum, { identity }) => sum + this.replica.usedBytes(identity), 0);
    this.verifyCounts();
    if (liveBytes > used * 1.01) this.faults.push(`${liveBytes} bytes are stored, volumes have ${used}`);
  }

  /** Counts the references to every chunk anew. */
  verifyCounts(): void {
    this.faults.push(...this.#maps.checkReferences());
  }

  async #verifyRange(volume: SimulatedVolume, at: number, length: number, loss: Loss | null): Promise<void> {
    const bytes = Buffer.alloc(length, 0xee);
    const error = await this.clock.settle(
      new Promise<Error | null>((resolve) => volume.device.read(at, bytes, resolve)),
    );
    if (error !== null && length > blockSizeBytes && this.#isTolerated(error)) {
      // One block may hide the others: each is looked at alone.
      for (let from = at; from < at + length; from += blockSizeBytes)
        await this.#verifyRange(volume, from, blockSizeBytes, loss);
      return;
    }
    if (error !== null) {
      if (!this.#isTolerated(error)) this.faults.push(`reading at ${at}: ${error.message}`);
      return;
    }
    for (let offset = 0; offset < length; offset += blockSizeBytes) {
      const block = (at + offset) / blockSizeBytes;
      const found = bytes.subarray(offset, offset + blockSizeBytes);
      const { ledger } = volume;
      const fault = loss === null ? ledger.verifyCurrent(block, found) : ledger.verify(block, found, loss);
      if (fault !== null) this.faults.push(`volume ${volume.identity.volumeKey}, ${fault}`);
    }
  }

  #newVolume(): SimulatedVolume {
    this.#lastVolumeKey += 1;
    const identity = { volumeKey: this.#lastVolumeKey, chunkSizeBytes: this.#chunkSizeBytes };
    const sizeBytes = this.#options.volumeBytes ?? 12 * MiB;
    const volume = new SimulatedVolume(identity, sizeBytes, this.#generations);
    this.volumes.push(volume);
    return volume;
  }

  #destroy(volume: SimulatedVolume): void {
    const life = this.#starts;
    const { volumeKey } = volume.identity;
    const { replica } = this;
    volume.device
      .close()
      .then(() => replica.destroy(volumeKey))
      .then(
        () => {
          if (life !== this.#starts) return;
          const left = replica.usedBytes(volume.identity);
          if (left > 0) this.faults.push(`deleted volume ${volumeKey} still takes ${left} bytes`);
          this.volumes.splice(this.volumes.indexOf(volume), 1);
        },
        (error: Error) => {
          if (!this.#isTolerated(error)) this.faults.push(`a deletion failed: ${error.message}`);
        },
      );
  }

  #isTolerated(error: Error): boolean {
    return this.tolerated.has((error as WeftError).code);
  }

  #operate(life: number): void {
    const volume = this.random.pick(this.volumes.filter((each) => !each.isDoomed));
    this.operations += 1;
    this.#inFlight += 1;
    const dice = this.random.next();
    if (dice < 0.1) this.#flush(life, volume);
    else if (dice < 0.2) this.#change(life, volume, true);
    else if (dice < 0.3) this.#read(life, volume);
    else if (dice < 0.36) this.#copy(life, volume);
    else this.#change(life, volume, false);
  }

  /** Answers for an operation; true when it succeeded in the life it was asked in. */
  #answered(life: number, what: string, error: Error | null): boolean {
    if (life !== this.#starts) return false;
    this.#inFlight -= 1;
    if (error === null) return true;
    this.refusals += 1;
    if (!this.#isTolerated(error)) this.faults.push(`a ${what} was refused: ${error.message}`);
    return false;
  }

  /** Of whole blocks, most of them so that chunks can be shared; from any volume, the same one included. */
  #copy(life: number, target: SimulatedVolume): void {
    const { random } = this;
    const source = random.pick(this.volumes.filter((each) => !each.isDoomed));
    const unit = random.chance(0.8) ? this.#chunkSizeBytes : blockSizeBytes;
    const direct = unit === this.#chunkSizeBytes && random.chance(0.3);
    const units = Math.min(source.sizeBytes, target.sizeBytes) / unit;
    const count = Math.max(1, Math.floor((units / 2) ** random.next()));
    const from = random.below(units - count) * unit;
    const to = random.below(units - count) * unit;
    // The ends of a range need not lie on a chunk.
    const cut = direct || count < 2 ? 0 : random.below(unit / blockSizeBytes) * blockSizeBytes;
    const copy: CopyInFlight = {
      source,
      sourceOffsetBytes: from + cut,
      target,
      offsetBytes: to + cut,
      lengthBytes: count * unit - cut,
      holds: !direct,
    };
    if (meetsItself(copy) || [...this.#copies].some((each) => meet(each, copy))) {
      return this.#flush(life, target);
    }
    const { sourceOffsetBytes, offsetBytes, lengthBytes } = copy;
    const generation = target.ledger.beginCopy(offsetBytes, lengthBytes, source.ledger, sourceOffsetBytes);
    const fua = direct && random.chance(0.3);
    const durable = fua || this.#options.durability === 'sync';
    this.#copies.add(copy);
    const done = (error: Error | null): void => {
      this.#copies.delete(copy);
      // A volume that is deleted meanwhile ends its copies.
      const gone = error !== null && (source.isDoomed || target.isDoomed);
      if (life === this.#starts && gone) {
        this.#inFlight -= 1;
        target.ledger.refuse(generation, offsetBytes, lengthBytes);
      } else if (this.#answered(life, 'copy', error)) {
        target.ledger.acknowledge(generation, offsetBytes, lengthBytes, durable);
      } else if (life === this.#starts) {
        target.ledger.refuse(generation, offsetBytes, lengthBytes);
      }
    };
    if (direct) {
      target.device.shareFrom(source.device, sourceOffsetBytes, offsetBytes, lengthBytes, fua, done);
      return;
    }
    const moveStepBytes = longestWriteSectors * sectorSizeBytes;
    const request = { ...copy, source: source.device, target: target.device, moveStepBytes };
    void copyRange(request).then(({ failure }) => done(failure?.error ?? null));
  }

  #change(life: number, volume: SimulatedVolume, zero: boolean): void {
    const { device, ledger, sizeBytes } = volume;
    const { random } = this;
    // Half of the writes go to a small region, so that blocks are written again before they are drained.
    const sectors = sizeBytes / sectorSizeBytes;
    const aligned = random.chance(0.8) ? blockSizeBytes / sectorSizeBytes : 1;
    const length = Math.max(1, Math.floor(longestWriteSectors ** random.next() / aligned)) * aligned;
    const region = random.chance(0.5) ? sectors / 16 : sectors;
    const first = Math.floor(random.below(Math.max(1, region - length)) / aligned) * aligned;
    const [offsetBytes, lengthBytes] = [first * sectorSizeBytes, length * sectorSizeBytes];
    const isHeld = [...this.#copies].some(
      (copy) =>
        copy.holds && copy.target === volume && overlap(copy.offsetBytes, copy, offsetBytes, { lengthBytes }),
    );
    if (isHeld) return this.#flush(life, volume);
    const generation = ledger.begin(offsetBytes, lengthBytes, zero);
    const fua = random.chance(0.1);
    const durable = fua || this.#options.durability === 'sync';
    const done = (error: Error | null): void => {
      if (this.#answered(life, 'change', error))
        ledger.acknowledge(generation, offsetBytes, lengthBytes, durable);
      else if (life === this.#starts) ledger.refuse(generation, offsetBytes, lengthBytes);
    };
    if (zero) {
      device.unmap(offsetBytes, lengthBytes, fua, done);
      return;
    }
    const data = Buffer.alloc(lengthBytes);
    ledger.fill(data, offsetBytes, generation);
    device.write(offsetBytes, data, fua, done);
  }

  /** What a flush of one volume promises, it promises for all: they share the journal. */
  #flush(life: number, { device }: SimulatedVolume): void {
    const promises = this.volumes.map(({ ledger }) => ledger.beginFlush());
    device.flush((error) => {
      if (this.#answered(life, 'flush', error)) for (const promised of promises) promised();
    });
  }

  /** What it reads may be changing: it must be whole, and not older than what was acknowledged before. */
  #read(life: number, { device, ledger, sizeBytes }: SimulatedVolume): void {
    const blocks = this.random.between(1, 32);
    const first = this.random.below(sizeBytes / blockSizeBytes - blocks);
    const bytes = Buffer.alloc(blocks * blockSizeBytes);
    const acknowledged = Array.from({ length: blocks }, (_, index) => ledger.acknowledged(first + index));
    device.read(first * blockSizeBytes, bytes, (error) => {
      if (!this.#answered(life, 'read', error)) return;
      for (const [index, floor] of acknowledged.entries()) {
        const found = bytes.subarray(index * blockSizeBytes, (index + 1) * blockSizeBytes);
        const fault = ledger.verifyFrom(first + index, found, floor);
        if (fault !== null) this.faults.push(`read under load, ${fault}`);
      }
    });
  }
}

function overlap(at: number, a: { lengthBytes: number }, other: number, b: { lengthBytes: number }): boolean {
  return at < other + b.lengthBytes && other < at + a.lengthBytes;
}

function meetsItself(copy: CopyInFlight): boolean {
  return copy.source === copy.target && overlap(copy.sourceOffsetBytes, copy, copy.offsetBytes, copy);
}

/** Whether one copies to where the other copies from or to: then their order is of account. */
function meet(a: CopyInFlight, b: CopyInFlight): boolean {
  return (
    (a.target === b.target && overlap(a.offsetBytes, a, b.offsetBytes, b)) ||
    (a.target === b.source && overlap(a.offsetBytes, a, b.sourceOffsetBytes, b)) ||
    (a.source === b.target && overlap(a.sourceOffsetBytes, a, b.offsetBytes, b))
  );
}

/** Far more than any work takes: beyond it, operations are stuck while timers go on. */
const maxEventsOfWork = 300_000;
