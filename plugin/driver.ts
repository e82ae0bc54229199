/**
 * The VolumeDriver: Docker's calls, turned into what happens to volumes of the fabric and of this host.
 *
 * Mounts are counted per mount id. Counts of this process are dockerd's own words; those of an earlier process are
 * "carried": dockerd may have forgotten them (it was killed, too) or may still rely on them (only the plugin was).
 * Who uses the device decides: when the last count of this process goes, and carried ones are left, the volume is
 * unmounted here, and mounted again if a Docker container turns out to hold it still.
 */
import type { Logger } from 'pino';
import type { Volume } from '../daemon/api/schema.ts';
import { asWeftError, WeftError } from '../daemon/base/errors.ts';
import { formatSize } from '../daemon/base/size.ts';
import { HostVolume, type HostVolumeEnvironment } from './host-volume.ts';
import {
  optionDifferences,
  optionHelp,
  optionsOfVolume,
  optionsToLabels,
  type RequestedVolume,
  resolveOptions,
} from './options.ts';
import type { DriverRequest } from './protocol.ts';
import { countDown, countOf, countUp, newRecord, type VolumeRecord } from './records.ts';
import { type Job, VolumeQueue } from './volume-queue.ts';

/** The tightest limit dockerd may have: `docker plugin enable` sets 30 s for every call. */
export const callLimitMs = 25_000;

export class VolumeDriver {
  readonly queue = new VolumeQueue();
  /** What is used on this host, or has yet to be taken away. */
  readonly volumes = new Map<string, HostVolume>();
  readonly #env: HostVolumeEnvironment;
  readonly #bootId: string;
  readonly #log: Logger;
  readonly #limitMs: number;

  constructor(env: HostVolumeEnvironment, bootId: string, limitMs = callLimitMs) {
    this.#env = env;
    this.#bootId = bootId;
    this.#log = env.log;
    this.#limitMs = limitMs;
  }

