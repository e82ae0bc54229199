/**
 * RESERVE and RELEASE, 6 and 10 (SPC-2 7.17, 7.18, 7.21, 7.22), without third parties and extents.
 *
 *     16h, 17h | - (4) | CONTROL
 *     56h, 57h | - (8) | CONTROL
 */
import type { Task } from '../task.ts';

export function reserve(task: Task): void {
  if (task.unit.reservations.legacyReserve(task.nexus.name)) task.good();
  else task.conflict();
}

export function release(task: Task): void {
  if (task.unit.reservations.legacyRelease(task.nexus.name)) task.good();
  else task.conflict();
}
