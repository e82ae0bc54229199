/**
 * What each service action of PERSISTENT RESERVE OUT makes of the reservations (SPC-4 5.13.6 to 5.13.11): functions
 * of the state and the request. `Reservations` carries their outcome out.
 */
import {
  holds,
  isAllRegistrants,
  isShared,
  type ReservationState,
  type ReservationType,
} from './reservation-state.ts';
import { type SenseCode, sense } from './sense.ts';

/** A state that shall follow, and what comes with it. */
export interface ReservationChange {
  readonly state: ReservationState;
  /** Unit attentions of others than the nexus whose command it is. */
  readonly attentions: readonly (readonly [nexus: string, what: SenseCode])[];
  /** Nexuses that lost their registration to a PREEMPT. */
  readonly preempted: readonly string[];
}

/** 'good': nothing to do. 'conflict': RESERVATION CONFLICT. */
export type ReservationOutcome = 'good' | 'conflict' | SenseCode | ReservationChange;

/**
 * 64 hosts with eight paths each. As many of the longest names fit into the one document a unit's state is kept in
 * (control/unit-states.ts).
 */
export const maxRegistrations = 512;

export interface RegisterRequest {
  /** RESERVATION KEY. */
  key: bigint;
  /** SERVICE ACTION RESERVATION KEY; zero: unregister. */
  newKey: bigint;
  /** REGISTER AND IGNORE EXISTING KEY. */
  ignoreKey: boolean;
  aptpl: boolean;
  /** ALL_TG_PT: the nexuses of the same initiator port with the other target ports. */
  otherPorts: readonly string[];
  /** SPEC_I_PT: the nexuses of the TransportIDs; null when the bit is not set. */
  specified: readonly string[] | null;
}

/** REGISTER and REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7 and its tables). All registrations, or none. */
export function register(
  state: ReservationState,
  nexus: string,
  request: RegisterRequest,
): ReservationOutcome {
  const { key, newKey, ignoreKey, aptpl, specified } = request;
  const current = state.registrations.get(nexus);
  if (!ignoreKey && key !== (current ?? 0n)) return 'conflict';
  if (current !== undefined && specified !== null) return sense.invalidFieldInCdb;
  if (current === undefined && newKey === 0n) return 'good';
  const registrations = new Map(state.registrations);
  const leaving: string[] = [];
  const apply = (each: string): void => {
    if (newKey !== 0n) registrations.set(each, newKey);
    else if (registrations.delete(each)) leaving.push(each);
  };
  apply(nexus);
  for (const other of request.otherPorts) {
    if (other === nexus) continue;
    // As if the request had come through that port too; what it asks for may be so there already.
    const known = state.registrations.get(other);
    if (!ignoreKey && known !== undefined && known !== key && known !== newKey) return 'conflict';
    apply(other);
  }
  for (const other of specified ?? []) {
    if (other === nexus) continue;
    const known = state.registrations.get(other);
    if (known !== undefined && known !== newKey) return 'conflict';
    apply(other);
  }
  if (registrations.size > maxRegistrations) return sense.insufficientRegistrationResources;
  const next = { ...state, registrations, aptpl, generation: nextGeneration(state) };
  return afterUnregistering(state, next, leaving, nexus);
}

/** RESERVE (SPC-4 5.13.9). */
export function reserve(
  state: ReservationState,
  nexus: string,
  key: bigint,
  type: ReservationType,
): ReservationOutcome {
  if (state.registrations.get(nexus) !== key) return 'conflict';
  const held = state.reservation;
  if (held !== null) return holds(state, nexus) && held.type === type ? 'good' : 'conflict';
  return changed({ ...state, reservation: reservationOf(nexus, type) });
}

/** RELEASE (SPC-4 5.13.11.2). */
export function release(
  state: ReservationState,
  nexus: string,
  key: bigint,
  type: ReservationType,
): ReservationOutcome {
  if (state.registrations.get(nexus) !== key) return 'conflict';
  const held = state.reservation;
  if (held === null || !holds(state, nexus)) return 'good';
  if (held.type !== type) return sense.invalidReleaseOfReservation;
  const next = { ...state, reservation: null };
  return changed(next, isShared(type) ? tell(next, nexus, sense.reservationsReleased) : []);
}

