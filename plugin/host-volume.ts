/**
 * One volume on this host, from the fabric to a mounted directory and back:
 *
 *   bringUp    claim -> attach -> (format) -> check -> mount -> prove -> grow -> root directory
 *   takeDown   unmount -> wait until nobody holds the device -> detach
 *   giveBack   takeDown -> release the claim -> forget
 *
 * Each step can be repeated, and none believes what an earlier process wrote down about the system: what is attached
 * and mounted is read from the kernel. So after a kill between any two steps the same call goes on from there.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Volume } from '../daemon/api/schema.ts';
import { WeftError } from '../daemon/base/errors.ts';
import type { AttachEngine, AttachedDevice } from './attach.ts';
import { deviceSize, isBusy, readContent } from './block-device.ts';
import type { Fabric } from './fabric.ts';
import {
  checkFilesystem,
  decideFormat,
  explainMountFailure,
  growMounted,
  growUnmounted,
  makeFilesystem,
} from './filesystem.ts';
import { readMounts, topMount } from './mount-table.ts';
import type { MountDirectory } from './mounts.ts';
import { type FilesystemType, optionsOfVolume } from './options.ts';
import { countOf, type RecordStore, type VolumeRecord } from './records.ts';
import type { Settings } from './settings.ts';
import type { Job } from './volume-queue.ts';

/** How long a claim holds when this host stops renewing it: after that another may take the volume. */
export const claimTtlSeconds = 60;
/** How long the last user of a device may take to let go of it after its filesystem was unmounted here. */
const releaseWaitMs = 5_000;
const pollMs = 50;

export interface HostVolumeEnvironment {
  settings: Settings;
  fabric: Fabric;
  store: RecordStore;
  mounts: MountDirectory;
  log: Logger;
  /** The attach engine, once it is known which of them works here. */
  engine(): Promise<AttachEngine>;
}

export class HostVolume {
  readonly #env: HostVolumeEnvironment;
  readonly record: VolumeRecord;

  constructor(env: HostVolumeEnvironment, record: VolumeRecord) {
    this.#env = env;
    this.record = record;
  }

  get uses(): number {
    return countOf(this.record.mounts) + countOf(this.record.carried);
  }

  /** What Docker is told. */
  get root(): string {
    return this.#env.mounts.root(this.record.id, this.record.generation);
  }

