/**
 * What a logical unit asks of whoever keeps its state through restarts. The unit knows neither files nor promises:
 * it is given what was saved when it is made, and is called back when a new state is durable.
 */
import type { WeftError } from '../base/errors.ts';
import type { ReservationType } from './reservation-state.ts';

/** Everything of a unit that outlives the daemon, in plain values. */
export interface UnitState {
  /** Null unless APTPL is active (SPC-4 5.13.5): then a loss of power ends registrations and reservation. */
  persistentReservations: SavedReservations | null;
  /** The saved values of the mode parameters (SPC-4 5.11); null: never saved, the defaults hold. */
  modeParameters: ModeParameters | null;
}

/** PRGENERATION is not kept: it is zero after every power on, whatever APTPL is (SPC-4 6.15.2). */
export interface SavedReservations {
  /** In the order they were made. */
  registrations: SavedRegistration[];
  reservation: {
    type: ReservationType;
    /** Which of `registrations` holds it; null: every registrant does. */
    holder: number | null;
  } | null;
}

export interface SavedRegistration {
  /** The iSCSI name, ",i,0x" and the ISID: what its TransportID says. */
  initiatorPort: string;
  /** The relative target port identifier. */
  targetPort: number;
  /** The reservation key: 16 hexadecimal digits. */
  key: string;
}

/** The mode parameters an initiator may change (mode-pages.ts). */
export interface ModeParameters {
  /** D_SENSE: sense data in descriptor format. */
  descriptorSense: boolean;
  /** SWP: the unit takes no writes. */
  softwareWriteProtect: boolean;
}

export interface UnitStateStore {
  /** What was saved last, or null. Asked for once, when the unit is made. */
  load(): UnitState | null;
  /**
   * Makes the state durable in place of the one before. Calls back once: with null when it survives a loss of power,
   * else with the reason, when the old or the new state may be there. The unit saves one state at a time.
   */
  save(state: UnitState, done: (error: WeftError | null) => void): void;
}
