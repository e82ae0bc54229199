/** Random work on a store that crashes at random moments, against a plain model. A seed replays exactly. */
import t from 'tap';
import { KiB } from '../../daemon/base/limits.ts';
import type { ChunkUpdate, VolumeChunks } from '../../daemon/extents/extent-store.ts';
import { payloadRoomBytes } from '../../daemon/format/segment.ts';
import { content, readFrom, SimulatedStore } from './simulated-store.ts';

const seeds = 40;
const roundsPerSeed = 14;
const volumes: VolumeChunks[] = [
  { volumeKey: 1, chunkSizeBytes: 4 * KiB },
  { volumeKey: 2, chunkSizeBytes: 16 * KiB },
];
/** Chunks of a volume that are worked on: the end of one extent and the start of the next. */
const chunksPerVolume = 48;

/** The tag of each chunk's content by volume and chunk; 0: a hole. */
type Model = Map<string, number>;

class Scenario {
  readonly fabric: SimulatedStore;
  model: Model = new Map();
  private nextTag = 1;

  constructor(fabric: SimulatedStore) {
    this.fabric = fabric;
  }

  indexOf(volume: VolumeChunks, nth: number): number {
    return (4096 * KiB) / volume.chunkSizeBytes - chunksPerVolume / 2 + nth;
  }

  batch(): { updates: ChunkUpdate[]; after: Model } {
    const { random } = this.fabric;
    const after = new Map(this.model);
    const updates = new Map<string, ChunkUpdate>();
    const first = random.below(chunksPerVolume);
    for (let count = random.between(1, 25); count > 0; count--) {
      const volume = random.pick(volumes);
      const nth = random.chance(0.5) ? random.below(chunksPerVolume) : (first + count) % chunksPerVolume;
      const chunkIndex = this.indexOf(volume, nth);
      const key = `${volume.volumeKey}/${chunkIndex}`;
      if (updates.has(key)) continue;
      const tag = random.chance(0.2) ? 0 : this.nextTag++;
      const data = tag === 0 && random.chance(0.5) ? null : content(volume.chunkSizeBytes, tag);
      updates.set(key, { ...volume, chunkIndex, data });
      after.set(key, tag);
    }
    return { updates: [...updates.values()], after };
  }

  /** Everything that was worked on, read in few long reads. */
  async contents(): Promise<Model> {
    const found: Model = new Map();
    for (const volume of volumes) {
      const first = this.indexOf(volume, 0);
      const bytes = await this.fabric.read(
        volume,
        first * volume.chunkSizeBytes,
        chunksPerVolume * volume.chunkSizeBytes,
      );
      for (let nth = 0; nth < chunksPerVolume; nth++) {
        const chunk = bytes.subarray(nth * volume.chunkSizeBytes, (nth + 1) * volume.chunkSizeBytes);
        const tag = chunk.readUInt32LE(0);
        if (!chunk.equals(content(volume.chunkSizeBytes, tag))) throw new Error(`a torn chunk, ${tag}`);
        if (tag !== 0) found.set(`${volume.volumeKey}/${first + nth}`, tag);
      }
    }
    return found;
  }

  /** Reads while a batch is stored: each chunk as it was before or as it is after. */
  async readDuring(before: Model, after: Model): Promise<void> {
    const volume = this.fabric.random.pick(volumes);
    const chunkIndex = this.indexOf(volume, this.fabric.random.below(chunksPerVolume));
    const size = volume.chunkSizeBytes;
    const bytes = await readFrom(this.fabric.store, volume, chunkIndex * size, size);
    const tag = bytes.readUInt32LE(0);
    const key = `${volume.volumeKey}/${chunkIndex}`;
    const allowed = [before.get(key) ?? 0, after.get(key) ?? 0];
    if (!allowed.includes(tag) || !bytes.equals(content(size, tag))) {
      throw new Error(`${key} reads ${tag} while it goes from ${allowed}`);
    }
  }

  liveBytes(): number {
    let bytes = 0;
    for (const [key, tag] of this.model) {
      if (tag !== 0) bytes += payloadRoomBytes(key.startsWith('1/') ? 4 * KiB : 16 * KiB);
    }
    return bytes;
  }
}

function stored(model: Model): string {
  return JSON.stringify([...model].filter(([, tag]) => tag !== 0).sort());
}

/** One batch, and perhaps a crash in it; the model says afterwards what is stored. */
async function round(scenario: Scenario): Promise<void> {
  const { fabric } = scenario;
  const { random, clock } = fabric;
  const { updates, after } = scenario.batch();
  const before = scenario.model;
  let isStored = false;
  let failure: unknown = null;
  const note = (error: unknown) => {
    failure ??= error;
  };
  const storing = fabric.store.store(updates).then(() => {
    isStored = true;
  }, note);
  const compacting = random.chance(0.4) ? fabric.store.compactOnce().then(() => undefined, note) : null;
  const reads = Array.from({ length: 4 }, () => scenario.readDuring(before, after).catch(note));
  if (random.chance(0.5)) {
    const steps = fabric.disk.operationCount + random.below(60);
    await clock.run(() => fabric.disk.operationCount >= steps || (isStored && random.chance(0.2)));
    const wasStored = isStored;
    await fabric.crash(random.chance(0.7) ? 'power' : 'process');
    const found = stored(await scenario.contents());
    if (found === stored(after)) scenario.model = after;
    else if (wasStored || found !== stored(before)) {
      throw new Error('after the crash neither the old nor the new state is there');
    }
  } else {
    await clock.settle(Promise.all([storing, compacting, ...reads]));
    scenario.model = after;
    if (stored(await scenario.contents()) !== stored(after)) throw new Error('what was stored is not read');
    if (random.chance(0.2)) await fabric.reopen();
  }
  if (failure) throw failure;
  const { liveBytes } = fabric.store.totals();
  if (liveBytes !== scenario.liveBytes()) throw new Error(`live bytes: ${liveBytes}`);
}

t.test('after any crash a batch is there whole or not at all, and whole once it was answered', async (t) => {
  let compactions = 0;
  for (let seed = 1; seed <= seeds; seed++) {
    // A cache of one page and one of many behave alike.
    const pageCacheLimitPages = seed % 2 === 0 ? 1 : 100;
    const fabric = await SimulatedStore.open(seed, { pageCacheLimitPages });
    const scenario = new Scenario(fabric);
    try {
      for (let nth = 0; nth < roundsPerSeed; nth++) await round(scenario);
      while (await fabric.compact()) compactions++;
      if (stored(await scenario.contents()) !== stored(scenario.model))
        throw new Error('compaction lost data');
      await fabric.crash('power');
      if (stored(await scenario.contents()) !== stored(scenario.model))
        throw new Error('the end is not kept');
      t.equal(fabric.warnings.length, 0, `seed ${seed}`);
    } catch (error) {
      t.fail(`seed ${seed}`, { cause: error });
    }
  }
  t.ok(compactions > 10, `segments were compacted (${compactions})`);
});
