/**
 * Who may use a logical unit: SPC-2 RESERVE/RELEASE and persistent reservations (SPC-4 5.13).
 *
 * A pure state machine; CDBs and parameter lists are decoded by primary/reserve.ts and primary/persistent-*.ts.
 * The state is in memory only, so APTPL (activate persist through power loss) is refused and reported as not
 * capable. To make it durable: `registrations`, `reservation` and `generation` are the whole of it; save them before
 * an answer to PERSISTENT RESERVE OUT with APTPL leaves, and fill them in before the unit's first command.
 */
import { type SenseCode, sense } from './sense.ts';

/** SPC-4 table 62. */
export const ReservationType = {
  writeExclusive: 1,
  exclusiveAccess: 3,
  writeExclusiveRegistrantsOnly: 5,
  exclusiveAccessRegistrantsOnly: 6,
  writeExclusiveAllRegistrants: 7,
  exclusiveAccessAllRegistrants: 8,
} as const;
export type ReservationType = (typeof ReservationType)[keyof typeof ReservationType];

/**
 * What a command does to a reservation somebody else holds (SPC-4 table 66, SBC-3 table 13):
 * 'exempt' is carried out under every reservation; 'status' under every persistent one but not under RESERVE(6/10);
 * 'read' under a persistent Write Exclusive; 'write' under none, unless the nexus shares the reservation.
 */
export type ReservationAccess = 'exempt' | 'status' | 'read' | 'write';

export type ReservationOutcome = 'good' | 'conflict' | SenseCode;

/** More than any cluster has paths; a registration costs some 200 bytes. */
export const maxRegistrations = 1024;

interface Reservation {
  type: ReservationType;
  /** The nexus that made it; for the all-registrants types every registrant holds it. */
  holder: string;
}

export function isReservationType(value: number): value is ReservationType {
  return value === 1 || value === 3 || (value >= 5 && value <= 8);
}

export function isAllRegistrants(type: ReservationType): boolean {
  return type === 7 || type === 8;
}

function isShared(type: ReservationType): boolean {
  return type >= 5;
}

function isWriteExclusive(type: ReservationType): boolean {
  return type === 1 || type === 5 || type === 7;
}

export class Reservations {
  /** PRgeneration: counts changes of the registrations. */
  generation = 0;
  /** Nexus to reservation key, in the order they registered. */
  readonly registrations = new Map<string, bigint>();
  reservation: Reservation | null = null;
  #legacyHolder: string | null = null;
  readonly #attention: (nexus: string, what: SenseCode) => void;

  /** `attention` raises a unit attention for a nexus other than the one whose command is carried out. */
  constructor(attention: (nexus: string, what: SenseCode) => void) {
    this.#attention = attention;
  }

