/**
 * What a volume's logical unit remembers through restarts: persistent reservations with APTPL, saved mode parameters.
 * One document for each volume whose unit ever had something to remember, as JSON:
 *
 *     unit/<volume id>     UnitRecord
 *
 * It is written in one compare-and-set transaction, durable before the initiator's answer, and goes together with the
 * volume (trash.ts). A volume in the trash keeps it: restored, it is reserved as it was.
 */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { asWeftError, WeftError } from '../base/errors.ts';
import type { CatalogCore } from './catalog.ts';
import { Change } from './change.ts';
import type { VolumeRecord } from './documents.ts';

/** The six types of SPC-4 table 62. */
const reservationType = z.literal([1, 3, 5, 6, 7, 8]);

const registrationSchema = z.strictObject({
  /** iSCSI name, ",i,0x", ISID. */
  initiatorPort: z.string().min(1),
  /** Relative target port identifier. */
  targetPort: z.int().min(1).max(0xffff),
  /** The reservation key, 16 hexadecimal digits. */
  key: z.string().regex(/^[0-9a-f]{16}$/),
});

const persistentReservationsSchema = z
  .strictObject({
    /** In the order they were made. */
    registrations: z.array(registrationSchema),
    reservation: z
      .strictObject({
        type: reservationType,
        /** Place in `registrations`; null: every registrant holds it, with types 7 and 8. */
        holder: z.int().nonnegative().nullable(),
      })
      .nullable(),
  })
  .refine(({ registrations, reservation }) => {
    if (reservation === null) return true;
    const { type, holder } = reservation;
    return type >= 7
      ? holder === null && registrations.length > 0
      : (holder ?? Infinity) < registrations.length;
  }, 'a reservation has a registered holder')
  .refine(({ registrations }) => {
    const nexuses = registrations.map(({ initiatorPort, targetPort }) => `${initiatorPort} ${targetPort}`);
    return new Set(nexuses).size === nexuses.length;
  }, 'a nexus is registered once');

export const unitRecordSchema = z.strictObject({
  schemaVersion: z.literal(1),
  /** Null: APTPL is not active. */
  persistentReservations: persistentReservationsSchema.nullable(),
  /** Null: never saved. */
  modeParameters: z
    .strictObject({ descriptorSense: z.boolean(), softwareWriteProtect: z.boolean() })
    .nullable(),
});
export type UnitRecord = z.infer<typeof unitRecordSchema>;
type UnitState = Omit<UnitRecord, 'schemaVersion'>;

export class UnitStates {
  readonly #core: CatalogCore;

  constructor(core: CatalogCore) {
    this.#core = core;
  }

  /** For the unit of a volume that comes online. Whoever asked before for the same volume saves no more. */
  of(volumeId: string): VolumeUnitState {
    return new VolumeUnitState(this.#core, volumeId);
  }

  /** Removes documents that cannot be read: their volumes are then as without reservations. */
  async forgetDamaged(): Promise<void> {
    const { unitStates } = this.#core;
    await this.#core.change((change) => {
      for (const id of unitStates.damaged()) change.remove(unitStates, id);
    });
  }
}

/**
 * Why a volume is not served although it is online: what its unit keeps cannot be read. Without knowing whom a
 * persistent reservation keeps out, nobody is let in: one that was fenced off could write over what its successor wrote.
 */
export function unitFault({ unitStates }: CatalogCore, { id, name }: VolumeRecord): WeftError | null {
  const cause = unitStates.fault(id);
  if (cause === null) return null;
  return new WeftError(
    'CORRUPT',
    `volume ${name} is not served: whom its persistent reservations keep out cannot be read (${cause.message}). When no ` +
      'host that they kept out is still at work, start weftd once with --reservations-lost forget; no data is lost',
    { cause },
  );
}

/** How long after a save of which nobody knows whether it happened it is looked at again, in ms. */
const settleAfterMs = 5_000;

/**
 * Fits scsi/unit-state-store.ts. A save that fails may have been committed all the same. It is then looked up: what is
 * there decides whether it failed. Where that fails too, the unit goes on with the state it had, and that is put back
 * as soon as the store answers.
 */
