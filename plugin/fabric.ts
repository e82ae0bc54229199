/**
 * The fabric as the plugin knows it: what it last said is kept in memory and on disk, because dockerd takes any error
 * from Get to mean that the volume is gone, and a fabric that is away must not make volumes gone.
 */
import { WeftClient } from '../daemon/api/client.ts';
import type { Volume } from '../daemon/api/schema.ts';
import { asWeftError } from '../daemon/base/errors.ts';
import type { RecordStore } from './records.ts';
import type { Settings } from './settings.ts';

/** For calls that change something, or that have nothing in memory to answer from. */
const callTimeoutMs = 10_000;
/** For calls that only make an answer from memory fresher. */
const freshenTimeoutMs = 1_500;
/** After a failure no answer waits for the fabric for this long: memory is all there is. */
const quietAfterFailureMs = 3_000;
/** A list this young is fresh. */
const listFreshMs = 1_000;

export class Fabric {
  readonly client: WeftClient;
  readonly #quickClient: WeftClient;
  readonly #store: RecordStore;
  readonly #volumes = new Map<string, Volume>();
  #failedAtMs = Number.NEGATIVE_INFINITY;
  #listedAtMs = Number.NEGATIVE_INFINITY;
  #listing: Promise<void> | null = null;
  #saving: Promise<void> = Promise.resolve();

  constructor(settings: Settings, store: RecordStore, remembered: readonly Volume[]) {
    const credentials =
      settings.token !== null
        ? { token: settings.token }
        : settings.username !== null && settings.password !== null
          ? { username: settings.username, password: settings.password }
          : {};
    this.client = new WeftClient({ url: settings.url, ...credentials, timeoutMs: callTimeoutMs });
    this.#quickClient = new WeftClient({ url: settings.url, ...credentials, timeoutMs: freshenTimeoutMs });
    this.#store = store;
    for (const volume of remembered) this.#volumes.set(volume.name, volume);
  }

  remembered(name: string): Volume | undefined {
    return this.#volumes.get(name);
  }

  /** Whatever was just learned about a volume. */
  async remember(volume: Volume): Promise<void> {
    this.#volumes.set(volume.name, volume);
    await this.#save();
  }

  async forget(name: string): Promise<void> {
    if (this.#volumes.delete(name)) await this.#save();
  }

  /**
   * The volume as the fabric has it now if it answers soon, otherwise as it was; null when there is none.
   * @throws WeftError when the fabric does not answer and the volume was never heard of.
   */
  async look(name: string): Promise<Volume | null> {
    const known = this.#volumes.get(name);
    if (known !== undefined && performance.now() - this.#failedAtMs < quietAfterFailureMs) return known;
    try {
      const volume = await (known === undefined ? this.client : this.#quickClient).volume(name);
      this.#volumes.set(name, volume);
      return volume;
    } catch (thrown) {
      const error = asWeftError(thrown);
      if (error.code === 'NOT_FOUND') return null;
      this.#failedAtMs = performance.now();
      if (known !== undefined) return known;
      throw error;
    }
  }

  /** All own volumes, from memory when the fabric does not answer soon. */
  async list(): Promise<Volume[]> {
    const now = performance.now();
    if (now - this.#listedAtMs > listFreshMs && now - this.#failedAtMs > quietAfterFailureMs) {
      await this.refresh().catch(() => {});
    }
    return [...this.#volumes.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws WeftError when the fabric does not answer; what is remembered stays. */
  refresh(): Promise<void> {
    this.#listing ??= this.#refresh().finally(() => {
      this.#listing = null;
    });
    return this.#listing;
  }

  async #refresh(): Promise<void> {
    try {
      const volumes = await this.#quickClient.volumes();
      this.#volumes.clear();
      for (const volume of volumes) this.#volumes.set(volume.name, volume);
      this.#listedAtMs = performance.now();
      this.#failedAtMs = Number.NEGATIVE_INFINITY;
      await this.#save();
    } catch (error) {
      this.#failedAtMs = performance.now();
      throw error;
    }
  }

  #save(): Promise<void> {
    // One after the other: they write the same file.
    this.#saving = this.#saving
      .catch(() => {})
      .then(() => this.#store.saveVolumes([...this.#volumes.values()]));
    return this.#saving;
  }
}
