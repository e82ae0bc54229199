/**
 * SYNCHRONIZE CACHE, 10 and 16 (SBC-3 5.37, 5.38).
 *
 *     35h | IMMED 02h | LBA (4) | GROUP NUMBER | NUMBER OF LOGICAL BLOCKS (2) | CONTROL
 *     91h | IMMED 02h | LBA (8) | NUMBER OF LOGICAL BLOCKS (4) | GROUP NUMBER | CONTROL
 */
import type { Task } from '../task.ts';
import { blockCount, firstBlock, inRange } from './block-range.ts';

/**
 * The whole device is flushed, whatever the range: durability is counted per device. IMMED allows to answer before
 * the flush; answering after it costs the initiator time and no data.
 */
export function synchronizeCache(task: Task): void {
  const { cdb, unit } = task;
  if (!inRange(task, firstBlock(cdb), blockCount(cdb))) return;
  unit.device.flush((error) => (error === null ? task.good() : task.failed(error, 'write')));
}
