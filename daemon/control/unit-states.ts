/**
 * What a volume's logical unit remembers through restarts: persistent reservations with APTPL, saved mode parameters.
 * One document for each volume whose unit ever had something to remember, as JSON:
 *
 *     unit/<volume id>     UnitRecord
 *
 * It is written in one compare-and-set transaction, durable before the initiator's answer, and goes together with the
 * volume (trash.ts). A volume in the trash keeps it: restored, it is reserved as it was.
 */
import { z } from 'zod';
import { asWeftError, WeftError } from '../base/errors.ts';
import type { CatalogCore } from './catalog.ts';

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
}

/** Fits scsi/unit-state-store.ts. */
class VolumeUnitState {
  readonly #core: CatalogCore;
  readonly #volumeId: string;
  /** Of the document as this unit read or wrote it last; 0: there was none. */
  #revision: number;

  constructor(core: CatalogCore, volumeId: string) {
    this.#core = core;
    this.#volumeId = volumeId;
    this.#revision = core.unitStates.revision(volumeId);
  }

  load(): UnitState | null {
    const record = this.#core.unitStates.get(this.#volumeId);
    if (record === undefined) return null;
    const { schemaVersion: _, ...state } = record;
    return structuredClone(state);
  }

  /**
   * Calls back once, with null when the state is durable. Errors: FENCED when another unit of the volume has saved
   * meanwhile, NOT_FOUND when the volume is no longer online, and what the control store fails with.
   */
  save(state: UnitState, done: (error: WeftError | null) => void): void {
    this.#save(state).then(
      () => done(null),
      (error: unknown) => done(asWeftError(error)),
    );
  }

  async #save(state: UnitState): Promise<void> {
    const { unitStates, volumes } = this.#core;
    const id = this.#volumeId;
    await this.#core.change((change) => {
      if (change.read(volumes, id)?.state !== 'online') {
        throw new WeftError('NOT_FOUND', `volume ${id} is not online; its reservations are not kept`);
      }
      if (unitStates.revision(id) !== this.#revision) {
        throw new WeftError('FENCED', `the state of volume ${id} was saved by somebody else; log in again`);
      }
      change.put(unitStates, id, { schemaVersion: 1, ...state });
    });
    this.#revision = unitStates.revision(id);
  }
}
