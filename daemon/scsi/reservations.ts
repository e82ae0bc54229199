/**
 * Who may use a logical unit: SPC-2 RESERVE/RELEASE and persistent reservations (SPC-4 5.13).
 *
 * What each PERSISTENT RESERVE OUT makes of the state is in reservation-changes.ts; CDBs and parameter lists are
 * decoded by primary/reserve.ts and primary/persistent-*.ts. Here is the state that holds now.
 *
 *     current ──propose──> current + proposed ──commit (durable, or needs not be)──> current
 *                                   └─────────abandon (could not be saved)─────────> the one before
 *
 * While a proposal is being saved both states keep others out: what the new one fences does not wait for the disk,
 * and what the old one fences is not let in before the answer that says so. PERSISTENT RESERVE IN reports the current
 * one. Unit attentions are raised by `commit`: nobody hears of what did not happen.
 */
import { assert } from '../base/assert.ts';
import type { ReservationChange } from './reservation-changes.ts';
import {
  holds,
  isKeptOut,
  noReservations,
  type ReservationAccess,
  type ReservationState,
  sharesReservation,
} from './reservation-state.ts';
import type { SenseCode } from './sense.ts';

export class Reservations {
  #current: ReservationState;
  #proposed: ReservationChange | null = null;
  #legacyHolder: string | null = null;
  readonly #attention: (nexus: string, what: SenseCode) => void;

  /** `attention` raises a unit attention for a nexus other than the one whose command is carried out. */
  constructor(
    attention: (nexus: string, what: SenseCode) => void,
    current: ReservationState = noReservations,
  ) {
    this.#attention = attention;
    this.#current = current;
  }

  get state(): ReservationState {
    return this.#current;
  }

  /** Whether a command of this access from this nexus ends with RESERVATION CONFLICT. */
  conflicts(nexus: string, access: ReservationAccess): boolean {
    if (this.#legacyHolder !== null) return this.#legacyHolder !== nexus && access !== 'exempt';
    if (access === 'exempt' || access === 'status') return false;
    if (isKeptOut(this.#current, nexus, access)) return true;
    return this.#proposed !== null && isKeptOut(this.#proposed.state, nexus, access);
  }

  holds(nexus: string): boolean {
    return holds(this.#current, nexus);
  }

  /** One change is under way at a time. */
  propose(change: ReservationChange): void {
    assert(this.#proposed === null, 'a change is proposed when the one before has ended');
    this.#proposed = change;
  }

  commit(): void {
    const change = this.#proposed;
    assert(change !== null, 'what is committed has been proposed');
    this.#proposed = null;
    this.#current = change.state;
    for (const [nexus, what] of change.attentions) this.#attention(nexus, what);
  }

  abandon(): void {
    assert(this.#proposed !== null, 'what is abandoned has been proposed');
    this.#proposed = null;
  }

  /** RESERVE(6/10), SPC-2 7.21. False: RESERVATION CONFLICT. */
  legacyReserve(nexus: string): boolean {
    if (this.#hasRegistrations()) return this.#isCompatible(nexus);
    if (this.#legacyHolder !== null && this.#legacyHolder !== nexus) return false;
    this.#legacyHolder = nexus;
    return true;
  }

  /** RELEASE(6/10): from others than the holder it does nothing. False: RESERVATION CONFLICT. */
  legacyRelease(nexus: string): boolean {
    if (this.#hasRegistrations()) return this.#isCompatible(nexus);
    if (this.#legacyHolder === nexus) this.#legacyHolder = null;
    return true;
  }

  /** Persistent commands are refused while a legacy reservation exists, the holder's own too (SPC-2 5.5.1). */
  get legacyReserved(): boolean {
    return this.#legacyHolder !== null;
  }

  nexusLost(nexus: string): void {
    if (this.#legacyHolder === nexus) this.#legacyHolder = null;
  }

  /** A reset of the unit ends legacy reservations; persistent ones survive it (SPC-4 5.13.1). */
  reset(): void {
    this.#legacyHolder = null;
  }

  /** Once anybody is registered, or is going to be, legacy reservations cannot be made (SPC-2 5.5.1). */
  #hasRegistrations(): boolean {
    return this.#current.registrations.size > 0 || (this.#proposed?.state.registrations.size ?? 0) > 0;
  }

  /**
   * Compatible reservation handling (SPC-3 5.6.3; CRH): who holds the persistent reservation, or shares it, may send
   * RESERVE and RELEASE of old; they are GOOD and change nothing.
   */
  #isCompatible(nexus: string): boolean {
    return sharesReservation(this.#current, nexus);
  }
}