/** CLEAR (SPC-4 5.13.11.6). */
export function clear(state: ReservationState, nexus: string, key: bigint): ReservationOutcome {
  if (state.registrations.get(nexus) !== key) return 'conflict';
  const next = {
    ...state,
    registrations: new Map<string, bigint>(),
    reservation: null,
    generation: nextGeneration(state),
  };
  return changed(next, tell(state, nexus, sense.reservationsPreempted));
}

/** PREEMPT, and what PREEMPT AND ABORT begins with (SPC-4 5.13.11.4, table 65). */
export function preempt(
  state: ReservationState,
  nexus: string,
  key: bigint,
  victimKey: bigint,
  type: ReservationType,
): ReservationOutcome {
  if (state.registrations.get(nexus) !== key) return 'conflict';
  const held = state.reservation;
  const isEverybodys = held !== null && isAllRegistrants(held.type);
  const everybody = isEverybodys && victimKey === 0n;
  if (victimKey === 0n && !everybody) return sense.invalidFieldInParameterList;
  const isHolders =
    held !== null && held.holder !== null && state.registrations.get(held.holder) === victimKey;
  const takesOver = everybody || isHolders;
  const registrations = new Map(state.registrations);
  const preempted: string[] = [];
  let matched = false;
  for (const [other, otherKey] of state.registrations) {
    if (!everybody && otherKey !== victimKey) continue;
    matched = true;
    if (other === nexus) continue;
    registrations.delete(other);
    preempted.push(other);
  }
  if (!matched) return 'conflict';
  const reservation = takesOver ? reservationOf(nexus, type) : held;
  const next = { ...state, registrations, reservation, generation: nextGeneration(state) };
  const attentions = preempted.map((other) => [other, sense.registrationsPreempted] as const);
  const isAnotherType = takesOver && held !== null && held.type !== type;
  return {
    state: next,
    attentions: isAnotherType
      ? [...attentions, ...tell(next, nexus, sense.reservationsReleased)]
      : attentions,
    preempted,
  };
}

export interface MoveRequest {
  key: bigint;
  newKey: bigint;
  aptpl: boolean;
  /** UNREG: the nexus that moves the reservation away unregisters. */
  unregister: boolean;
  /** The nexus the reservation goes to. */
  to: string;
}

/** REGISTER AND MOVE (SPC-4 5.13.8). */
export function registerAndMove(
  state: ReservationState,
  nexus: string,
  request: MoveRequest,
): ReservationOutcome {
  const { key, newKey, aptpl, unregister, to } = request;
  if (state.registrations.get(nexus) !== key) return 'conflict';
  const held = state.reservation;
  // There is nothing to move, or every registrant has it already.
  if (held === null || held.holder !== nexus) return 'conflict';
  if (newKey === 0n || to === nexus) return sense.invalidFieldInParameterList;
  const registrations = new Map(state.registrations);
  registrations.set(to, newKey);
  if (unregister) registrations.delete(nexus);
  if (registrations.size > maxRegistrations) return sense.insufficientRegistrationResources;
  const reservation = { type: held.type, holder: to };
  return changed({ registrations, reservation, aptpl, generation: nextGeneration(state) });
}

/**
 * The reservation ends with its holder's registration, or with the last one when all registrants hold it; those who
 * shared it hear of it (SPC-4 5.13.11.3).
 */
function afterUnregistering(
  before: ReservationState,
  next: ReservationState,
  leaving: readonly string[],
  nexus: string,
): ReservationChange {
  const held = before.reservation;
  if (held === null) return changed(next);
  const ends = held.holder === null ? next.registrations.size === 0 : leaving.includes(held.holder);
  if (!ends) return changed(next);
  const released = { ...next, reservation: null };
  return changed(released, isShared(held.type) ? tell(released, nexus, sense.reservationsReleased) : []);
}

function reservationOf(nexus: string, type: ReservationType): ReservationState['reservation'] {
  return { type, holder: isAllRegistrants(type) ? null : nexus };
}

function changed(
  state: ReservationState,
  attentions: ReservationChange['attentions'] = [],
): ReservationChange {
  return { state, attentions, preempted: [] };
}

/** Every registered nexus but the one whose command it is. */
function tell(state: ReservationState, except: string, what: SenseCode): (readonly [string, SenseCode])[] {
  return [...state.registrations.keys()]
    .filter((other) => other !== except)
    .map((other) => [other, what] as const);
}

/** A 32-bit counter that wraps. */
function nextGeneration(state: ReservationState): number {
  return (state.generation + 1) >>> 0;
}
