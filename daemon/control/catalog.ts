/**
 * What the fabric consists of: containers, volumes, who uses and who may manage them. Documents in the control store
 * are the truth; everything here is decided against them and carried out by the volume host afterwards.
 */
import type { Clock } from '../env/clock.ts';
import type { Random } from '../env/random.ts';
import { type Change, commitChange } from './change.ts';
import { Claims } from './claims.ts';
import { Containers } from './containers.ts';
import type { ControlStore } from './control-store.ts';
import {
  type ContainerRecord,
  type CounterRecord,
  containerRecordSchema,
  counterRecordSchema,
  type NameRecord,
  nameRecordSchema,
  tokenRecordSchema,
  type VolumeRecord,
  volumeRecordSchema,
  volumeRecordVersion,
} from './documents.ts';
import { Mirror } from './mirror.ts';
import type { Secrets } from './secrets.ts';
import { Tokens } from './tokens.ts';
import { Trash } from './trash.ts';
import { Turns } from './turns.ts';
import { type UnitRecord, UnitStates, unitRecordSchema } from './unit-states.ts';
import type { VolumeHost } from './volume-host.ts';
import { Volumes } from './volumes.ts';

export interface CatalogEnvironment {
  store: ControlStore;
  host: VolumeHost;
  clock: Clock;
  random: Random;
  secrets: Secrets;
  /** What volumes keep of reservations and cannot be read is forgotten at the start; else they are not served. */
  forgetsDamagedUnits?: boolean;
  /** Told of what fails in the background (a purge); it is tried again by itself. */
  onFault(error: Error): void;
}

/** What the parts of the catalog share. */
export interface CatalogCore extends CatalogEnvironment {
  containers: Mirror<ContainerRecord>;
  volumes: Mirror<VolumeRecord>;
  volumeNames: Mirror<NameRecord>;
  counters: Mirror<CounterRecord>;
  unitStates: Mirror<UnitRecord>;
  /** By volume id: every operation on a volume takes one. */
  turns: Turns;
  change<Result>(plan: (change: Change) => Result): Promise<Result>;
  nowIso(): string;
}

export class Catalog {
  readonly host: VolumeHost;
  readonly containers: Containers;
  readonly volumes: Volumes;
  readonly claims: Claims;
  readonly trash: Trash;
  readonly tokens: Tokens;
  readonly unitStates: UnitStates;
  readonly #core: CatalogCore;

  constructor(environment: CatalogEnvironment) {
    const core: CatalogCore = {
      ...environment,
      onFault: (error) => environment.onFault(error),
      containers: new Mirror('container/', containerRecordSchema),
      volumes: new Mirror('volume/', volumeRecordSchema, volumeRecordVersion),
      volumeNames: new Mirror('volume-name/', nameRecordSchema),
      counters: new Mirror('counter/', counterRecordSchema),
      unitStates: new Mirror('unit/', unitRecordSchema, 1, true),
      turns: new Turns(),
      change: (plan) => commitChange(environment.store, plan),
      nowIso: () => new Date(environment.clock.nowMs()).toISOString(),
    };
    this.#core = core;
    this.host = environment.host;
    this.containers = new Containers(core);
    this.claims = new Claims(core);
    this.volumes = new Volumes(core, this.claims);
    this.trash = new Trash(core, this.claims);
    this.unitStates = new UnitStates(core);
    this.tokens = new Tokens(core, new Mirror('token/', tokenRecordSchema));
  }

  /**
   * Reads the catalog, makes the default container on a new fabric, serves every online volume, and goes on with
   * the purges a crash interrupted. A volume whose unit's state cannot be read admits nobody.
   */
  async start(): Promise<void> {
    const { store, containers, volumes, volumeNames, counters, unitStates } = this.#core;
    for (const mirror of [containers, volumes, volumeNames, counters, unitStates]) await mirror.open(store);
    if (this.#core.forgetsDamagedUnits === true) await this.unitStates.forgetDamaged();
    await this.tokens.open();
    await this.containers.ensureDefault();
    this.claims.start();
    for (const volume of this.volumes.list()) this.host.serve(volume);
    this.trash.start();
  }

  /** Ends background work; what is under way is finished first. */
  async stop(): Promise<void> {
    this.trash.stop();
    await this.#core.turns.idle();
  }
}
