/**
 * PERSISTENT RESERVE OUT (SPC-4 6.16): its CDB and parameter lists. What each service action does is in
 * reservation-changes.ts.
 *
 * A change fences first, is made durable while APTPL is active, and is answered then. When it cannot be made durable
 * it has not happened: the answer is NOT READY or HARDWARE ERROR, and the state is the one before.
 *
 *     5Fh | SERVICE ACTION 1Fh | SCOPE F0h, TYPE 0Fh | - (2) | PARAMETER LIST LENGTH (4) | CONTROL
 */
import { initiatorNameOf, nexusName, nexusParts } from '../nexus-name.ts';
import * as changes from '../reservation-changes.ts';
import {
  isReservationType,
  type ReservationState,
  type ReservationType,
  savedReservations,
} from '../reservation-state.ts';
import { type SenseCode, sense, senseOfFailedSave } from '../sense.ts';
import type { Task } from '../task.ts';
import { decodeTransportId, type TransportId } from './transport-id.ts';

const listHeaderBytes = 24;
/** Where the TransportIDs of REGISTER with SPEC_I_PT begin, behind their length. */
const transportIdsStart = 28;
/** A TransportID of the longest name for every registration there can be. */
const maxListBytes = transportIdsStart + changes.maxRegistrations * 256;

const flag = { specifyInitiatorPorts: 0x08, allTargetPorts: 0x04, aptpl: 0x01 };
const knownFlags = flag.specifyInitiatorPorts | flag.allTargetPorts | flag.aptpl;

/** The basic parameter list (6.16.3). */
interface OutParameters {
  list: Buffer;
  key: bigint;
  actionKey: bigint;
  flags: number;
}

export function register(task: Task): void {
  registerWith(task, false);
}

export function registerAndIgnoreExistingKey(task: Task): void {
  registerWith(task, true);
}

function registerWith(task: Task, ignoreKey: boolean): void {
  const parameters = outParameters(task, !ignoreKey);
  if (parameters === null) return;
  const { key, actionKey: newKey, flags } = parameters;
  const aptpl = (flags & flag.aptpl) !== 0;
  if (aptpl && !task.unit.saved.isSupported) return task.check(sense.invalidFieldInParameterList);
  const onAllPorts = (flags & flag.allTargetPorts) !== 0;
  const { initiatorPort } = nexusParts(task.nexus.name);
  const otherPorts = onAllPorts ? nexusesOf(task, initiatorPort, true) : [];
  let specified: string[] | null = null;
  if ((flags & flag.specifyInitiatorPorts) !== 0) {
    specified = specifiedNexuses(task, parameters.list, onAllPorts);
    if (specified === null) return;
  }
  const request = { key, newKey, ignoreKey, aptpl, otherPorts, specified };
  change(task, parameters, (state, nexus) => changes.register(state, nexus, request));
}

export function reserve(task: Task): void {
  const type = reservationType(task);
  const parameters = type === null ? null : outParameters(task, false);
  if (type === null || parameters === null) return;
  change(task, parameters, (state, nexus) => changes.reserve(state, nexus, parameters.key, type));
}

export function release(task: Task): void {
  const type = reservationType(task);
  const parameters = type === null ? null : outParameters(task, false);
  if (type === null || parameters === null) return;
  change(task, parameters, (state, nexus) => changes.release(state, nexus, parameters.key, type));
}

export function clear(task: Task): void {
  const parameters = outParameters(task, false);
  if (parameters === null) return;
  change(task, parameters, (state, nexus) => changes.clear(state, nexus, parameters.key));
}

export function preempt(task: Task): void {
  preemptThen(task, (_preempted, done) => done());
}

/**
 * PREEMPT AND ABORT (5.13.11.5): answered when no command of a preempted nexus has effects any more. What they have
 * waiting for its turn here ends first, so that two nexuses preempting each other never wait for each other. A copy that
 * a preempted initiator asked another unit for ends no later than its segment in hand, and that is waited for as well.
 */
export function preemptAndAbort(task: Task): void {
  preemptThen(task, (preempted, done) => {
    const { unit, target, command } = task;
    unit.changes.abort(preempted);
    const { abortTasks } = target;
    let waiting = preempted.length + 1;
    const oneDone = (): void => {
      waiting -= 1;
      if (waiting === 0) done();
    };
    for (const nexus of preempted) {
      if (abortTasks === null) unit.whenIdle([nexus], oneDone);
      else abortTasks(nexus, command.lun, oneDone);
    }
    const initiators = new Set(preempted.map(initiatorNameOf));
    void unit.copies.visitsOver((nexus) => initiators.has(initiatorNameOf(nexus))).then(oneDone);
  });
}

function preemptThen(task: Task, then: (preempted: readonly string[], done: () => void) => void): void {
  const type = reservationType(task);
  const parameters = type === null ? null : outParameters(task, false);
  if (type === null || parameters === null) return;
  const { key, actionKey } = parameters;
  change(task, parameters, (state, nexus) => changes.preempt(state, nexus, key, actionKey, type), then);
}

/**
 * REGISTER AND MOVE (5.13.8). Its parameter list (6.16.4): 0-7 RESERVATION KEY, 8-15 SERVICE ACTION RESERVATION KEY,
 * 17 UNREG (02h) and APTPL (01h), 18-19 RELATIVE TARGET PORT IDENTIFIER, 20-23 length of the TransportID, 24- TransportID.
 */
