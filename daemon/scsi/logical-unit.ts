/** One logical unit: a block device, its identity, and what it remembers about the nexuses that use it. */
import { assert } from '../base/assert.ts';
import { BufferPool } from '../base/buffer-pool.ts';
import {
  blockSizeBytes,
  MiB,
  maxTransferBytes,
  maxVolumeSizeBytes,
  sectorSizeBytes,
} from '../base/limits.ts';
import type { BlockDevice } from '../volume/block-device.ts';
import { ChangeTurns } from './change-turns.ts';
import { CopyJobs } from './copy/copy-jobs.ts';
import { RangeGuard } from './range-guard.ts';
import { maxRegistrations } from './reservation-changes.ts';
import { restoredReservations } from './reservation-state.ts';
import { Reservations } from './reservations.ts';
import { SavedUnitState } from './saved-unit-state.ts';
import { type SenseCode, sense } from './sense.ts';
import type { ModeParameters, UnitStateStore } from './unit-state-store.ts';
import { UnitStatistics } from './unit-statistics.ts';

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
  /** The physical block that is reported, a multiple of the sector; the block of the journal when not given. */
  physicalBlockBytes?: number;
  /** What LOG SENSE tells of the store; its page is not there when not given. */
  provisioning?: () => Provisioning;
  /** Where READ takes its buffers from; one pool for all units of the process when not given. */
  buffers?: BufferPool;
  /** For statistics; without it, no time passes in them. */
  monotonicMs?: () => number;
  /** Keeps what shall survive a restart; without it APTPL and saved mode parameters are refused. */
  store?: UnitStateStore;
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

/** At rest: a queue depth of 64 at 512 KiB, the longest request Linux makes by default. */
const maxIdleBytes = 32 * MiB;
const sharedBuffers = new BufferPool(maxTransferBytes, maxIdleBytes);

export class LogicalUnit {
  readonly device: BlockDevice;
  readonly identity: Required<UnitIdentity>;
  readonly buffers: BufferPool;
  readonly reservations: Reservations;
  readonly physicalBlockBytes: number;
  readonly provisioning: (() => Provisioning) | null;
  readonly guard = new RangeGuard();
  readonly copies = new CopyJobs();
  /** What of its state survives a restart. */
  readonly saved: SavedUnitState;
  /** Of commands that change it. */
  readonly changes = new ChangeTurns();
  readonly statistics: UnitStatistics;
  /** The current values of the mode parameters. */
  readonly control: ModeParameters;
  readonly #nexuses = new Map<string, UnitNexus>();
  /** What registered nexuses hear when they come back: unit attentions raised while they were logged out. */
  readonly #absent = new Map<string, SenseCode[]>();

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
    this.physicalBlockBytes = options.physicalBlockBytes ?? blockSizeBytes;
    this.provisioning = options.provisioning ?? null;
    this.buffers = options.buffers ?? sharedBuffers;
    this.statistics = new UnitStatistics(options.monotonicMs ?? (() => 0));
    this.saved = new SavedUnitState(options.store ?? null);
    this.control = { ...this.saved.modeParameters };
    this.reservations = new Reservations(
      (nexus, what) => this.#raiseForRegistered(nexus, what),
      restoredReservations(this.saved.persistentReservations),
    );
  }

  get sectorCount(): number {
    return this.device.sizeBytes / sectorSizeBytes;
  }

  /** The unit's memory of a nexus, made at its first command and dropped by `nexusLost`. */
  nexus(name: string): UnitNexus {
    let nexus = this.#nexuses.get(name);
    if (nexus === undefined) {
      const attentions = this.#absent.get(name) ?? [];
      this.#absent.delete(name);
      nexus = { name, attentions, inFlight: 0, whenIdle: [], lost: false };
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

  /**
   * LOGICAL UNIT RESET (SAM-5 6.3.3): mode parameters go back to their saved values, legacy reservations end, and
   * everybody hears of it.
   */
  reset(): void {
    Object.assign(this.control, this.saved.modeParameters);
    this.reservations.reset();
    this.copies.forgetAll();
    // What was pending before the reset is no news after it (SAM-5 5.14.3).
    for (const nexus of this.#nexuses.values()) nexus.attentions = [];
    this.raiseAll(sense.logicalUnitReset);
  }

  /** I_T NEXUS LOSS (SAM-5 6.3.4). Commands of it still in the device reply to nobody. */
  nexusLost(name: string): void {
    this.reservations.nexusLost(name);
    this.copies.forgetNexus(name);
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

  /**
   * Changes of reservations are told to registered nexuses (SPC-4 5.13), whether they are logged in or not: who is not
   * hears of it with the first command when it is. I_T NEXUS LOSS forgets what was not reported before it.
   */
  #raiseForRegistered(name: string, what: SenseCode): void {
    if (this.#nexuses.has(name)) return this.#raise(name, what);
    const attentions = this.#absent.get(name) ?? [];
    if (!attentions.includes(what)) attentions.push(what);
    this.#absent.delete(name);
    this.#absent.set(name, attentions);
    for (const oldest of this.#absent.keys()) {
      if (this.#absent.size <= maxRegistrations) break;
      this.#absent.delete(oldest);
    }
  }

  #raise(name: string, what: SenseCode): void {
    const nexus = this.#nexuses.get(name);
    if (nexus !== undefined && !nexus.attentions.includes(what)) nexus.attentions.push(what);
  }
}
