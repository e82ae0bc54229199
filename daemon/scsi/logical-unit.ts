/** One logical unit: a block device, its identity, and what it remembers about the nexuses that use it. */
import { assert } from '../base/assert.ts';
import { BufferPool } from '../base/buffer-pool.ts';
import { MiB, maxTransferBytes, maxVolumeSizeBytes, sectorSizeBytes } from '../base/limits.ts';
import type { BlockDevice } from '../volume/block-device.ts';
import { RangeGuard } from './range-guard.ts';
import { Reservations } from './reservations.ts';
import { type SenseCode, sense } from './sense.ts';

/** Where the names in INQUIRY and its pages come from. */
export interface UnitIdentity {
  /** The volume's UUID: the NAA and UUID designators (VPD page 83h) come from it, so it never changes. */
  uuid: string;
  /** The unit serial number (VPD page 80h), printable ASCII; the UUID without its dashes when not given. */
  serial?: string;
  /** Up to 8 printable ASCII characters; 'WEFT' when not given. */
  vendor?: string;
  /** Up to 16; 'Volume' when not given. */
  product?: string;
  /** Up to 4; '1' when not given. */
  revision?: string;
}

export interface LogicalUnitOptions {
  device: BlockDevice;
  identity: UnitIdentity;
  /** What LOG SENSE tells of the store; its page is not there when not given. */
  provisioning?: () => Provisioning;
  /** Where READ takes its buffers from; one pool for all units of the process when not given. */
  buffers?: BufferPool;
}

/** What a thin unit takes of its store, and what the store has left for this and other units. */
export interface Provisioning {
  availableBytes: number;
  usedBytes: number;
}

/** What the unit knows of one I_T nexus that is logged in. */
export interface UnitNexus {
  readonly name: string;
  /** Unit attentions to report, oldest first, each once (SAM-5 5.14). */
  attentions: SenseCode[];
  /** Commands that have not replied yet. */
  inFlight: number;
  /** Called, and forgotten, once when `inFlight` is zero. */
  whenIdle: (() => void)[];
  /** Logged out while commands were in flight; forgotten with the last of them unless it comes back. */
  lost: boolean;
}

/** The changeable bits of the control mode page (SPC-4 7.5.8). */
export interface ControlSettings {
  /** Sense data in descriptor format. */
  descriptorSense: boolean;
  softwareWriteProtect: boolean;
}

/** At rest: a queue depth of 64 at 512 KiB, the longest request Linux makes by default. */
const maxIdleBytes = 32 * MiB;
const sharedBuffers = new BufferPool(maxTransferBytes, maxIdleBytes);

export class LogicalUnit {
  readonly device: BlockDevice;
  readonly identity: Required<UnitIdentity>;
  readonly buffers: BufferPool;
  readonly reservations: Reservations;
  readonly provisioning: (() => Provisioning) | null;
  readonly guard = new RangeGuard();
  readonly control: ControlSettings = { descriptorSense: false, softwareWriteProtect: false };
  readonly #nexuses = new Map<string, UnitNexus>();

  constructor(options: LogicalUnitOptions) {
    const { device, identity } = options;
    assert(device.sizeBytes % sectorSizeBytes === 0, 'a device consists of whole sectors');
    assert(device.sizeBytes > 0 && device.sizeBytes <= maxVolumeSizeBytes, 'a device has a size');
    assert(
      device.allocationUnitBytes % sectorSizeBytes === 0,
      'an allocation unit consists of whole sectors',
    );
    this.device = device;
    this.identity = {
      uuid: identity.uuid,
      serial: identity.serial ?? identity.uuid.replaceAll('-', ''),
      vendor: identity.vendor ?? 'WEFT',
      product: identity.product ?? 'Volume',
      revision: identity.revision ?? '1',
    };
    assert(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(this.identity.uuid), 'an identity has a UUID');
    this.provisioning = options.provisioning ?? null;
    this.buffers = options.buffers ?? sharedBuffers;
    this.reservations = new Reservations((nexus, what) => this.#raise(nexus, what));
  }

  get sectorCount(): number {
    return this.device.sizeBytes / sectorSizeBytes;
  }

  /** The unit's memory of a nexus, made at its first command and dropped by `nexusLost`. */
  nexus(name: string): UnitNexus {
    let nexus = this.#nexuses.get(name);
    if (nexus === undefined) {
      nexus = { name, attentions: [], inFlight: 0, whenIdle: [], lost: false };
      this.#nexuses.set(name, nexus);
    }
    nexus.lost = false;
    return nexus;
  }

  /** Raises a unit attention for every nexus, except the one that caused it. */
  raiseAll(what: SenseCode, except?: string): void {
    for (const nexus of this.#nexuses.values()) if (nexus.name !== except) this.#raise(nexus.name, what);
  }

  /** To be called after the device has grown: initiators hear CAPACITY DATA HAS CHANGED. */
  resized(): void {
    this.raiseAll(sense.capacityChanged);
  }

  /** LOGICAL UNIT RESET (SAM-5 6.3.3): settings and legacy reservations go, everybody hears of it. */
  reset(): void {
    this.control.descriptorSense = false;
    this.control.softwareWriteProtect = false;
    this.reservations.reset();
    // What was pending before the reset is no news after it (SAM-5 5.14.3).
    for (const nexus of this.#nexuses.values()) nexus.attentions = [];
    this.raiseAll(sense.logicalUnitReset);
  }

  /** I_T NEXUS LOSS (SAM-5 6.3.4). Commands of it still in the device reply to nobody. */
  nexusLost(name: string): void {
    this.reservations.nexusLost(name);
    const nexus = this.#nexuses.get(name);
    if (nexus === undefined) return;
    nexus.attentions = [];
    if (nexus.inFlight === 0) {
      this.#nexuses.delete(name);
    } else if (!nexus.lost) {
      nexus.lost = true;
      nexus.whenIdle.push(() => {
        if (nexus.lost) this.#nexuses.delete(name);
      });
    }
  }

  /** The nexuses it knows: those that sent it a command and are logged in. */
  nexusNames(): string[] {
    return [...this.#nexuses.keys()];
  }

  /** Calls back when no command of these nexuses is in the device any more. */
  whenIdle(names: readonly string[], done: () => void): void {
    let busy = 1;
    const oneDone = (): void => {
      busy -= 1;
      if (busy === 0) done();
    };
    for (const name of names) {
      const nexus = this.#nexuses.get(name);
      if (nexus === undefined || nexus.inFlight === 0) continue;
      busy += 1;
      nexus.whenIdle.push(oneDone);
    }
    oneDone();
  }

  #raise(name: string, what: SenseCode): void {
    const nexus = this.#nexuses.get(name);
    if (nexus !== undefined && !nexus.attentions.includes(what)) nexus.attentions.push(what);
  }
}
