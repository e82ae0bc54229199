/**
 * SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS (SPC-4 6.42, 6.28; pages 7.2).
 *
 *     1Dh | SELF-TEST CODE E0h, PF 10h, SELFTEST 04h, DEVOFFL 02h, UNITOFFL 01h | - | PARAMETER LIST LENGTH (2) | CONTROL
 *     1Ch | PCV 01h | PAGE CODE | ALLOCATION LENGTH (2) | CONTROL
 */
import { sectorSizeBytes } from '../../base/limits.ts';
import { sense } from '../sense.ts';
import type { Task } from '../task.ts';

const supportedPagesPage = 0x00;
const pageHeaderBytes = 4;

/**
 * The default self test reads the unit's first sector. Tests in the background and by other codes do not exist; the
 * one page that may be sent is that of the supported pages, which asks for nothing.
 */
export function sendDiagnostic(task: Task): void {
  const { cdb, unit, command } = task;
  const selfTestCode = cdb[1]! >> 5;
  const selfTest = (cdb[1]! & 0x04) !== 0;
  const listBytes = cdb.readUInt16BE(3);
  if (selfTestCode !== 0) return task.invalidField(1, 7);
  if (selfTest) {
    if (listBytes !== 0) return task.invalidField(3);
    const pooled = unit.buffers.take(sectorSizeBytes);
    unit.device.read(0, pooled.subarray(0, sectorSizeBytes), (error) => {
      unit.buffers.give(pooled);
      if (error === null) task.good();
      else task.check(sense.selfTestFailed);
    });
    return;
  }
  if (listBytes === 0) return task.good();
  const list = command.dataOut.subarray(0, listBytes);
  if (list.length < listBytes || listBytes < pageHeaderBytes)
    return task.check(sense.parameterListLengthError);
  const namesSupportedPages = list[0] === supportedPagesPage && list.readUInt16BE(2) === 0;
  if (!namesSupportedPages || listBytes > pageHeaderBytes)
    return task.check(sense.invalidFieldInParameterList);
  task.good(listBytes);
}

/** The list of pages, which has itself as its one entry. Without PCV it is what the last SEND DIAGNOSTIC left. */
export function receiveDiagnosticResults(task: Task): void {
  const { cdb } = task;
  const pageCodeIsValid = (cdb[1]! & 0x01) !== 0;
  if (pageCodeIsValid && cdb[2] !== supportedPagesPage) return task.invalidField(2);
  task.parameterData(Buffer.from([supportedPagesPage, 0, 0, 1, supportedPagesPage]), cdb.readUInt16BE(3));
}
