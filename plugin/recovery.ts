/**
 * What goes on without a call of dockerd: reconciling at start with what is really mounted and attached, renewing
 * claims, and trying again what could not be finished.
 */
import type { Logger } from 'pino';
import { asWeftError, type ErrorCode } from '../daemon/base/errors.ts';
import type { VolumeDriver } from './driver.ts';
import { claimTtlSeconds, type HostVolume, type HostVolumeEnvironment } from './host-volume.ts';
import { carryCounts, countOf, type VolumeRecord } from './records.ts';
import type { Job } from './volume-queue.ts';

/** Four tries before a claim lapses. */
const tendEveryMs = (claimTtlSeconds * 1000) / 4;
/** Counts of an earlier process are looked into this often: it takes the mount away for a moment. */
const carriedCheckMs = 300_000;
/** What dockerd does not ask about is fetched this often, so that Get and List of a fabric that is away are fresh. */
const refreshEveryMs = 15_000;
/** What a renewal says when somebody else has the volume, or nobody ever will again. */
const lostCodes: readonly ErrorCode[] = ['FENCED', 'IN_USE', 'NOT_FOUND'];

export class Caretaker {
  readonly #env: HostVolumeEnvironment;
  readonly #driver: VolumeDriver;
  readonly #log: Logger;
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #carriedCheckedAtMs = new Map<string, number>();
  readonly #tending = new Set<string>();

  constructor(env: HostVolumeEnvironment, driver: VolumeDriver) {
    this.#env = env;
    this.#driver = driver;
    this.#log = env.log;
  }

  /** Queues the recovery of every volume: calls for a volume wait behind its own, and for no other. */
  recover(records: readonly VolumeRecord[], bootId: string): Promise<void>[] {
    const jobs: Promise<void>[] = [];
    for (const record of records) {
      carryCounts(record, bootId);
      const volume = this.#driver.adopt(record);
      jobs.push(this.#queue(record.name, (job) => this.#recoverOne(job, volume)));
    }
    jobs.push(this.#removeUnrecorded(new Set(records.map((record) => record.id))));
    return jobs;
  }

  start(): void {
    this.#timers.push(setInterval(() => this.tend(), tendEveryMs));
    this.#timers.push(
      setInterval(() => {
        this.#env.fabric
          .refresh()
          .catch((error) => this.#log.debug({ err: error }, 'the fabric does not answer'));
      }, refreshEveryMs),
    );
  }

  stop(): void {
    for (const timer of this.#timers) clearInterval(timer);
  }

  /** One round: every volume's claim, and whatever of it is unfinished. */
  tend(): void {
    for (const [name, volume] of this.#driver.volumes) {
      if (this.#tending.has(name)) continue;
      this.#tending.add(name);
      this.#tendOne(name, volume)
        .catch((error) =>
          this.#log.warn({ volume: name, err: error }, 'tending a volume failed; it is tried again'),
        )
        .finally(() => this.#tending.delete(name));
    }
  }

  async #tendOne(name: string, volume: HostVolume): Promise<void> {
    // Beside the queue: a long fsck must not let the claim lapse.
    await this.#renew(name, volume);
    if (volume.uses > 0 && !volume.record.claimLost) await this.#queue(name, (job) => volume.growOnline(job));
    if (countOf(volume.record.mounts) > 0) return;
    if (countOf(volume.record.carried) === 0) {
      await this.#queue(name, (job) => this.#driver.settle(job, name));
      return;
    }
    const checkedAtMs = this.#carriedCheckedAtMs.get(name) ?? 0;
    if (performance.now() - checkedAtMs < carriedCheckMs) return;
    this.#carriedCheckedAtMs.set(name, performance.now());
    await this.#queue(name, (job) => this.#driver.settle(job, name));
  }

  async #renew(name: string, volume: HostVolume): Promise<void> {
    if (volume.record.claimEpoch === null || volume.record.claimLost) return;
    try {
      await volume.renewClaim();
    } catch (thrown) {
      const error = asWeftError(thrown);
      if (!lostCodes.includes(error.code)) {
        this.#log.warn(
          { volume: name, code: error.code, reason: error.message },
          'the claim was not renewed yet',
        );
        return;
      }
      this.#log.error(
        { volume: name, reason: error.message },
        'the volume was taken over: it is cut off here',
      );
      await this.#queue(name, (job) => volume.cutOff(job));
      return;
    }
    if (this.#driver.volumes.get(name) !== volume) await volume.releaseClaim();
  }

  #queue(name: string, work: (job: Job) => Promise<void>): Promise<void> {
    return this.#driver.queue.run(name, { step: 'recovery', abandoned: false }, work).catch((error) => {
      this.#log.warn({ volume: name, err: error }, 'recovery of a volume is unfinished; it is tried again');
    });
  }

  async #recoverOne(job: Job, volume: HostVolume): Promise<void> {
    const { record } = volume;
    await volume.save();
    if (record.claimEpoch !== null && !record.claimLost) {
      await volume.renewClaim().catch(async (thrown) => {
        const error = asWeftError(thrown);
        if (lostCodes.includes(error.code)) await volume.cutOff(job);
      });
    }
    this.#carriedCheckedAtMs.set(record.name, performance.now());
    const fault = volume.uses === 0 ? 'nobody uses it' : await volume.fault();
    if (fault === null) {
      this.#log.info(
        { volume: record.name, path: volume.root, carried: record.carried },
        'found mounted as it should be',
      );
      return;
    }
    this.#log.info(
      { volume: record.name, fault, carried: record.carried },
      'putting right what was left behind',
    );
    await this.#driver.settle(job, record.name);
  }

  /** What no record knows of: its record was damaged, or put aside. */
  async #removeUnrecorded(recorded: ReadonlySet<string>): Promise<void> {
    const { mounts } = this.#env;
    try {
      const engine = await this.#env.engine();
      const left = new Map((await engine.leftovers()).map((volume) => [volume.volumeId, volume]));
      for (const volumeId of await mounts.mountedVolumes()) {
        if (!left.has(volumeId)) left.set(volumeId, { volumeId, iqn: '' });
      }
      for (const [volumeId, volume] of left) {
        const isInUse = [...this.#driver.volumes.values()].some(({ record }) => record.id === volumeId);
        if (recorded.has(volumeId) || isInUse) continue;
        this.#log.warn({ volumeId }, 'taking away what no record knows of');
        await mounts.unmountAll(volumeId);
        if (volume.iqn !== '' || engine.name !== 'open-iscsi') await engine.detach(volume);
      }
    } catch (error) {
      this.#log.warn({ err: error }, 'could not look for what no record knows of');
    }
  }
}
