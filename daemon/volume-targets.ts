/**
 * Volumes as iSCSI targets: joins the catalog's records to the replica below and to the portal in front. It is the
 * catalog's volume host and the portal's directory of targets.
 */
import { assert } from './base/assert.ts';
import { iqnOf, type VolumeRecord } from './control/documents.ts';
import type { VolumeHost, VolumeSession } from './control/volume-host.ts';
import type { Portal } from './iscsi/portal.ts';
import type { TargetDirectory, TargetEntry, TargetPortal } from './iscsi/target-directory.ts';
import type { LocalReplica } from './replica/local-replica.ts';
import { DeviceServer } from './scsi/device-server.ts';
import { LogicalUnit } from './scsi/logical-unit.ts';
import { Volume } from './volume/volume.ts';

/** A volume that is reachable now. */
interface Served {
  volume: Volume;
  unit: LogicalUnit;
  entry: TargetEntry;
}

export interface VolumeTargetsEnv {
  replica: LocalReplica;
  /** Carried by every operation: the start this is of the node. */
  epoch: number;
  /** Null when the initiator may use the volume now, else the reason. */
  admit: (volume: VolumeRecord, initiator: string) => string | null;
}

export class VolumeTargets implements VolumeHost, TargetDirectory {
  readonly #env: VolumeTargetsEnv;
  readonly #served = new Map<string, Served>();
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
    assert(!this.#served.has(iqn), 'a volume is served once');
    const identity = { volumeKey: record.volumeKey, chunkSizeBytes: record.chunkSizeBytes };
    this.#env.replica.add(identity);
    const { sizeBytes, durability } = record;
    const { epoch, replica } = this.#env;
    const volume = new Volume({ identity, sizeBytes, durability, epoch, replica });
    const unit = new LogicalUnit({ device: volume, identity: { uuid: record.id } });
    const device = new DeviceServer({
      units: new Map([[0, unit]]),
      ports: () => this.#portal?.targetPorts() ?? [1],
    });
    const admit = (initiator: string): string | null => this.#env.admit(record, initiator);
    this.#served.set(iqn, {
      volume,
      unit,
      entry: { iqn, alias: record.name, device, chap: record.chap, admit },
    });
  }

  resize(record: VolumeRecord): void {
    const served = this.#served.get(iqnOf(record));
    if (served === undefined) return;
    served.volume.grow(record.sizeBytes);
    served.unit.resized();
  }

  async withdraw(record: VolumeRecord): Promise<void> {
    const iqn = iqnOf(record);
    const served = this.#served.get(iqn);
    if (served === undefined) return;
    this.#served.delete(iqn);
    await this.#portal?.dropSessions(iqn);
    await served.volume.close();
  }

  destroy(volumeKey: number): Promise<void> {
    return this.#env.replica.destroy(volumeKey);
  }

  sessions(record: VolumeRecord): VolumeSession[] {
    const sessions = this.#portal?.sessions(iqnOf(record)) ?? [];
    return sessions.map(({ initiator, address, sinceMs }) => {
      return { initiator, address, since: new Date(sinceMs).toISOString() };
    });
  }

  async dropSessions(record: VolumeRecord, initiator: string | null): Promise<void> {
    await this.#portal?.dropSessions(iqnOf(record), initiator ?? undefined);
  }

  usage(volumeKey: number, chunkSizeBytes: number): { usedBytes: number; allocatedBytes: number } {
    const usedBytes = this.#env.replica.usedBytes({ volumeKey, chunkSizeBytes });
    return { usedBytes, allocatedBytes: usedBytes };
  }

  capacity(): { totalBytes: number; freeBytes: number; usedBytes: number } {
    const { totalBytes, freeBytes, liveBytes, undrainedBytes } = this.#env.replica.state();
    return { totalBytes, freeBytes, usedBytes: liveBytes + undrainedBytes };
  }

  journal(): { usedBytes: number; capacityBytes: number } {
    return this.#env.replica.state().journal;
  }

  find(iqn: string): TargetEntry | null {
    return this.#served.get(iqn)?.entry ?? null;
  }

  /** Discovery shows an initiator what it may log in to: names of other people's volumes are none of its business. */
  list(initiator: string): { iqn: string; portals: readonly TargetPortal[] }[] {
    const admitted = [...this.#served.values()].filter(({ entry }) => entry.admit(initiator) === null);
    return admitted.map(({ entry }) => ({ iqn: entry.iqn, portals: this.#toldPortals }));
  }

  /** Refuses new operations and waits for those in flight. */
  async close(): Promise<void> {
    await Promise.all([...this.#served.values()].map(({ volume }) => volume.close()));
  }
}
