/**
 * Volumes as iSCSI targets: joins the catalog's records to the replica below and to the portal in front. It is the
 * catalog's volume host and the portal's directory of targets.
 */
import type { TargetCredentials } from './control/access.ts';
import { iqnOf, lunOf, type VolumeRecord } from './control/documents.ts';
import type { LoginRecords, VolumeHost, VolumeSession } from './control/volume-host.ts';
import type { Clock } from './env/clock.ts';
import type { Portal } from './iscsi/portal.ts';
import type { TargetDirectory, TargetEntry, TargetPortal } from './iscsi/target-directory.ts';
import type { LocalReplica } from './replica/local-replica.ts';
import type { CopyUnit } from './scsi/copy/extended-copy.ts';
import { LogicalUnit } from './scsi/logical-unit.ts';
import { initiatorNameOf } from './scsi/nexus-name.ts';
import type { UnitStateStore } from './scsi/unit-state-store.ts';
import { ServedTarget, type ServedVolume } from './served-target.ts';
import { Volume } from './volume/volume.ts';

/** How long initiators have to log out of a target that goes away, in ms. */
const withdrawGraceMs = 2_000;

export interface VolumeTargetsEnv {
  /** What discovery sessions take; null: nothing. */
  discovery: TargetCredentials | null;
  replica: LocalReplica;
  clock: Clock;
  /** Carried by every operation: the start this is of the node. */
  epoch: number;
  /** Null when the initiator may use the volume now, else the reason. */
  admit: (volume: VolumeRecord, initiator: string) => string | null;
  /** What the volume's logical unit keeps through restarts. */
  unitState: (volumeId: string) => UnitStateStore;
  /** Whether the initiator may know that the volume is there. */
  lists: (volume: VolumeRecord, initiator: string) => boolean;
  /** What logins with the volume's target take now. */
  credentials: (volume: VolumeRecord) => TargetCredentials;
}

export class VolumeTargets implements VolumeHost, TargetDirectory {
  readonly #env: VolumeTargetsEnv;
  /** By iqn. */
  readonly #targets = new Map<string, ServedTarget>();
  #portal: Portal | null = null;
  #toldPortals: readonly TargetPortal[] = [];

  constructor(env: VolumeTargetsEnv) {
    this.#env = env;
  }

  /** The portal in front; until it is there, nobody is logged in. `told`: what initiators hear of it. */
  attachPortal(portal: Portal, told: readonly TargetPortal[]): void {
    this.#portal = portal;
    this.#toldPortals = told;
  }

  portals(): string[] {
    return this.#toldPortals.map(({ address }) => address);
  }