  adopt(record: VolumeRecord): HostVolume {
    const volume = new HostVolume(this.#env, record);
    this.volumes.set(record.name, volume);
    return volume;
  }

  async call(request: DriverRequest, signal: AbortSignal): Promise<Record<string, unknown>> {
    const bounded = <Result>(name: string, work: (job: Job) => Promise<Result>) =>
      this.queue.runBounded(name, this.#limitMs, signal, work);
    switch (request.operation) {
      case 'Capabilities':
        return { Capabilities: { Scope: 'global' } };
      case 'Create':
        await bounded(request.Name, (job) => this.#create(job, request.Name, request.Opts ?? {}));
        return {};
      case 'Remove':
        await bounded(request.Name, (job) => this.#remove(job, request.Name));
        return {};
      case 'Mount':
        return {
          Mountpoint: await bounded(request.Name, (job) => this.#mount(job, request.Name, request.ID)),
        };
      case 'Unmount':
        await bounded(request.Name, (job) => this.#unmount(job, request.Name, request.ID));
        return {};
      case 'Path':
        return { Mountpoint: this.#mountpoint(request.Name) };
      case 'Get':
        return { Volume: await this.#get(request.Name) };
      case 'List':
        return { Volumes: await this.#list() };
    }
  }

  /** dockerd will never unmount what it does not know was mounted. */
  async undelivered(request: DriverRequest): Promise<void> {
    if (request.operation !== 'Mount') return;
    this.#log.info({ volume: request.Name, id: request.ID }, 'the caller went away: its mount is undone');
    await this.#background(request.Name, (job) => this.#unmount(job, request.Name, request.ID));
  }

  async #background(name: string, work: (job: Job) => Promise<void>): Promise<void> {
    await this.queue.run(name, { step: 'starting', abandoned: false }, work).catch((error) => {
      this.#log.warn({ volume: name, err: error }, 'background work on a volume failed; it is tried again');
    });
  }

  // ---- Create, Remove

  async #create(job: Job, name: string, given: Record<string, string>): Promise<void> {
    const { settings, fabric } = this.#env;
    if (Object.hasOwn(given, 'help')) {
      throw new WeftError('INVALID_ARGUMENT', optionHelp(settings.defaults, settings.overrides));
    }
    const requested = resolveOptions(given, settings);
    const { sizeBytes, container, durability } = requested.options;
    job.step = 'the fabric to create the volume';
    try {
      const made = await fabric.client.createVolume({
        name,
        sizeBytes,
        ...(container === null ? {} : { container }),
        ...(durability === null ? {} : { durability }),
        chap: 'auto',
        labels: optionsToLabels(requested.options),
      });
      await fabric.remember(made);
      this.#log.info({ volume: name, id: made.id }, 'created');
    } catch (thrown) {
      if (asWeftError(thrown).code !== 'ALREADY_EXISTS') throw thrown;
      await this.#acceptExisting(name, requested);
    }
  }

  /** The name is taken: by the same volume, or not. */
  async #acceptExisting(name: string, requested: RequestedVolume): Promise<void> {
    const { fabric } = this.#env;
    let existing: Volume;
    try {
      existing = await fabric.client.volume(name);
      // What another token made can perhaps be seen; only its own maker can attach it.
      await fabric.client.attachment(name);
    } catch (thrown) {
      const error = asWeftError(thrown);
      if (error.code !== 'FORBIDDEN' && error.code !== 'NOT_FOUND') throw error;
      throw new WeftError(
        'ALREADY_EXISTS',
        `the name ${name} is taken on the fabric by a volume of somebody else; choose another name`,
        { cause: error },
      );
    }
    const differences = optionDifferences(optionsOfVolume(existing), requested);
    if (differences.length > 0) {
      throw new WeftError(
        'CONFLICT',
        `volume ${name} exists with other options: ${differences.join('; ')}. Give the same ones, none, or another name`,
        { details: { differences } },
      );
    }
    await fabric.remember(existing);
  }

  async #remove(job: Job, name: string): Promise<void> {
    const { fabric, settings } = this.#env;
    if (this.volumes.has(name)) await this.settle(job, name);
    const used = this.volumes.get(name);
    if (used !== undefined) {
      const ids = [...new Set([...Object.keys(used.record.mounts), ...Object.keys(used.record.carried)])];
      throw new WeftError(
        'IN_USE',
        `volume ${name} is in use on ${settings.node} by ${used.uses} mount(s): ${ids.join(', ') || 'being taken away'}`,
        { details: { holder: settings.node, ids } },
      );
    }
    job.step = 'the fabric to remove the volume';
    try {
      await fabric.client.removeVolume(name);
    } catch (thrown) {
      const error = asWeftError(thrown);
      if (error.code === 'IN_USE' && error.details.holder === settings.node) {
        // A claim of this host that no record knows of: its record was damaged, or its release did not arrive.
        await fabric.client.releaseClaim(name, settings.node);
        await fabric.client.removeVolume(name);
      } else if (error.code !== 'NOT_FOUND') {
        throw error;
      }
    }
    await fabric.forget(name);
    this.#log.info({ volume: name }, 'removed');
  }

  // ---- Mount, Unmount

  async #mount(job: Job, name: string, id: string): Promise<string> {
    // What Docker containers held before another host had the volume is dead: see whether they are gone.
    if (this.volumes.get(name)?.record.claimLost === true) await this.settle(job, name);
    const standing = this.volumes.get(name);
    const volume = standing ?? (await this.#firstUse(job, name));
    try {
      await this.#makeUsable(job, volume);
    } catch (error) {
      if (volume.uses === 0) await this.#undoFirstUse(name, volume, job);
      throw error;
    }
    if (job.abandoned) {
      // Whoever waits behind will find it mounted; nobody else will ever ask to unmount it.
      if (this.queue.waiting(name) === 0) await this.settle(job, name);
      throw new WeftError('TIMEOUT', `volume ${name}: mounted after its caller had gone`);
    }
    countUp(volume.record, id);
    await volume.save();
    this.#log.info({ volume: name, id, mounts: volume.uses, path: volume.root }, 'mounted');
    return volume.root;
  }

  async #firstUse(job: Job, name: string): Promise<HostVolume> {
    job.step = 'the fabric to describe the volume';
    const { id, iqn } = await this.#env.fabric.client.volume(name);
    const volume = this.adopt(newRecord(name, id, iqn, this.#bootId));
    await volume.save();
    return volume;
  }

  /** Mounted, alive, and proved so, whatever state it is in. */
  async #makeUsable(job: Job, volume: HostVolume): Promise<void> {
    job.step = 'looking at what is mounted';
    const fault = await volume.fault();
    if (fault === null) return;
    if (volume.uses > 0)
      this.#log.warn({ volume: volume.record.name, fault }, 'its mount is no good: mounting anew');
    await volume.bringUp(job);
  }

  /** After a failed first mount: gives back what was taken, or leaves it to the next round. */
  async #undoFirstUse(name: string, volume: HostVolume, job: Job): Promise<void> {
    try {
      await volume.giveBack(job);
      this.volumes.delete(name);
    } catch (error) {
      this.#log.warn({ volume: name, err: error }, 'a failed mount is not yet taken away; it is tried again');
    }
  }

  async #unmount(job: Job, name: string, id: string): Promise<void> {
    const volume = this.volumes.get(name);
    if (volume === undefined) return;
    const known = countDown(volume.record, id);
    await volume.save();
    this.#log.info({ volume: name, id, known, mounts: volume.uses }, 'unmounted');
    await this.settle(job, name);
  }

  /**
   * Brings the host's state to what the counts say: nothing happens while this process has counted mounts; without
   * any the volume is given back, unless carried counts prove true.
   * @throws WeftError when something has to be tried again later; `tend` does.
   */
  async settle(job: Job, name: string): Promise<void> {
    const volume = this.volumes.get(name);
    if (volume === undefined || countOf(volume.record.mounts) > 0) return;
    if (countOf(volume.record.carried) > 0) {
      if (await volume.isHeldByOthers(job)) {
        await volume.bringUp(job);
        return;
      }
      this.#log.info(
        { volume: name, carried: volume.record.carried },
        'counts of an earlier process are over',
      );
      volume.record.carried = {};
      await volume.save();
    }
    await volume.giveBack(job);
    this.volumes.delete(name);
  }

  // ---- Path, Get, List

  #mountpoint(name: string): string {
    const volume = this.volumes.get(name);
    return volume === undefined || volume.uses === 0 ? '' : volume.root;
  }

  async #get(name: string): Promise<Record<string, unknown>> {
    const { fabric } = this.#env;
    const local = this.volumes.get(name);
    const volume = await fabric.look(name).catch((error) => {
      // An error would make dockerd forget a volume that is in use right here.
      if (local === undefined) throw error;
      return undefined;
    });
    if (volume === undefined)
      return { Name: name, Mountpoint: this.#mountpoint(name), Status: { state: 'the fabric is away' } };
    if (volume !== null) return this.#describe(volume);
    if (local !== undefined && local.uses > 0) {
      return {
        Name: name,
        Mountpoint: this.#mountpoint(name),
        Status: { state: 'gone from the fabric, still used here' },
      };
    }
    await fabric.forget(name);
    throw new WeftError('NOT_FOUND', `there is no volume ${name} on the fabric`);
  }

  async #list(): Promise<{ Name: string; Mountpoint: string }[]> {
    const volumes = await this.#env.fabric.list();
    const names = new Set([...volumes.map((volume) => volume.name), ...this.volumes.keys()]);
    return [...names].map((name) => ({ Name: name, Mountpoint: this.#mountpoint(name) }));
  }

  #describe(volume: Volume): Record<string, unknown> {
    const local = this.volumes.get(volume.name);
    const options = optionsOfVolume(volume);
    return {
      Name: volume.name,
      Mountpoint: this.#mountpoint(volume.name),
      CreatedAt: volume.createdAt,
      Status: {
        id: volume.id,
        size: formatSize(volume.sizeBytes),
        sizeBytes: volume.sizeBytes,
        used: formatSize(volume.usedBytes),
        usedBytes: volume.usedBytes,
        container: volume.container,
        filesystem: options.fs,
        formatted: volume.filesystem?.state === 'ready',
        durability: volume.durability,
        node: volume.node,
        // Where it is mounted: this host's own word, or the fabric's about another.
        mountedOn:
          local !== undefined && local.uses > 0 ? this.#env.settings.node : (volume.claim?.holder ?? ''),
        mounts: local?.uses ?? 0,
        sessions: volume.sessions.map((session) => `${session.initiator} from ${session.address}`),
      },
    };
  }
}
