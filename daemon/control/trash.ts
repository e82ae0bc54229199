/**
 * The way out of the catalog:
 *
 *     online --remove--> trash --purgeAt, or asked for--> purging --data destroyed--> gone
 *       ^                  |
 *       +-----restore------+        (removed with `purge`, or no retention: online -> purging)
 *
 * A removed volume frees its name at once and its space when it is gone. `purging` is recorded before any data is
 * touched: from there only forward, also after a crash.
 */
import { WeftError } from '../base/errors.ts';
import type { Timer } from '../env/clock.ts';
import type { CatalogCore } from './catalog.ts';
import type { Claims } from './claims.ts';
import { bookContainer } from './containers.ts';
import type { VolumeRecord } from './documents.ts';
import { readOnline, refuseTakenName } from './volumes.ts';

/** How long a timer runs at most: the wall clock may have jumped meanwhile. */
const longestWaitMs = 3_600_000;
/** After a purge that failed. */
const retryAfterMs = 60_000;

export class Trash {
  readonly #core: CatalogCore;
  readonly #claims: Claims;
  #timer: Timer | null = null;
  #running: Promise<void> | null = null;
  #started = false;

  constructor(core: CatalogCore, claims: Claims) {
    this.#core = core;
    this.#claims = claims;
  }

  /** Goes on with interrupted purges and purges what is due, now and whenever something is. */
  start(): void {
    this.#started = true;
    this.#purgeDue();
  }

  stop(): void {
    this.#started = false;
    this.#timer?.cancel();
    this.#timer = null;
  }

  /** Resolves when the background has nothing under way. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** The last removed first. Those being purged are still in it, and cannot be restored. */
  list(): VolumeRecord[] {
    return this.#core.volumes
      .values()
      .filter((volume) => volume.state !== 'online')
      .sort((a, b) => ((a.removedAt ?? '') < (b.removedAt ?? '') ? 1 : -1));
  }

  /** @throws WeftError NOT_FOUND. */
  find(id: string): VolumeRecord {
    const volume = this.#core.volumes.get(id);
    if (volume === undefined || volume.state === 'online') throw notInTrash(id);
    return volume;
  }

