/**
 * READ DEFECT DATA 10 and 12 (SBC-4 5.23, 5.24). The lists are always empty, and that is the truth: a thin volume has
 * no physical blocks of its own, and a bad place of a store is moved around or answered with MEDIUM ERROR below.
 *
 *     10:  37h | - | PLIST 10h, GLIST 08h, FORMAT 07h | - (4) | ALLOCATION LENGTH (2) | CONTROL
 *     12:  B7h | PLIST, GLIST, FORMAT | ADDRESS DESCRIPTOR INDEX (4) | ALLOCATION LENGTH (4) | - | CONTROL
 */
import type { Task } from '../task.ts';

/** Short block, long block, bytes from index, physical sector (SBC-4 6.2): a list of none looks the same in each. */
const addressFormats: ReadonlySet<number> = new Set([0b000, 0b011, 0b100, 0b101]);

/** Header: -, PLISTV/GLISTV/FORMAT as asked for, DEFECT LIST LENGTH (2). */
export function readDefectData10(task: Task): void {
  const asked = task.cdb[2]!;
  if (!addressFormats.has(asked & 0x07)) return task.invalidField(2, 2);
  task.parameterData(Buffer.from([0, asked & 0x1f, 0, 0]), task.cdb.readUInt16BE(7));
}

/** Header: -, PLISTV/GLISTV/FORMAT as asked for, GENERATION CODE (2, not kept), DEFECT LIST LENGTH (4). */
export function readDefectData12(task: Task): void {
  const asked = task.cdb[1]!;
  if (!addressFormats.has(asked & 0x07)) return task.invalidField(1, 2);
  task.parameterData(Buffer.from([0, asked & 0x1f, 0, 0, 0, 0, 0, 0]), task.cdb.readUInt32BE(6));
}
