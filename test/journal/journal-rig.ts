/** A journal on a simulated disk, with a ledger of what was written and a stand-in for the extent store. */
import { blockSizeBytes } from '../../daemon/base/limits.ts';
import { Journal, type JournalOptions } from '../../daemon/journal/journal.ts';
import { SectorLedger } from '../simulation/sector-ledger.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';
import { SimulatedClock } from '../simulation/simulated-clock.ts';
import { type DiskOptions, SimulatedDisk } from '../simulation/simulated-disk.ts';

export const smallFiles: JournalOptions = { fileSizeBytes: 128 * 1024, capacityBytes: 1024 * 1024 };

export class JournalRig {
  readonly random: SeededRandom;
  readonly clock: SimulatedClock;
  readonly options: JournalOptions;
  readonly ledgers = new Map<number, SectorLedger>();
  /** What was drained: durable at once. "volume/block" -> content. */
  readonly stored = new Map<string, Buffer>();
  readonly touched = new Map<number, Set<number>>();
  readonly logged: string[] = [];
  disk: SimulatedDisk;
  journal!: Journal;
  #sequence = 0;

  constructor(seed: number, options: JournalOptions = smallFiles, disk: Partial<DiskOptions> = {}) {
    this.random = new SeededRandom(seed);
    this.clock = new SimulatedClock(this.random.fork());
    this.disk = new SimulatedDisk(this.clock, this.random.fork(), disk);
    this.options = options;
  }

  static async open(
    seed = 1,
    options: JournalOptions = {},
    disk: Partial<DiskOptions> = {},
  ): Promise<JournalRig> {
    const rig = new JournalRig(seed, { ...smallFiles, ...options }, disk);
    await rig.open();
    return rig;
  }

  async open(): Promise<void> {
    this.journal = await this.clock.settle(this.opening());
  }

  opening(options: JournalOptions = {}): Promise<Journal> {
    const log = (message: string) => this.logged.push(message);
    const env = { disk: this.disk, clock: this.clock, random: this.random, log };
    return Journal.open(env, { ...this.options, ...options });
  }

  /** Starts a write; resolves when it is acknowledged. */
  write(volumeKey: number, block: number, count: number, durable = false): Promise<void> {
    const ledger = this.#ledger(volumeKey, block, count);
    const [offsetBytes, lengthBytes] = [block * blockSizeBytes, count * blockSizeBytes];
    const generation = ledger.begin(offsetBytes, lengthBytes, false);
    const data = Buffer.alloc(lengthBytes);
    ledger.fill(data, offsetBytes, generation);
    return this.#append('write', volumeKey, offsetBytes, lengthBytes, generation, data, durable);
  }

  zero(volumeKey: number, block: number, count: number, durable = false): Promise<void> {
    const ledger = this.#ledger(volumeKey, block, count);
    const [offsetBytes, lengthBytes] = [block * blockSizeBytes, count * blockSizeBytes];
    const generation = ledger.begin(offsetBytes, lengthBytes, true);
    return this.#append('zero', volumeKey, offsetBytes, lengthBytes, generation, null, durable);
  }

  flush(): Promise<void> {
    const kept = [...this.ledgers.values()].map((ledger) => ledger.beginFlush());
    return new Promise((resolve, reject) => {
      this.journal.flush((error) => {
        if (!error) for (const keep of kept) keep();
        if (error) reject(error);
        else resolve();
      });
    });
  }

  /** The newest content: the journal's, else what was drained, else zeros. */
  async read(volumeKey: number, block: number): Promise<Buffer> {
    const run = this.journal.index.runs(volumeKey, block, 1)[0]!;
    if (run.kind === 'zero') return Buffer.alloc(blockSizeBytes);
    if (run.kind === 'below') return this.stored.get(`${volumeKey}/${block}`) ?? Buffer.alloc(blockSizeBytes);
    const target = Buffer.alloc(blockSizeBytes, 0xee);
    await new Promise<void>((resolve, reject) => {
      this.journal.read(volumeKey, run, target, (error) => (error ? reject(error) : resolve()));
    });
    return target;
  }

  /** Drains the oldest sealed file as the real drain does: store what is still the newest, forget it, release. */
  async drainOldest(): Promise<boolean> {
    const { journal } = this;
    const file = journal.sealedFiles()[0];
    if (!file) return false;
    for (const record of file.records) {
      const [first, count] = [record.offsetBytes / blockSizeBytes, record.lengthBytes / blockSizeBytes];
      for (const run of journal.index.runs(record.volumeKey, first, count)) {
        if (run.kind === 'below' || journal.fileOf(run.address) !== file.fileNumber) continue;
        const data = Buffer.alloc(run.kind === 'journal' ? run.count * blockSizeBytes : 0);
        if (run.kind === 'journal') {
          await new Promise<void>((resolve, reject) => {
            journal.read(record.volumeKey, run, data, (error) => (error ? reject(error) : resolve()));
          });
        }
        for (let at = 0; at < run.count; at += 1) {
          const key = `${record.volumeKey}/${run.block + at}`;
          if (run.kind === 'zero') this.stored.delete(key);
          else this.stored.set(key, data.subarray(at * blockSizeBytes, (at + 1) * blockSizeBytes));
        }
        journal.index.remove(record.volumeKey, run);
      }
    }
    await journal.release(file.fileNumber);
    return true;
  }

  crash(kind: 'process' | 'power'): void {
    this.disk = this.disk.crash(kind);
  }

  /** Compares every block that was ever touched with what may be there after the loss; null when all is well. */
  async verify(loss: 'process' | 'power' | 'none'): Promise<string | null> {
    for (const [volumeKey, ledger] of this.ledgers) {
      for (const block of this.touched.get(volumeKey)!) {
        const bytes = await this.clock.settle(this.read(volumeKey, block));
        const wrong =
          loss === 'none' ? ledger.verifyCurrent(block, bytes) : ledger.verify(block, bytes, loss);
        if (wrong !== null) return `volume ${volumeKey}: ${wrong}`;
      }
    }
    return null;
  }

  #append(
    kind: 'write' | 'zero',
    volumeKey: number,
    offsetBytes: number,
    lengthBytes: number,
    generation: number,
    data: Buffer | null,
    durable: boolean,
  ): Promise<void> {
    this.#sequence += 1;
    const record = { kind, volumeKey, offsetBytes, lengthBytes, epoch: 1, sequence: this.#sequence, data };
    const ledger = this.ledgers.get(volumeKey)!;
    return new Promise((resolve, reject) => {
      this.journal.append(record, durable, (error) => {
        if (!error) ledger.acknowledge(generation, offsetBytes, lengthBytes, durable);
        if (error) reject(error);
        else resolve();
      });
    });
  }

  #ledger(volumeKey: number, block: number, count: number): SectorLedger {
    if (!this.ledgers.has(volumeKey)) {
      this.ledgers.set(volumeKey, new SectorLedger());
      this.touched.set(volumeKey, new Set());
    }
    const touched = this.touched.get(volumeKey)!;
    for (let at = block; at < block + count; at += 1) touched.add(at);
    return this.ledgers.get(volumeKey)!;
  }
}