  /**
   * Takes a volume out of use.
   * @param options force: whoever uses it is dropped. purge: it does not lie in the trash first.
   * @returns the volume in the trash, or null when it is gone and its space given back.
   * @throws WeftError NOT_FOUND; IN_USE naming who uses it.
   */
  async remove(
    volumeId: string,
    name: string,
    options: { force: boolean; purge: boolean },
  ): Promise<VolumeRecord | null> {
    const removed = await this.#core.turns.take(volumeId, async () => {
      const removed = await this.#core.change((change) => {
        const volume = readOnline(this.#core, change, volumeId, name);
        if (!options.force) this.#claims.refuseInUse(volume);
        const retentionSeconds = this.#core.containers.get(volume.container)?.trashRetentionSeconds ?? 0;
        const nowMs = this.#core.clock.nowMs();
        const removed: VolumeRecord = {
          ...volume,
          state: options.purge || retentionSeconds === 0 ? 'purging' : 'trash',
          removedAt: new Date(nowMs).toISOString(),
          purgeAt: new Date(nowMs + (options.purge ? 0 : retentionSeconds * 1000)).toISOString(),
          claim: null,
        };
        change.put(this.#core.volumes, volumeId, removed);
        change.remove(this.#core.volumeNames, volume.name);
        return removed;
      });
      await this.#core.host.withdraw(removed);
      return removed;
    });
    if (removed.state === 'trash') {
      this.#arm();
      return removed;
    }
    await this.purge(volumeId);
    return null;
  }

  /** The one of this name that was removed last. @throws WeftError NOT_FOUND. */
  newestOf(name: string, manages: (volume: VolumeRecord) => boolean): VolumeRecord {
    const found = this.list().find(
      (volume) => volume.name === name && volume.state === 'trash' && manages(volume),
    );
    if (found !== undefined) return found;
    throw new WeftError(
      'NOT_FOUND',
      `there is no volume ${name} in the trash; "weft trash ls" shows what is there`,
    );
  }

  /**
   * @param as another name for it; null: the one it had.
   * @throws WeftError NOT_FOUND; ALREADY_EXISTS when the name is taken; CONFLICT when it is being purged.
   */
  async restore(id: string, as: string | null): Promise<VolumeRecord> {
    return this.#core.turns.take(id, async () => {
      const restored = await this.#core.change((change) => {
        const volume = change.read(this.#core.volumes, id);
        if (volume === undefined || volume.state === 'online') throw notInTrash(id);
        if (volume.state === 'purging') {
          throw new WeftError('CONFLICT', `volume ${volume.name} is being purged and cannot come back`);
        }
        const name = as ?? volume.name;
        refuseTakenName(this.#core, change, name, '; restore it under another name: --as NEWNAME');
        const restored: VolumeRecord = { ...volume, name, state: 'online', removedAt: null, purgeAt: null };
        change.put(this.#core.volumes, id, restored);
        change.put(this.#core.volumeNames, name, { schemaVersion: 1, id });
        return restored;
      });
      this.#core.host.serve(restored);
      return restored;
    });
  }

  /**
   * Destroys the data; the space is given back when this resolves. No error when somebody else did it meanwhile.
   * @throws WeftError CONFLICT when it was restored meanwhile.
   */
  async purge(id: string): Promise<void> {
    await this.#core.turns.take(id, async () => {
      const doomed = await this.#core.change((change) => {
        const volume = change.read(this.#core.volumes, id);
        if (volume === undefined) return null;
        if (volume.state === 'online') {
          throw new WeftError('CONFLICT', `volume ${volume.name} was restored; it is not purged`);
        }
        if (volume.state === 'trash') change.put(this.#core.volumes, id, { ...volume, state: 'purging' });
        return volume;
      });
      if (doomed === null) return;
      await this.#core.host.destroy(doomed.volumeKey);
      await this.#core.change((change) => {
        change.remove(this.#core.volumes, id);
        change.remove(this.#core.unitStates, id);
        bookContainer(this.#core, change, doomed.container, { volumes: -1, bytes: -doomed.sizeBytes });
      });
    });
  }

  #purgeDue(): void {
    // A run under way sets the timer when it ends.
    if (this.#running !== null) return;
    this.#running = this.#purgeAllDue().then((failed) => {
      this.#running = null;
      this.#arm(failed ? retryAfterMs : 0);
    });
  }

  /** Whether any purge failed. */
  async #purgeAllDue(): Promise<boolean> {
    let failed = false;
    const nowMs = this.#core.clock.nowMs();
    for (const volume of this.list()) {
      if (!this.#started) break;
      if (volume.state === 'trash' && dueAtMs(volume) > nowMs) continue;
      try {
        await this.purge(volume.id);
      } catch (error) {
        failed = true;
        this.#core.onFault(error as Error);
      }
    }
    return failed;
  }

  /** Sets the timer to the next volume that is due, `atLeastMs` from now. */
  #arm(atLeastMs = 0): void {
    this.#timer?.cancel();
    this.#timer = null;
    if (!this.#started) return;
    const waiting = this.list();
    if (waiting.length === 0) return;
    const nextMs = Math.min(...waiting.map(dueAtMs)) - this.#core.clock.nowMs();
    const delayMs = Math.min(longestWaitMs, Math.max(nextMs, atLeastMs, 0));
    this.#timer = this.#core.clock.after(delayMs, () => this.#purgeDue());
  }
}

function dueAtMs(volume: VolumeRecord): number {
  return volume.purgeAt === null ? 0 : Date.parse(volume.purgeAt);
}

function notInTrash(id: string): WeftError {
  return new WeftError(
    'NOT_FOUND',
    `there is no volume ${id} in the trash; "weft trash ls" shows what is there`,
  );
}
