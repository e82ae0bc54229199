/** Persistent reservations as data, and who may do what under them (SPC-4 5.13.1). */

import { nexusName, nexusParts } from './nexus-name.ts';
import type { SavedReservations } from './unit-state-store.ts';

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

/** Never changed: every PERSISTENT RESERVE OUT that does something makes another. */
export interface ReservationState {
  /** PRGENERATION (SPC-4 6.15.2): how often registrations changed since power on. */
  readonly generation: number;
  /** Nexus to reservation key, in the order they registered. */
  readonly registrations: ReadonlyMap<string, bigint>;
  readonly reservation: {
    readonly type: ReservationType;
    /** Null: every registrant holds it (types 7 and 8). */
    readonly holder: string | null;
  } | null;
  /** The last valid APTPL bit: registrations and reservation survive a loss of power. */
  readonly aptpl: boolean;
}

export const noReservations: ReservationState = {
  generation: 0,
  registrations: new Map(),
  reservation: null,
  aptpl: false,
};

export function isReservationType(value: number): value is ReservationType {
  return value === 1 || value === 3 || (value >= 5 && value <= 8);
}

export function isAllRegistrants(type: ReservationType): boolean {
  return type === 7 || type === 8;
}

/** Registrants are not kept out: the types of registrants only and of all registrants. */
export function isShared(type: ReservationType): boolean {
  return type >= 5;
}

function isWriteExclusive(type: ReservationType): boolean {
  return type === 1 || type === 5 || type === 7;
}

export function holds(state: ReservationState, nexus: string): boolean {
  const held = state.reservation;
  if (held === null) return false;
  return held.holder === null ? state.registrations.has(nexus) : held.holder === nexus;
}

/** Whether a nexus holds the reservation or, being registered, shares it. */
export function sharesReservation(state: ReservationState, nexus: string): boolean {
  const held = state.reservation;
  if (held === null) return false;
  return holds(state, nexus) || (isShared(held.type) && state.registrations.has(nexus));
}

/** Whether a read or a write of this nexus ends with RESERVATION CONFLICT (SPC-4 table 66). */
export function isKeptOut(state: ReservationState, nexus: string, access: 'read' | 'write'): boolean {
  const held = state.reservation;
  if (held === null || sharesReservation(state, nexus)) return false;
  return !(access === 'read' && isWriteExclusive(held.type));
}

/** What of the state survives a loss of power. */
export function savedReservations(state: ReservationState): SavedReservations | null {
  if (!state.aptpl) return null;
  const held = state.reservation;
  const nexuses = [...state.registrations.keys()];
  return {
    registrations: Array.from(state.registrations, ([nexus, key]) => {
      return { ...nexusParts(nexus), key: key.toString(16).padStart(16, '0') };
    }),
    reservation:
      held === null
        ? null
        : { type: held.type, holder: held.holder === null ? null : nexuses.indexOf(held.holder) },
  };
}

/** The state a unit has after power on. */
export function restoredReservations(saved: SavedReservations | null): ReservationState {
  if (saved === null) return noReservations;
  const nexuses = saved.registrations.map(({ initiatorPort, targetPort }) =>
    nexusName(initiatorPort, targetPort),
  );
  const held = saved.reservation;
  return {
    generation: 0,
    registrations: new Map(
      saved.registrations.map(({ key }, index) => [nexuses[index]!, BigInt(`0x${key}`)]),
    ),
    reservation:
      held === null
        ? null
        : { type: held.type, holder: held.holder === null ? null : (nexuses[held.holder] ?? null) },
    aptpl: true,
  };
}