  get #target(): { volumeId: string; iqn: string } {
    return { volumeId: this.record.id, iqn: this.record.iqn };
  }

  save(): Promise<void> {
    return this.#env.store.save(this.record);
  }

  /** Why the mount cannot be used as it is; null when it can. */
  async fault(): Promise<string | null> {
    const { mounts } = this.#env;
    try {
      const device = await (await this.#env.engine()).find(this.#target);
      if (device === null) return 'its device is gone or dead';
      await mounts.prove(device.path, this.record.id, this.record.generation);
      const all = await mounts.mountsOf(this.record.id);
      return all.length === 1 ? null : `${all.length} mounts of it are stacked or left over`;
    } catch (error) {
      return (error as Error).message;
    }
  }

  /** Ends with the volume mounted, or with nothing of it left here that was not here before. */
  async bringUp(job: Job): Promise<void> {
    const { fabric, settings } = this.#env;
    job.step = 'the fabric to describe the volume';
    const volume = await fabric.client.volume(this.record.name);
    await fabric.remember(volume);
    if (volume.id !== this.record.id) {
      throw new WeftError(
        'CONFLICT',
        `volume ${volume.name} was removed and made anew while this host used it; stop the Docker containers that use it`,
      );
    }
    const engine = await this.#env.engine();
    job.step = 'the fabric to give this host the volume';
    const claim = await fabric.client.claimVolume(volume.name, {
      holder: settings.node,
      initiator: await engine.initiator(),
      ttlSeconds: claimTtlSeconds,
    });
    await this.#refuseForeignEpoch(claim.epoch);
    this.record.claimEpoch = claim.epoch;
    this.record.claimLost = false;
    // Of the clock, so that it never comes again, not even when records were lost.
    this.record.generation = Math.max(this.record.generation + 1, Date.now());
    await this.save();
    try {
      const device = await this.#attach(engine, volume, job);
      await this.#mount(device, volume, job);
    } catch (error) {
      job.step = 'undoing a failed mount';
      await this.takeDown(job).catch((failure) => {
        this.#env.log.warn({ volume: volume.name, err: failure }, 'a failed mount could not be undone yet');
      });
      throw error;
    }
  }

  /** A device still held from before must be of the same epoch: else somebody else wrote meanwhile. */
  async #refuseForeignEpoch(epoch: number): Promise<void> {
    const before = this.record.claimEpoch;
    if (this.uses === 0 || before === null || (before === epoch && !this.record.claimLost)) return;
    await this.releaseClaim();
    throw new WeftError(
      'FENCED',
      `volume ${this.record.name} was used by another host meanwhile; stop the Docker containers that use it here first`,
      { details: { epoch: before, now: epoch } },
    );
  }

  async #attach(engine: AttachEngine, volume: Volume, job: Job): Promise<AttachedDevice> {
    const { fabric, settings } = this.#env;
    job.step = `the ${engine.name} attach`;
    const standing = await engine.find(this.#target);
    // One that Docker containers still hold is the one to mount again.
    if (standing !== null && (await isBusy(standing.path))) return standing;
    await engine.detach(this.#target);
    const attachment = await fabric.client.attachment(volume.name);
    return engine.attach({
      volumeId: volume.id,
      iqn: attachment.iqn,
      lun: attachment.lun,
      portals: settings.portal === null ? attachment.portals : [settings.portal],
      chap: attachment.chap,
      mutualChap: attachment.mutualChap ?? null,
    });
  }

  async #mount(device: AttachedDevice, volume: Volume, job: Job): Promise<void> {
    const { mounts, log } = this.#env;
    const { id, generation } = this.record;
    const options = optionsOfVolume(volume);
    job.step = 'reading what is on the device';
    const inUse = await isBusy(device.path);
    const decision = decideFormat(volume, options.fs, await readContent(device.path));
    if (decision.kind === 'make') {
      if (inUse) throw new WeftError('IN_USE', `${device.path} is in use and cannot be formatted`);
      await this.#format(device, volume, decision, job);
    } else if (!inUse) {
      job.step = `the check of its ${decision.type} filesystem`;
      await checkFilesystem(device.path, decision.type);
    }
    // The data is there and whole: less room than wanted is no reason to withhold it.
    const notGrown = (error: unknown) => {
      log.warn({ volume: volume.name, err: error }, 'the filesystem could not be grown to its volume');
    };
    if (decision.kind === 'use' && !inUse) await growUnmounted(device.path, decision.type).catch(notGrown);
    job.step = `mounting its ${decision.type} filesystem`;
    await this.#mountOrExplain(device.path, decision.type);
    if (decision.type === 'xfs') {
      await growMounted(device.path, mounts.mountpoint(id, generation), 'xfs').catch(notGrown);
    }
    await mounts.makeRoot(id, generation, options);
    await mounts.prove(device.path, id, generation);
  }

  async #mountOrExplain(device: string, type: FilesystemType): Promise<void> {
    const { id, generation } = this.record;
    try {
      await this.#env.mounts.mount(device, type, id, generation);
    } catch (error) {
      throw (await isBusy(device)) ? error : await explainMountFailure(device, type, error);
    }
  }

  /** The record goes first: it is what allows, after a kill, to do a half-made filesystem again. */
  async #format(
    device: AttachedDevice,
    volume: Volume,
    decision: ReturnType<typeof decideFormat> & { kind: 'make' },
    job: Job,
  ): Promise<void> {
    const { fabric, log } = this.#env;
    const { type, uuid } = decision;
    job.step = 'the fabric to record the filesystem';
    await fabric.client.updateVolume(volume.name, { filesystem: { type, uuid, state: 'making' } });
    job.step = `making its ${type} filesystem`;
    await makeFilesystem(device.path, decision);
    job.step = 'the fabric to record the filesystem';
    await fabric.remember(
      await fabric.client.updateVolume(volume.name, { filesystem: { type, uuid, state: 'ready' } }),
    );
    log.info({ volume: volume.name, type, uuid }, 'made its filesystem');
  }

  /** Fills a volume that grew while it is mounted. Where the engine cannot show the growth, the next mount does it. */
  async growOnline(job: Job): Promise<void> {
    const engine = await this.#env.engine();
    const device = await engine.find(this.#target);
    const volume = this.#env.fabric.remembered(this.record.name);
    if (device === null || volume === undefined || volume.id !== this.record.id) return;
    if (volume.sizeBytes <= (await deviceSize(device.path))) return;
    job.step = 'growing its filesystem to the volume';
    if (!(await engine.grow(this.#target, volume.sizeBytes))) return;
    const mountpoint = this.#env.mounts.mountpoint(this.record.id, this.record.generation);
    const mount = topMount(await readMounts(), mountpoint);
    if (mount === null) return;
    await growMounted(device.path, mountpoint, mount.fsType === 'xfs' ? 'xfs' : 'ext4');
    this.#env.log.info({ volume: volume.name, sizeBytes: volume.sizeBytes }, 'grew with its volume');
  }

  /**
   * Nothing of the volume mounted or attached here any more.
   * @throws WeftError IN_USE when something else on this host still holds the device: it then stays attached.
   */
  async takeDown(job: Job): Promise<void> {
    const engine = await this.#env.engine();
    job.step = 'unmounting its filesystem';
    await this.#env.mounts.unmountAll(this.record.id);
    job.step = 'the last user of its device to let go';
    // A dead device is of no use to whoever holds it.
    const device = await engine.find(this.#target);
    if (device !== null && !(await becomesFree(device.path, releaseWaitMs))) {
      throw new WeftError(
        'IN_USE',
        `volume ${this.record.name} is unmounted, but something on ${this.#env.settings.node} still holds ${device.path}; ` +
          'it is detached as soon as that lets go',
      );
    }
    job.step = `the ${engine.name} detach`;
    await engine.detach(this.#target);
  }

  /**
   * Tells the fabric that this host is alive.
   * @throws WeftError FENCED, IN_USE or NOT_FOUND when the volume is this host's no more: see `cutOff`.
   */
  async renewClaim(): Promise<void> {
    const { fabric, settings } = this.#env;
    const { name, id, claimEpoch } = this.record;
    const now = await fabric.client.volume(name);
    if (now.id !== id) throw new WeftError('NOT_FOUND', `volume ${name} was removed and made anew`);
    const claim = await fabric.client.claimVolume(name, {
      holder: settings.node,
      initiator: await (await this.#env.engine()).initiator(),
      ttlSeconds: claimTtlSeconds,
    });
    // Had it again, after another host had it: what is cached here is of the past.
    if (claimEpoch !== null && claim.epoch !== claimEpoch) {
      await this.releaseClaim();
      throw new WeftError(
        'FENCED',
        `another host had volume ${name} meanwhile (epoch ${claimEpoch}, now ${claim.epoch})`,
      );
    }
  }

  /**
   * After another host had the volume: the device goes at once, used or not. Otherwise the initiator would log in
   * again by itself once the other host is done, and write what it has cached over what is there now.
   */
  async cutOff(job: Job): Promise<void> {
    const engine = await this.#env.engine();
    job.step = `cutting off the ${engine.name} attach`;
    this.record.claimLost = true;
    await this.save();
    await engine.detach(this.#target);
    await this.#env.mounts.unmountAll(this.record.id);
  }

  /** It lapses by itself when the fabric is away; and somebody else's is not ours to release. */
  async releaseClaim(): Promise<void> {
    const { fabric, settings, log } = this.#env;
    await fabric.client.releaseClaim(this.record.name, settings.node).catch((error) => {
      log.info({ volume: this.record.name, err: error }, 'the claim was not released; it will lapse');
    });
  }

  /** The volume is free for every host, and this one has forgotten it. */
  async giveBack(job: Job): Promise<void> {
    await this.takeDown(job);
    if (this.record.claimEpoch !== null) {
      job.step = 'the fabric to take the volume back';
      await this.releaseClaim();
    }
    await this.#env.store.remove(this.record.name);
  }

  /**
   * Whether anybody on this host uses it besides our own mount, which is taken away for the answer: what dockerd
   * counted for an earlier process of the plugin, or of itself, may be long over.
   */
  async isHeldByOthers(job: Job): Promise<boolean> {
    const engine = await this.#env.engine();
    job.step = 'finding out who uses the volume';
    const devices = await engine.devices(this.#target);
    await this.#env.mounts.unmountAll(this.record.id);
    for (const path of devices) if (!(await becomesFree(path, releaseWaitMs))) return true;
    return false;
  }
}

async function becomesFree(device: string, limitMs: number): Promise<boolean> {
  for (let waitedMs = 0; waitedMs < limitMs; waitedMs += pollMs) {
    if (!(await isBusy(device))) return true;
    await delay(pollMs);
  }
  return false;
}