  /** Whether a command of this access from this nexus ends with RESERVATION CONFLICT. */
  conflicts(nexus: string, access: ReservationAccess): boolean {
    if (this.#legacyHolder !== null) return this.#legacyHolder !== nexus && access !== 'exempt';
    const held = this.reservation;
    if (held === null || access === 'exempt' || access === 'status') return false;
    if (this.holds(nexus)) return false;
    if (isShared(held.type) && this.registrations.has(nexus)) return false;
    return !(access === 'read' && isWriteExclusive(held.type));
  }

  holds(nexus: string): boolean {
    const held = this.reservation;
    if (held === null) return false;
    return isAllRegistrants(held.type) ? this.registrations.has(nexus) : held.holder === nexus;
  }

  /** RESERVE(6/10), SPC-2 7.21. Persistent and legacy reservations exclude each other (CRH is 0). */
  legacyReserve(nexus: string): ReservationOutcome {
    if (this.registrations.size > 0) return 'conflict';
    if (this.#legacyHolder !== null && this.#legacyHolder !== nexus) return 'conflict';
    this.#legacyHolder = nexus;
    return 'good';
  }

  /** RELEASE(6/10): from others than the holder it does nothing. */
  legacyRelease(nexus: string): ReservationOutcome {
    if (this.registrations.size > 0) return 'conflict';
    if (this.#legacyHolder === nexus) this.#legacyHolder = null;
    return 'good';
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

  /** REGISTER, and with `ignoreKey` REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7). */
  register(nexus: string, key: bigint, newKey: bigint, ignoreKey: boolean): ReservationOutcome {
    const current = this.registrations.get(nexus);
    if (!ignoreKey && key !== (current ?? 0n)) return 'conflict';
    if (current === undefined && newKey === 0n) return 'good';
    if (newKey === 0n) {
      this.#unregister(nexus);
    } else {
      if (current === undefined && this.registrations.size >= maxRegistrations) {
        return sense.insufficientRegistrationResources;
      }
      this.registrations.set(nexus, newKey);
    }
    this.#nextGeneration();
    return 'good';
  }

  /** RESERVE (SPC-4 5.13.9). */
  reserve(nexus: string, key: bigint, type: ReservationType): ReservationOutcome {
    if (this.registrations.get(nexus) !== key) return 'conflict';
    const held = this.reservation;
    if (held !== null) return this.holds(nexus) && held.type === type ? 'good' : 'conflict';
    this.reservation = { type, holder: nexus };
    return 'good';
  }

  /** RELEASE (SPC-4 5.13.11.2). */
  release(nexus: string, key: bigint, type: ReservationType): ReservationOutcome {
    if (this.registrations.get(nexus) !== key) return 'conflict';
    const held = this.reservation;
    if (held === null || !this.holds(nexus)) return 'good';
    if (held.type !== type) return sense.invalidReleaseOfReservation;
    this.#endReservation(nexus);
    return 'good';
  }

  /** CLEAR (SPC-4 5.13.11.6). */
  clear(nexus: string, key: bigint): ReservationOutcome {
    if (this.registrations.get(nexus) !== key) return 'conflict';
    for (const other of this.registrations.keys()) {
      if (other !== nexus) this.#attention(other, sense.reservationsPreempted);
    }
    this.registrations.clear();
    this.reservation = null;
    this.#nextGeneration();
    return 'good';
  }

  /** PREEMPT (SPC-4 5.13.11.4). `preempted` receives the nexuses that lost their registration. */
  preempt(
    nexus: string,
    key: bigint,
    victimKey: bigint,
    type: ReservationType,
    preempted: string[],
  ): ReservationOutcome {
    if (this.registrations.get(nexus) !== key) return 'conflict';
    const held = this.reservation;
    const shared = held !== null && isAllRegistrants(held.type);
    const everybody = shared && victimKey === 0n;
    if (victimKey === 0n && !everybody) return sense.invalidFieldInParameterList;
    const takesOver =
      held !== null && (everybody || (!shared && this.registrations.get(held.holder) === victimKey));
    let matched = false;
    for (const [other, otherKey] of this.registrations) {
      if (!everybody && otherKey !== victimKey) continue;
      matched = true;
      if (other !== nexus) preempted.push(other);
    }
    if (!matched) return 'conflict';
    for (const victim of preempted) {
      this.registrations.delete(victim);
      this.#attention(victim, sense.registrationsPreempted);
    }
    if (takesOver) {
      this.reservation = { type, holder: nexus };
      if (held.type !== type) this.#tellRegistrants(nexus, sense.reservationsReleased);
    }
    this.#nextGeneration();
    return 'good';
  }

  #unregister(nexus: string): void {
    const held = this.reservation;
    const wasHolder = this.holds(nexus);
    this.registrations.delete(nexus);
    if (held === null || !wasHolder) return;
    if (!isAllRegistrants(held.type)) {
      this.#endReservation(nexus);
    } else if (this.registrations.size === 0) {
      this.reservation = null;
    }
  }

  /** Ends the reservation; those who shared it hear of it (SPC-4 5.13.11.2.2). */
  #endReservation(nexus: string): void {
    const held = this.reservation;
    this.reservation = null;
    if (held !== null && isShared(held.type)) this.#tellRegistrants(nexus, sense.reservationsReleased);
  }

  #tellRegistrants(except: string, what: SenseCode): void {
    for (const other of this.registrations.keys()) if (other !== except) this.#attention(other, what);
  }

  #nextGeneration(): void {
    this.generation = (this.generation + 1) >>> 0;
  }
}