class VolumeUnitState {
  readonly #core: CatalogCore;
  readonly #volumeId: string;
  /** Of the document as this unit read or wrote it last; 0: there was none. */
  #revision: number;
  /** What the unit goes by: as it read or wrote it last. */
  #record: UnitRecord | null;
  /** May be there in place of `#record`. */
  #doubtful: UnitRecord[] = [];
  /** One save after another. */
  #last: Promise<void> = Promise.resolve();

  constructor(core: CatalogCore, volumeId: string) {
    this.#core = core;
    this.#volumeId = volumeId;
    this.#revision = core.unitStates.revision(volumeId);
    this.#record = core.unitStates.get(volumeId) ?? null;
  }

  load(): UnitState | null {
    if (this.#record === null) return null;
    const { schemaVersion: _, ...state } = this.#record;
    return structuredClone(state);
  }

  /**
   * Calls back once, with null when the state is durable. Errors: FENCED when another unit of the volume has saved
   * meanwhile, NOT_FOUND when the volume is no longer online, CORRUPT when what is there cannot be read, and what the
   * control store fails with.
   */
  save(state: UnitState, done: (error: WeftError | null) => void): void {
    const saved = this.#inTurn(() => this.#save(structuredClone({ schemaVersion: 1, ...state })));
    saved.then(
      () => done(null),
      (error: unknown) => done(asWeftError(error)),
    );
  }

  #inTurn(act: () => Promise<void>): Promise<void> {
    const acted = this.#last.then(act);
    this.#last = acted.catch(() => {});
    return acted;
  }

  async #save(record: UnitRecord): Promise<void> {
    if (this.#doubtful.length > 0) await this.#lookUp();
    this.#refuse();
    try {
      await this.#put(record);
    } catch (error) {
      this.#doubtful.push(record);
      const isSaved = await this.#lookUp().catch(() => {
        this.#settleLater();
        return false;
      });
      if (!isSaved) throw error;
    }
    this.#record = record;
    this.#doubtful = [];
  }

  async #put(record: UnitRecord | null): Promise<void> {
    const { unitStates } = this.#core;
    const id = this.#volumeId;
    await this.#core.change((change) => {
      this.#refuse(change);
      if (record === null) change.remove(unitStates, id);
      else change.put(unitStates, id, record);
    });
    this.#revision = unitStates.revision(id);
  }

  /** @throws WeftError as `save` says. */
  #refuse(change: Change = new Change()): void {
    const { unitStates, volumes } = this.#core;
    const id = this.#volumeId;
    if (change.read(volumes, id)?.state !== 'online') {
      throw new WeftError('NOT_FOUND', `volume ${id} is not online; its reservations are not kept`);
    }
    const fault = unitStates.fault(id);
    if (fault !== null) throw fault;
    if (unitStates.revision(id) !== this.#revision) {
      throw new WeftError('FENCED', `the state of volume ${id} was saved by somebody else; log in again`);
    }
  }

  /**
   * What of the doubtful is there? Answers whether it is the last of them. Nothing is doubtful any more when none is.
   * @throws WeftError what the store fails with.
   */
  async #lookUp(): Promise<boolean> {
    const { unitStates, store } = this.#core;
    const id = this.#volumeId;
    await unitStates.reread(store, id);
    if (unitStates.revision(id) === this.#revision) {
      this.#doubtful = [];
      return false;
    }
    const found = unitStates.get(id);
    const index = this.#doubtful.findLastIndex((record) => isDeepStrictEqual(record, found));
    // Else another unit's.
    if (index >= 0) this.#revision = unitStates.revision(id);
    return index >= 0 && index === this.#doubtful.length - 1;
  }

  #settleLater(): void {
    this.#core.clock.after(settleAfterMs, () => {
      this.#inTurn(() => this.#settle()).catch((error: unknown) => {
        const { code } = asWeftError(error);
        if (code !== 'NOT_FOUND' && code !== 'FENCED' && code !== 'SHUTTING_DOWN') this.#settleLater();
      });
    });
  }

  /** Puts back what the unit goes by, if a save that failed is there instead. */
  async #settle(): Promise<void> {
    if (this.#doubtful.length === 0) return;
    await this.#lookUp();
    if (this.#doubtful.length === 0) return;
    await this.#put(this.#record);
    this.#doubtful = [];
  }
}
