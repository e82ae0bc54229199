/**
 * REPORT LUNS (SPC-4 6.33).
 *
 *     A0h | - | SELECT REPORT | - (3) | ALLOCATION LENGTH (4) | - | CONTROL
 */
import { encodeLun, reportLunsWellKnown } from '../logical-unit-number.ts';
import type { Task } from '../task.ts';

export function reportLuns(task: Task): void {
  const data = reportLunsData(task.cdb[2]!, task.target.lunNumbers(task.nexus.name));
  if (data === null) return task.invalidField(2);
  task.parameterData(data, task.cdb.readUInt32BE(6));
}

/** The list for a SELECT REPORT value, or null when it means nothing here. */
export function reportLunsData(selectReport: number, numbers: readonly number[]): Buffer | null {
  const units = numbers.map(encodeLun);
  const wellKnown = [encodeLun(reportLunsWellKnown)];
  let list: Buffer[];
  if (selectReport === 0x00) list = units;
  else if (selectReport === 0x01) list = wellKnown;
  else if (selectReport === 0x02) list = [...wellKnown, ...units];
  else return null;
  const header = Buffer.alloc(8);
  header.writeUInt32BE(list.length * 8, 0);
  return Buffer.concat([header, ...list]);
}