export function registerAndMove(task: Task): void {
  const list = parameterList(task);
  if (list === null) return;
  if (list.length !== listHeaderBytes + list.readUInt32BE(20))
    return task.check(sense.parameterListLengthError);
  const flags = list[17]!;
  const targetPort = list.readUInt16BE(18);
  const transportId = decodeTransportId(list.subarray(listHeaderBytes));
  const aptpl = (flags & 0x01) !== 0;
  // The TransportID names one initiator port, not all of an initiator (7.6.4.6).
  const isValid =
    transportId !== null &&
    transportId.initiatorPort !== null &&
    transportId.lengthBytes === list.length - listHeaderBytes &&
    task.target.ports().includes(targetPort) &&
    (flags & ~0x03) === 0 &&
    (!aptpl || task.unit.saved.isSupported);
  const request = {
    key: list.readBigUInt64BE(0),
    newKey: list.readBigUInt64BE(8),
    aptpl,
    unregister: (flags & 0x02) !== 0,
    to: nexusName(transportId?.initiatorPort ?? '', targetPort),
  };
  change(task, { list }, (state, nexus) => {
    const outcome = changes.registerAndMove(state, nexus, request);
    return isValid || outcome === 'conflict' ? outcome : sense.invalidFieldInParameterList;
  });
}

/** Decides when it is the command's turn, makes the new state durable, lets it hold, and answers after `then`. */
function change(
  task: Task,
  { list }: { list: Buffer },
  decide: (state: ReservationState, nexus: string) => changes.ReservationOutcome,
  then: (preempted: readonly string[], done: () => void) => void = (_preempted, done) => done(),
): void {
  const { unit, nexus } = task;
  const { reservations } = unit;
  const listBytes = list.length;
  unit.changes.take(task, (finished) => {
    const outcome = reservations.legacyReserved ? 'conflict' : decide(reservations.state, nexus.name);
    if (isRefusal(outcome)) {
      refuse(task, outcome, listBytes);
      return finished();
    }
    reservations.propose(outcome);
    unit.saved.save({ persistentReservations: savedReservations(outcome.state) }, (error) => {
      if (error === null) {
        reservations.commit();
        then(outcome.preempted, () => task.good(listBytes));
      } else {
        reservations.abandon();
        task.check(senseOfFailedSave(error));
      }
      finished();
    });
  });
}

function isRefusal(outcome: changes.ReservationOutcome): outcome is 'good' | 'conflict' | SenseCode {
  return typeof outcome === 'string' || 'asc' in outcome;
}

function refuse(task: Task, outcome: 'good' | 'conflict' | SenseCode, listBytes: number): void {
  if (outcome === 'good') task.good(listBytes);
  else if (outcome === 'conflict') task.conflict();
  else task.check(outcome);
}

/** As much of the data-out as the CDB says, or null when the task has been answered. */
function parameterList(task: Task): Buffer | null {
  const { cdb, command, unit } = task;
  if (unit.reservations.legacyReserved) {
    task.conflict();
    return null;
  }
  const listBytes = cdb.readUInt32BE(5);
  if (listBytes < listHeaderBytes || listBytes > maxListBytes || command.dataOut.length < listBytes) {
    task.check(sense.parameterListLengthError);
    return null;
  }
  return command.dataOut.subarray(0, listBytes);
}

/** The basic parameter list, or null when the task has been answered. */
function outParameters(task: Task, maySpecifyPorts: boolean): OutParameters | null {
  const list = parameterList(task);
  if (list === null) return null;
  const flags = list[20]!;
  const specifiesPorts = (flags & flag.specifyInitiatorPorts) !== 0;
  if ((specifiesPorts && !maySpecifyPorts) || (flags & ~knownFlags) !== 0) {
    task.check(sense.invalidFieldInParameterList);
    return null;
  }
  if (!specifiesPorts && list.length !== listHeaderBytes) {
    task.check(sense.parameterListLengthError);
    return null;
  }
  return { list, key: list.readBigUInt64BE(0), actionKey: list.readBigUInt64BE(8), flags };
}

/** Scope (logical unit) and type from the CDB, or null when the task has been answered. */
function reservationType(task: Task): ReservationType | null {
  const scope = task.cdb[2]! >> 4;
  const type = task.cdb[2]! & 0x0f;
  if (scope === 0 && isReservationType(type)) return type;
  task.invalidField(2, scope === 0 ? 3 : 7);
  return null;
}

/** The nexuses of the TransportIDs behind the basic list (table 212), or null when the task has been answered. */
function specifiedNexuses(task: Task, list: Buffer, onAllPorts: boolean): string[] | null {
  if (
    list.length < transportIdsStart ||
    list.length < transportIdsStart + list.readUInt32BE(listHeaderBytes)
  ) {
    task.check(sense.parameterListLengthError);
    return null;
  }
  const end = transportIdsStart + list.readUInt32BE(listHeaderBytes);
  const nexuses: string[] = [];
  for (let position = transportIdsStart; position < end; ) {
    const id = decodeTransportId(list.subarray(position, end));
    if (id === null) {
      task.check(sense.invalidFieldInParameterList);
      return null;
    }
    for (const initiatorPort of initiatorPortsOf(task, id)) {
      nexuses.push(...nexusesOf(task, initiatorPort, onAllPorts));
    }
    position += id.lengthBytes;
  }
  return nexuses;
}

/** Without an ISID: every port of that initiator the unit knows (7.6.4.6). */
function initiatorPortsOf(task: Task, id: TransportId): string[] {
  if (id.initiatorPort !== null) return [id.initiatorPort];
  const ports = task.unit.nexusNames().map((nexus) => nexusParts(nexus).initiatorPort);
  return ports.filter((port) => port.startsWith(`${id.initiatorName},i,0x`));
}

/** What an initiator port has with the target port the command came in at, or with each there is. */
function nexusesOf(task: Task, initiatorPort: string, onAllPorts: boolean): string[] {
  const own = nexusParts(task.nexus.name).targetPort;
  const ports = onAllPorts ? task.target.ports() : [own];
  return ports.map((port) => nexusName(initiatorPort, port));
}
