/**
 * PERSISTENT RESERVE IN (SPC-4 6.15): what is registered and reserved. It changes nothing.
 *
 *     5Eh | SERVICE ACTION 1Fh | - (5) | ALLOCATION LENGTH (2) | CONTROL
 */
import { nexusParts } from '../nexus-name.ts';
import { holds, type ReservationState } from '../reservation-state.ts';
import type { Task } from '../task.ts';
import { encodeTransportId } from './transport-id.ts';

/** 6.15.2. */
export function readKeys(task: Task): void {
  answer(task, ({ registrations }) => {
    const keys = Buffer.alloc(registrations.size * 8);
    let position = 0;
    for (const key of registrations.values()) position = keys.writeBigUInt64BE(key, position);
    return keys;
  });
}

/** 6.15.3: the key of the holder, or zero when every registrant holds it; scope (logical unit) and type. */
export function readReservation(task: Task): void {
  answer(task, ({ registrations, reservation }) => {
    if (reservation === null) return Buffer.alloc(0);
    const descriptor = Buffer.alloc(16);
    const key = reservation.holder === null ? 0n : (registrations.get(reservation.holder) ?? 0n);
    descriptor.writeBigUInt64BE(key, 0);
    descriptor[13] = reservation.type;
    return descriptor;
  });
}

/**
 * 6.15.5: one descriptor a registration, each with its target port (ALL_TG_PT is zero: a registration with every port
 * is one with each). Bytes 0-7 key, 12 R_HOLDER, 13 scope and type, 18-19 RELATIVE TARGET PORT IDENTIFIER, 20-23 length of
 * the TransportID that follows.
 */
export function readFullStatus(task: Task): void {
  answer(task, (state) => {
    const descriptors: Buffer[] = [];
    for (const [nexus, key] of state.registrations) {
      const { initiatorPort, targetPort } = nexusParts(nexus);
      const transportId = encodeTransportId(initiatorPort);
      const descriptor = Buffer.alloc(24);
      descriptor.writeBigUInt64BE(key, 0);
      if (holds(state, nexus)) {
        descriptor[12] = 0x01;
        descriptor[13] = state.reservation?.type ?? 0;
      }
      descriptor.writeUInt16BE(targetPort, 18);
      descriptor.writeUInt32BE(transportId.length, 20);
      descriptors.push(descriptor, transportId);
    }
    return Buffer.concat(descriptors);
  });
}

const capability = {
  compatibleHandling: 0x10,
  specifyInitiatorPorts: 0x08,
  allTargetPorts: 0x04,
  aptpl: 0x01,
};
const typeMaskValid = 0x80;
const aptplActive = 0x01;

/**
 * 6.15.4: CRH, SIP_C, ATP_C, and PTPL_C when the unit's state is kept; PTPL_A while APTPL is active; no RLR_C (a lost
 * reservation cannot be replaced: it is never lost); TMV with all six types; no word about allowed commands.
 */
export function reportCapabilities(task: Task): void {
  const { reservations, saved } = task.unit;
  if (reservations.legacyReserved) return task.conflict();
  const { compatibleHandling, specifyInitiatorPorts, allTargetPorts, aptpl } = capability;
  const capabilities =
    compatibleHandling | specifyInitiatorPorts | allTargetPorts | (saved.isSupported ? aptpl : 0);
  const active = reservations.state.aptpl ? aptplActive : 0;
  const data = Buffer.from([0x00, 0x08, capabilities, typeMaskValid | active, 0xea, 0x01, 0x00, 0x00]);
  task.parameterData(data, task.cdb.readUInt16BE(7));
}

/** PRGENERATION, the length of what follows, and what follows. */
function answer(task: Task, body: (state: ReservationState) => Buffer): void {
  const { reservations } = task.unit;
  if (reservations.legacyReserved) return task.conflict();
  const content = body(reservations.state);
  const header = Buffer.alloc(8);
  header.writeUInt32BE(reservations.state.generation, 0);
  header.writeUInt32BE(content.length, 4);
  task.parameterData(Buffer.concat([header, content]), task.cdb.readUInt16BE(7));
}
