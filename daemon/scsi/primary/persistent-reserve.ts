/** PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16): their CDBs and parameter data. The rules: reservations.ts. */
import {
  isAllRegistrants,
  isReservationType,
  type ReservationOutcome,
  type Reservations,
  type ReservationType,
} from '../reservations.ts';
import { sense } from '../sense.ts';
import type { Task } from '../task.ts';

/** An iSCSI relative target port: there is one. */
const relativeTargetPort = 1;

export function readKeys(task: Task): void {
  answer(task, task.unit.reservations, ({ registrations }) => {
    const keys = Buffer.alloc(registrations.size * 8);
    let position = 0;
    for (const key of registrations.values()) position = keys.writeBigUInt64BE(key, position);
    return keys;
  });
}

export function readReservation(task: Task): void {
  answer(task, task.unit.reservations, ({ registrations, reservation }) => {
    if (reservation === null) return Buffer.alloc(0);
    const descriptor = Buffer.alloc(16);
    const shared = isAllRegistrants(reservation.type);
    descriptor.writeBigUInt64BE(shared ? 0n : (registrations.get(reservation.holder) ?? 0n), 0);
    descriptor[13] = reservation.type;
    return descriptor;
  });
}

export function readFullStatus(task: Task): void {
  answer(task, task.unit.reservations, (reservations) => {
    const descriptors: Buffer[] = [];
    for (const [nexus, key] of reservations.registrations) {
      const transportId = iscsiTransportId(nexus);
      const descriptor = Buffer.alloc(24);
      descriptor.writeBigUInt64BE(key, 0);
      if (reservations.holds(nexus)) {
        descriptor[12] = 0x01;
        descriptor[13] = reservations.reservation?.type ?? 0;
      }
      descriptor.writeUInt16BE(relativeTargetPort, 18);
      descriptor.writeUInt32BE(transportId.length, 20);
      descriptors.push(descriptor, transportId);
    }
    return Buffer.concat(descriptors);
  });
}

/** 6.15.4: neither RLR_C, CRH, SIP_C, ATP_C nor PTPL_C; TMV with all six types. */
export function reportCapabilities(task: Task): void {
  if (task.unit.reservations.legacyReserved) return task.conflict();
  const data = Buffer.from([0x00, 0x08, 0x00, 0x80, 0xea, 0x01, 0x00, 0x00]);
  task.parameterData(data, task.cdb.readUInt16BE(7));
}

/** PRGENERATION, the length of what follows, and what follows. */
function answer(task: Task, reservations: Reservations, body: (from: Reservations) => Buffer): void {
  if (reservations.legacyReserved) return task.conflict();
  const content = body(reservations);
  const header = Buffer.alloc(8);
  header.writeUInt32BE(reservations.generation, 0);
  header.writeUInt32BE(content.length, 4);
  task.parameterData(Buffer.concat([header, content]), task.cdb.readUInt16BE(7));
}

/**
 * An iSCSI TransportID (SPC-4 7.6.4.6). A nexus that starts with an initiator port name (RFC 7143 4.2.7: name,
 * ",i,0x" and the ISID) has format 01b with that name; any other format 00b with what precedes the first comma.
 */
export function iscsiTransportId(nexus: string): Buffer {
  const port = /^[^,]+,i,0x[0-9a-f]+/i.exec(nexus);
  const name = port === null ? nexus.split(',', 1)[0]! : port[0];
  const nameBytes = Buffer.byteLength(name) + 1;
  const id = Buffer.alloc(4 + Math.max(20, Math.ceil(nameBytes / 4) * 4));
  id[0] = (port === null ? 0x00 : 0x40) | 0x05;
  id.writeUInt16BE(id.length - 4, 2);
  id.write(name, 4);
  return id;
}

const parameterListBytes = 24;

interface OutParameters {
  key: bigint;
  actionKey: bigint;
}

/** The parameter list (6.16.3), or null when the task has been answered. */
function outParameters(task: Task): OutParameters | null {
  if (task.unit.reservations.legacyReserved) {
    task.conflict();
    return null;
  }
  const list = task.command.dataOut;
  if (task.cdb.readUInt32BE(5) !== parameterListBytes || list.length < parameterListBytes) {
    task.check(sense.parameterListLengthError);
    return null;
  }
  // SPEC_I_PT, ALL_TG_PT and APTPL are reported as not capable.
  if (list[20] !== 0) {
    task.check(sense.invalidFieldInParameterList);
    return null;
  }
  return { key: list.readBigUInt64BE(0), actionKey: list.readBigUInt64BE(8) };
}

/** Scope (logical unit) and type from the CDB, or null when the task has been answered. */
function reservationType(task: Task): ReservationType | null {
  const scope = task.cdb[2]! >> 4;
  const type = task.cdb[2]! & 0x0f;
  if (scope === 0 && isReservationType(type)) return type;
  task.invalidField();
  return null;
}

function finish(task: Task, outcome: ReservationOutcome): void {
  if (outcome === 'good') task.good(parameterListBytes);
  else if (outcome === 'conflict') task.conflict();
  else task.check(outcome);
}

export function register(task: Task): void {
  const parameters = outParameters(task);
  if (parameters === null) return;
  const { key, actionKey } = parameters;
  finish(task, task.unit.reservations.register(task.nexus.name, key, actionKey, false));
}

export function registerAndIgnoreExistingKey(task: Task): void {
  const parameters = outParameters(task);
  if (parameters === null) return;
  const { key, actionKey } = parameters;
  finish(task, task.unit.reservations.register(task.nexus.name, key, actionKey, true));
}

export function persistentReserve(task: Task): void {
  const type = reservationType(task);
  const parameters = type === null ? null : outParameters(task);
  if (type === null || parameters === null) return;
  finish(task, task.unit.reservations.reserve(task.nexus.name, parameters.key, type));
}

export function persistentRelease(task: Task): void {
  const type = reservationType(task);
  const parameters = type === null ? null : outParameters(task);
  if (type === null || parameters === null) return;
  finish(task, task.unit.reservations.release(task.nexus.name, parameters.key, type));
}

export function clear(task: Task): void {
  const parameters = outParameters(task);
  if (parameters === null) return;
  finish(task, task.unit.reservations.clear(task.nexus.name, parameters.key));
}

export function preempt(task: Task): void {
  preemptThen(task, (outcome) => finish(task, outcome));
}

/**
 * PREEMPT AND ABORT: answers when no command of a preempted nexus is in the device any more. The fence holds from
 * then on, which is what it is for; commands that were in flight end as they would have, instead of being aborted.
 */
export function preemptAndAbort(task: Task): void {
  preemptThen(task, (outcome, preempted) => task.unit.whenIdle(preempted, () => finish(task, outcome)));
}

function preemptThen(task: Task, then: (outcome: ReservationOutcome, preempted: string[]) => void): void {
  const type = reservationType(task);
  const parameters = type === null ? null : outParameters(task);
  if (type === null || parameters === null) return;
  const preempted: string[] = [];
  const { key, actionKey } = parameters;
  const outcome = task.unit.reservations.preempt(task.nexus.name, key, actionKey, type, preempted);
  then(outcome, preempted);
}