  serve(record: VolumeRecord): void {
    const iqn = iqnOf(record);
    const target =
      this.#targets.get(iqn) ??
      new ServedTarget(iqn, record.group !== null, {
        ports: () => this.#portal?.targetPorts() ?? [1],
        abortTasks: (nexus, lun, done) => {
          if (this.#portal === null) done();
          else this.#portal.abortTasks(iqn, nexus, lun, done);
        },
        findElsewhere: (nexus, isMeant) => this.#findForCopy(iqn, nexus, isMeant),
      });
    this.#targets.set(iqn, target);
    const identity = { volumeKey: record.volumeKey, chunkSizeBytes: record.chunkSizeBytes };
    this.#env.replica.add(identity);
    const { sizeBytes, durability, physicalBlockBytes } = record;
    const { epoch, replica, clock } = this.#env;
    const volume = new Volume({ identity, sizeBytes, durability, epoch, replica });
    const provisioning = () => ({
      availableBytes: this.capacity().freeBytes,
      usedBytes: replica.usedBytes(identity),
    });
    const store = this.#env.unitState(record.id);
    const unit = new LogicalUnit({
      device: volume,
      identity: { uuid: record.id },
      physicalBlockBytes,
      provisioning,
      monotonicMs: () => clock.monotonicMs(),
      store,
    });
    const admit = (initiator: string): string | null => this.#env.admit(record, initiator);
    target.add(lunOf(record), { record, volume, unit, admit });
  }

  resize(record: VolumeRecord): void {
    const served = this.#find(record);
    if (served === undefined) return;
    served.volume.grow(record.sizeBytes);
    served.unit.resized();
  }

  async withdraw(record: VolumeRecord): Promise<void> {
    const iqn = iqnOf(record);
    const target = this.#targets.get(iqn);
    const served = this.#find(record);
    if (target === undefined || served === undefined) return;
    target.remove(lunOf(record));
    if (target.isEmpty) {
      this.#targets.delete(iqn);
      // Found no more, so who logs out and in again hears that it is gone, and gives up.
      await this.#portal?.dropSessions(iqn, undefined, withdrawGraceMs);
    }
    await served.volume.close();
  }

  destroy(volumeKey: number): Promise<void> {
    return this.#env.replica.destroy(volumeKey);
  }

  /** In a group, those of initiators that may use this volume. */
  sessions(record: VolumeRecord): VolumeSession[] {
    const sessions = this.#portal?.sessions(iqnOf(record)) ?? [];
    const served = record.group === null ? undefined : this.#find(record);
    return sessions
      .filter(({ initiator }) => served === undefined || served.admit(initiator) === null)
      .map(({ initiator, address, sinceMs }) => {
        return { initiator, address, since: new Date(sinceMs).toISOString() };
      });
  }

  /**
   * Sessions with a group stay: who may not use the volume any more is refused at each command, so it is enough to
   * wait for what it has in the device.
   */
  async dropSessions(record: VolumeRecord, initiator: string | null): Promise<void> {
    const served = this.#find(record);
    if (record.group === null) {
      await this.#portal?.dropSessions(iqnOf(record), initiator ?? undefined);
      const isMeant = (nexus: string) => initiator === null || initiatorNameOf(nexus) === initiator;
      // What it has copied to or from the volume by way of another target.
      await served?.unit.copies.visitsOver(isMeant);
      return;
    }
    await this.fence(record);
  }

  /** Those that are not admitted send no more that has effects, so it is enough to wait for what is in the device. */
  async fence(record: VolumeRecord): Promise<void> {
    const served = this.#find(record);
    if (served === undefined) return;
    const { unit } = served;
    const isFenced = (nexus: string): boolean => served.admit(initiatorNameOf(nexus)) !== null;
    await new Promise<void>((resolve) => unit.whenIdle(unit.nexusNames().filter(isFenced), resolve));
    await unit.copies.visitsOver(isFenced);
  }

  /** In a group, a session stays while any volume lists its initiator, and loses those that do not. */
  async expel(record: VolumeRecord, everybody: boolean): Promise<number> {
    const iqn = iqnOf(record);
    const target = this.find(iqn);
    if (this.#portal === null || target === null) return 0;
    const initiators = new Set(this.#portal.sessions(iqn).map(({ initiator }) => initiator));
    let dropped = 0;
    for (const initiator of initiators) {
      if (!everybody && target.lists(initiator)) continue;
      dropped += await this.#portal.dropSessions(iqn, initiator);
    }
    await this.fence(record);
    if (everybody) await this.#find(record)?.unit.copies.visitsOver(() => true);
    return dropped;
  }

  usage(volumeKey: number, chunkSizeBytes: number): { usedBytes: number; allocatedBytes: number } {
    const usedBytes = this.#env.replica.usedBytes({ volumeKey, chunkSizeBytes });
    return { usedBytes, allocatedBytes: usedBytes };
  }

  logins(): LoginRecords {
    const guard = this.#portal?.guard;
    const counts = guard?.counts ?? { succeeded: 0, failed: 0, throttled: 0 };
    return { counts: { ...counts }, failures: guard?.recentFailures() ?? [] };
  }

  capacity(): { totalBytes: number; freeBytes: number; usedBytes: number } {
    const { totalBytes, freeBytes, liveBytes, undrainedBytes } = this.#env.replica.state();
    return { totalBytes, freeBytes, usedBytes: liveBytes + undrainedBytes };
  }

  journal(): { usedBytes: number; capacityBytes: number } {
    return this.#env.replica.state().journal;
  }

  find(iqn: string): TargetEntry | null {
    const target = this.#targets.get(iqn);
    const first = target?.volumes()[0]?.record;
    if (target === undefined || first === undefined) return null;
    const { device } = target;
    const alias = first.group?.name ?? first.name;
    const volumes = target.volumes();
    // The volumes of a group have them in common. Opened when asked for: only for those the target lists.
    const credentials = () => this.#env.credentials(first);
    return {
      iqn,
      alias,
      device,
      get chap() {
        return credentials().chap;
      },
      get mutualChap() {
        return credentials().mutualChap;
      },
      lists: (initiator) => volumes.some(({ record }) => this.#env.lists(record, initiator)),
      admit: (initiator) => target.admit(initiator),
    };
  }

  get discovery(): TargetCredentials {
    return this.#env.discovery ?? { chap: null, mutualChap: null };
  }

  /** Discovery shows an initiator what it may log in to: names of other people's volumes are none of its business. */
  list(initiator: string): { iqn: string; portals: readonly TargetPortal[] }[] {
    const admitted = [...this.#targets.values()].filter((target) => target.admit(initiator) === null);
    return admitted.map(({ iqn }) => ({ iqn, portals: this.#toldPortals }));
  }

  /** Refuses new operations and waits for those in flight. */
  async close(): Promise<void> {
    const served = [...this.#targets.values()].flatMap((target) => target.volumes());
    await Promise.all(served.map(({ volume }) => volume.close()));
  }

  /**
   * A volume of another target than the one the command came to, for a copy: the login there must be one that this session's
   * would be. So it is served now, lists and admits the initiator, and asks for no secret, or for the very one this
   * session's target asks for. A name alone proves nothing where there is a secret.
   */
  #findForCopy(askedIqn: string, nexus: string, isMeant: (unit: LogicalUnit) => boolean): CopyUnit | null {
    const initiator = initiatorNameOf(nexus);
    for (const target of this.#targets.values()) {
      const served = target.volumes().find(({ unit }) => isMeant(unit));
      if (served === undefined) continue;
      const { record, unit } = served;
      const isAdmitted = this.#env.lists(record, initiator) && served.admit(initiator) === null;
      if (!isAdmitted || !this.#isSameSecret(askedIqn, record)) return null;
      const nexuses = unit.nexusNames().filter((each) => initiatorNameOf(each) === initiator);
      return { unit, nexuses: nexuses.length > 0 ? nexuses : [nexus] };
    }
    return null;
  }

  #isSameSecret(provenIqn: string, wanted: VolumeRecord): boolean {
    const { chap: asks } = this.#env.credentials(wanted);
    if (asks === null) return true;
    const proven = this.find(provenIqn)?.chap ?? null;
    return proven !== null && proven.user === asks.user && proven.secret === asks.secret;
  }

  #find(record: VolumeRecord): ServedVolume | undefined {
    return this.#targets.get(iqnOf(record))?.get(lunOf(record));
  }
}
