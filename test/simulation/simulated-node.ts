/** One node's data path on a simulated disk, crashed and started again under a writer that checks every block. */
import { blockSizeBytes, MiB, sectorSizeBytes } from '../../daemon/base/limits.ts';
import { LocalReplica } from '../../daemon/replica/local-replica.ts';
import type { VolumeIdentity } from '../../daemon/replica/replica.ts';
import { Volume } from '../../daemon/volume/volume.ts';
import { type Loss, SectorLedger } from './sector-ledger.ts';
import { SeededRandom } from './seeded-random.ts';
import { SimulatedClock } from './simulated-clock.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { SimulatedMapStore } from './simulated-map-store.ts';

export interface NodeOptions {
  seed: number;
  durability: 'flush' | 'sync';
  volumeBytes?: number;
  /** Operations in flight at most. */
  depth?: number;
  journalFileBytes?: number;
}

const quiet = { info() {}, warn() {} };
/** Small, so that a few hundred operations fill it and the drain runs under them. */
const journalFiles = 4;
const longestWriteSectors = 512;

export class SimulatedNode {
  readonly clock: SimulatedClock;
  readonly ledger = new SectorLedger();
  readonly random: SeededRandom;
  readonly identity: VolumeIdentity;
  readonly volumeBytes: number;
  readonly #durability: 'flush' | 'sync';
  readonly #depth: number;
  readonly #journalFileBytes: number;
  disk: SimulatedDisk;
  replica!: LocalReplica;
  volume!: Volume;
  #maps: SimulatedMapStore;
  #starts = 0;
  #inFlight = 0;
  /** What went wrong, in words; the first is what matters. */
  readonly faults: string[] = [];
  operations = 0;

  constructor(options: NodeOptions) {
    this.random = new SeededRandom(options.seed);
    this.clock = new SimulatedClock(this.random.fork());
    this.disk = new SimulatedDisk(this.clock, this.random.fork());
    const mapRandom = this.random.fork();
    this.#maps = new SimulatedMapStore({
      schedule: (fire) => this.clock.schedule(fire),
      random: () => mapRandom.next(),
    });
    this.#durability = options.durability;
    this.#depth = options.depth ?? 12;
    this.#journalFileBytes = options.journalFileBytes ?? MiB;
    this.volumeBytes = options.volumeBytes ?? 12 * MiB;
    this.identity = { volumeKey: 1, chunkSizeBytes: this.random.chance(0.5) ? 16_384 : 65_536 };
  }

  async start(): Promise<void> {
    this.#starts += 1;
    const env = {
      disk: this.disk,
      maps: this.#maps,
      clock: this.clock,
      random: this.random.fork(),
      log: quiet,
    };
    const options = {
      volumes: [this.identity],
      journalFileBytes: this.#journalFileBytes,
      journalCapacityBytes: journalFiles * this.#journalFileBytes,
      reserveBytes: 0,
    };
    this.replica = await this.clock.settle(LocalReplica.open(env, options));
    this.volume = new Volume({
      identity: this.identity,
      sizeBytes: this.volumeBytes,
      durability: this.#durability,
      epoch: this.#starts,
      replica: this.replica,
    });
  }

  /** Ends the daemon cleanly. */
  async stop(): Promise<void> {
    await this.clock.settle(this.volume.close());
    await this.clock.settle(this.replica.close());
  }

  /** Ends the daemon at this very event: nothing it asked for is answered any more. */
  crash(loss: Loss): void {
    this.disk = this.disk.crash(loss);
    this.#maps = this.#maps.crash();
    this.#inFlight = 0;
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
    if (!(await this.clock.run(due)))
      this.faults.push('nothing is left to happen, and operations are unanswered');
  }

  /** Reads every block and compares; after a crash, with what that crash may have left. */
  async verify(loss: Loss | null): Promise<void> {
    const step = MiB;
    for (let at = 0; at < this.volumeBytes; at += step) {
      const bytes = Buffer.alloc(Math.min(step, this.volumeBytes - at), 0xee);
      const error = await this.clock.settle(
        new Promise<Error | null>((resolve) => this.volume.read(at, bytes, resolve)),
      );
      if (error !== null) this.faults.push(`reading at ${at}: ${error.message}`);
      for (let offset = 0; error === null && offset < bytes.length; offset += blockSizeBytes) {
        const block = (at + offset) / blockSizeBytes;
        const found = bytes.subarray(offset, offset + blockSizeBytes);
        const fault =
          loss === null ? this.ledger.verifyCurrent(block, found) : this.ledger.verify(block, found, loss);
        if (fault !== null) this.faults.push(fault);
      }
    }
  }

  #operate(life: number): void {
    this.operations += 1;
    this.#inFlight += 1;
    const dice = this.random.next();
    if (dice < 0.1) this.#flush(life);
    else if (dice < 0.2) this.#change(life, true);
    else if (dice < 0.3) this.#read(life);
    else this.#change(life, false);
  }

  #change(life: number, zero: boolean): void {
    const { random, volume, ledger } = this;
    // Half of the writes go to a small region, so that blocks are written again before they are drained.
    const sectors = this.volumeBytes / sectorSizeBytes;
    const aligned = random.chance(0.8) ? blockSizeBytes / sectorSizeBytes : 1;
    const length = Math.max(1, Math.floor(longestWriteSectors ** random.next() / aligned)) * aligned;
    const region = random.chance(0.5) ? sectors / 16 : sectors;
    const first = Math.floor(random.below(Math.max(1, region - length)) / aligned) * aligned;
    const [offsetBytes, lengthBytes] = [first * sectorSizeBytes, length * sectorSizeBytes];
    const generation = ledger.begin(offsetBytes, lengthBytes, zero);
    const fua = random.chance(0.1);
    const done = (error: Error | null): void => {
      if (life !== this.#starts) return;
      this.#inFlight -= 1;
      if (error !== null) this.faults.push(`a change was refused: ${error.message}`);
      else ledger.acknowledge(generation, offsetBytes, lengthBytes, fua || this.#durability === 'sync');
    };
    if (zero) {
      volume.unmap(offsetBytes, lengthBytes, fua, done);
      return;
    }
    const data = Buffer.alloc(lengthBytes);
    ledger.fill(data, offsetBytes, generation);
    volume.write(offsetBytes, data, fua, done);
  }

  #flush(life: number): void {
    const promised = this.ledger.beginFlush();
    this.volume.flush((error) => {
      if (life !== this.#starts) return;
      this.#inFlight -= 1;
      if (error !== null) this.faults.push(`a flush failed: ${error.message}`);
      else promised();
    });
  }

  /** What it reads may be changing; it must be whole all the same. */
  #read(life: number): void {
    const sectors = this.volumeBytes / sectorSizeBytes;
    const first = this.random.below(sectors - 256);
    const bytes = Buffer.alloc(this.random.between(1, 256) * sectorSizeBytes);
    this.volume.read(first * sectorSizeBytes, bytes, (error) => {
      if (life !== this.#starts) return;
      this.#inFlight -= 1;
      if (error !== null) this.faults.push(`a read failed: ${error.message}`);
    });
  }
}
