/** The short commands about a unit's state (SPC-4 clause 6, SBC-3 5.25). */
import { encodeSense, sense } from '../sense.ts';
import type { Task } from '../task.ts';

/**
 * TEST UNIT READY (SPC-4 6.47): a unit that is here is ready.
 *
 *     00h | - (4) | CONTROL
 */
export function testUnitReady(task: Task): void {
  task.good();
}

/**
 * REQUEST SENSE (SPC-4 6.39): reports, and clears, the oldest unit attention.
 *
 *     03h | DESC 01h | - (2) | ALLOCATION LENGTH | CONTROL
 */
export function requestSense(task: Task): void {
  const { cdb, nexus } = task;
  const what = nexus.attentions.shift() ?? sense.noSense;
  task.parameterData(encodeSense(what, null, (cdb[1]! & 0x01) !== 0), cdb[4]!);
}

/**
 * START STOP UNIT (SBC-3 5.25). There is no medium to eject (LOEJ) and no power condition to enter. A volume has no
 * stopped state either, since other initiators may use it: stopping makes what was written durable, and no more.
 * Under somebody else's reservation only starting is allowed (SBC-3 table 13).
 *
 *     1Bh | IMMED 01h | - | MODIFIER 0Fh | POWER CONDITION F0h, NO_FLUSH 04h, LOEJ 02h, START 01h | CONTROL
 */
export function startStopUnit(task: Task): void {
  const flags = task.cdb[4]!;
  const powerCondition = flags >> 4;
  const noFlush = (flags & 0x04) !== 0;
  const loadEject = (flags & 0x02) !== 0;
  const start = (flags & 0x01) !== 0;
  if ((!start || powerCondition !== 0) && isKeptOut(task)) return task.conflict();
  if (powerCondition !== 0) return task.invalidField(4, 7);
  if (loadEject) return task.invalidField(4, 1);
  if (start || noFlush) return task.good();
  task.unit.device.flush((error) => (error === null ? task.good() : task.failed(error, 'write')));
}

/**
 * PREVENT ALLOW MEDIUM REMOVAL (SBC-3 5.12): accepted, the medium is not removable anyway. Under somebody else's
 * reservation it may be allowed and not prevented (SPC-4 table 66).
 *
 *     1Eh | - (3) | PREVENT 03h | CONTROL
 */
export function preventAllowMediumRemoval(task: Task): void {
  const prevents = (task.cdb[4]! & 0x01) !== 0;
  if (prevents && isKeptOut(task)) return task.conflict();
  if ((task.cdb[4]! & 0x02) !== 0) return task.invalidField(4, 1);
  task.good();
}

/** Whether a reservation refuses this form of a command that other forms of are allowed. */
function isKeptOut({ unit, nexus }: Task): boolean {
  return unit.reservations.conflicts(nexus.name, 'write');
}
