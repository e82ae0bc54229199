/**
 * One iSCSI target and the volumes behind it: a single one at LUN 0, or the volumes of a group, each at its own LUN.
 *
 * An initiator logs in when any of the target's volumes admits it, and sees those that admit it: whether it may use a
 * logical unit is asked for every command, because in a group one volume may be claimed while the session stays.
 */
import { assert } from './base/assert.ts';
import type { VolumeRecord } from './control/documents.ts';
import type { ScsiDevice } from './iscsi/target-directory.ts';
import { DeviceServer, type DeviceServerOptions } from './scsi/device-server.ts';
import type { LogicalUnit } from './scsi/logical-unit.ts';
import { initiatorNameOf } from './scsi/nexus-name.ts';
import type { Volume } from './volume/volume.ts';

/** A volume that is reachable now. */
export interface ServedVolume {
  record: VolumeRecord;
  volume: Volume;
  unit: LogicalUnit;
  /** Null when this initiator may use it now, else the reason. */
  admit(initiator: string): string | null;
}

export class ServedTarget {
  readonly iqn: string;
  readonly device: ScsiDevice;
  readonly #server: DeviceServer;
  readonly #units = new Map<number, LogicalUnit>();
  readonly #volumes = new Map<number, ServedVolume>();

  /** `isGroup`: more volumes may come, and each decides for itself who sees it. */
  constructor(iqn: string, isGroup: boolean, options: Omit<DeviceServerOptions, 'units' | 'sees' | 'name'>) {
    this.iqn = iqn;
    const sees = (lun: number, nexus: string): boolean =>
      this.#volumes.get(lun)?.admit(initiatorNameOf(nexus)) === null;
    this.#server = new DeviceServer({
      ...options,
      name: iqn,
      units: this.#units,
      ...(isGroup ? { sees } : {}),
    });
    this.device = this.#server;
  }

  get isEmpty(): boolean {
    return this.#volumes.size === 0;
  }

  /** By LUN. */
  volumes(): ServedVolume[] {
    return [...this.#volumes].sort(([a], [b]) => a - b).map(([, served]) => served);
  }

  get(lun: number): ServedVolume | undefined {
    return this.#volumes.get(lun);
  }

  add(lun: number, served: ServedVolume): void {
    assert(!this.#volumes.has(lun), 'a LUN is one volume');
    this.#volumes.set(lun, served);
    this.#units.set(lun, served.unit);
    this.#server.unitsChanged();
  }

  /** Commands for it are refused from now on; those in the device are the caller's to wait for. */
  remove(lun: number): void {
    this.#volumes.delete(lun);
    this.#units.delete(lun);
    this.#server.unitsChanged();
  }

  /** Null when any volume admits the initiator, else why the first does not. */
  admit(initiator: string): string | null {
    let reason: string | null = 'the target has no volumes';
    for (const [index, served] of this.volumes().entries()) {
      const refusal = served.admit(initiator);
      if (refusal === null) return null;
      if (index === 0) reason = refusal;
    }
    return reason;
  }
}
