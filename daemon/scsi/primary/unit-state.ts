/** The short commands about a unit's state (SPC-4 clause 6, SBC-3 5.25). */
import { encodeSense, sense } from '../sense.ts';
import type { Task } from '../task.ts';

/** TEST UNIT READY (SPC-4 6.47): a unit that is here is ready. */
export function testUnitReady(task: Task): void {
  task.good();
}

/** REQUEST SENSE (SPC-4 6.39): reports, and clears, the oldest unit attention. */
export function requestSense(task: Task): void {
  const { cdb, nexus } = task;
  const what = nexus.attentions.shift() ?? sense.noSense;
  task.parameterData(encodeSense(what, null, (cdb[1]! & 0x01) !== 0), cdb[4]!);
}

/**
 * START STOP UNIT (SBC-3 5.25). There is no medium to eject (LOEJ) and no power condition to enter. A volume has no
 * stopped state either, since other initiators may use it: stopping makes what was written durable, and no more.
 */
export function startStopUnit(task: Task): void {
  const flags = task.cdb[4]!;
  const powerCondition = flags >> 4;
  const noFlush = (flags & 0x04) !== 0;
  const loadEject = (flags & 0x02) !== 0;
  const start = (flags & 0x01) !== 0;
  if (powerCondition !== 0 || loadEject) return task.invalidField();
  if (start || noFlush) return task.good();
  task.unit.device.flush((error) => (error === null ? task.good() : task.failed(error, 'write')));
}

/** PREVENT ALLOW MEDIUM REMOVAL (SBC-3 5.12): accepted, the medium is not removable anyway. */
export function preventAllowMediumRemoval(task: Task): void {
  if ((task.cdb[4]! & 0x02) !== 0) return task.invalidField();
  task.good();
}

/** SEND DIAGNOSTIC (SPC-4 6.42): the default self test, which passes when the unit answers. */
export function sendDiagnostic(task: Task): void {
  const selfTest = (task.cdb[1]! & 0x04) !== 0;
  if (!selfTest || task.cdb.readUInt16BE(3) !== 0) return task.invalidField();
  task.good();
}

/** LOG SENSE (SPC-4 6.10): the list of pages, which has itself as its one entry. */
export function logSense(task: Task): void {
  const { cdb } = task;
  const pageCode = cdb[2]! & 0x3f;
  const savePages = (cdb[1]! & 0x01) !== 0;
  if (savePages || pageCode !== 0x00 || (cdb[3] !== 0x00 && cdb[3] !== 0xff)) return task.invalidField();
  const data =
    cdb[3] === 0xff ? Buffer.from([0x40, 0xff, 0, 2, 0x00, 0x00]) : Buffer.from([0x00, 0x00, 0, 1, 0x00]);
  task.parameterData(data, cdb.readUInt16BE(7));
}
