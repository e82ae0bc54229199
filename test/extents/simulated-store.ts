/** An extent store on a simulated disk and map, and what the tests say to it. */
import { KiB } from '../../daemon/base/limits.ts';
import type { ChunkUpdate, VolumeChunks } from '../../daemon/extents/extent-store.ts';
import { ExtentStore } from '../../daemon/extents/extent-store.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';
import { SimulatedClock } from '../simulation/simulated-clock.ts';
import { SimulatedDisk } from '../simulation/simulated-disk.ts';
import { SimulatedMapStore } from '../simulation/simulated-map-store.ts';

/** Content that tells which chunk it is and which of its versions. */
export function content(chunkSizeBytes: number, tag: number): Buffer {
  const data = Buffer.alloc(chunkSizeBytes);
  for (let at = 0; at < chunkSizeBytes; at += 512) data.writeUInt32LE(tag, at);
  return data;
}

export interface Knobs {
  segmentSizeBytes?: number;
  pageCacheLimitPages?: number;
  chunkCacheBytes?: number;
}

export class SimulatedStore {
  readonly random: SeededRandom;
  readonly clock: SimulatedClock;
  readonly warnings: object[] = [];
  disk: SimulatedDisk;
  maps: SimulatedMapStore;
  store!: ExtentStore;
  private readonly knobs: Knobs;

  static async open(seed: number, knobs: Knobs = {}): Promise<SimulatedStore> {
    const simulated = new SimulatedStore(seed, knobs);
    await simulated.openStore();
    return simulated;
  }

  private constructor(seed: number, knobs: Knobs) {
    this.random = new SeededRandom(seed);
    this.clock = new SimulatedClock(this.random.fork());
    this.disk = new SimulatedDisk(this.clock, this.random.fork());
    const chance = this.random.fork();
    this.maps = new SimulatedMapStore({
      schedule: (fire) => this.clock.schedule(fire),
      random: () => chance.next(),
    });
    this.knobs = { segmentSizeBytes: 256 * KiB, ...knobs };
  }

  async openStore(): Promise<void> {
    const log = { warn: (facts: object) => void this.warnings.push(facts) };
    const open = ExtentStore.open({
      stores: [{ disk: this.disk, tier: 'hot' }],
      maps: this.maps,
      log,
      ...this.knobs,
    });
    this.store = await this.clock.settle(open);
  }

  async reopen(): Promise<void> {
    await this.clock.settle(this.store.close());
    await this.openStore();
  }

  async crash(kind: 'process' | 'power'): Promise<void> {
    this.disk = this.disk.crash(kind);
    this.maps = this.maps.crash();
    await this.openStore();
  }

  put(volume: VolumeChunks, chunks: Record<number, Buffer | null>): Promise<void> {
    return this.clock.settle(this.store.store(updates(volume, chunks)));
  }

  read(volume: VolumeChunks, offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    return this.clock.settle(readFrom(this.store, volume, offsetBytes, lengthBytes));
  }

  chunk(volume: VolumeChunks, chunkIndex: number): Promise<Buffer> {
    return this.read(volume, chunkIndex * volume.chunkSizeBytes, volume.chunkSizeBytes);
  }

  compact(): Promise<boolean> {
    return this.clock.settle(this.store.compactOnce());
  }

  segmentFiles(): Promise<string[]> {
    return this.clock.settle(this.disk.list('segments'));
  }
}

export function updates(volume: VolumeChunks, chunks: Record<number, Buffer | null>): ChunkUpdate[] {
  return Object.entries(chunks).map(([index, data]) => ({ ...volume, chunkIndex: Number(index), data }));
}

export function readFrom(
  store: ExtentStore,
  volume: VolumeChunks,
  offsetBytes: number,
  lengthBytes: number,
): Promise<Buffer> {
  // Old content, so that what a read leaves out is seen.
  const target = Buffer.alloc(lengthBytes, 0xee);
  return new Promise((resolve, reject) => {
    store.read(volume, offsetBytes, target, (error) => (error ? reject(error) : resolve(target)));
  });
}
