/**
 * PRE-FETCH, 10 and 16 (SBC-4 5.12, 5.13): the range is read once, so that it is in the caches below (of the map, of the
 * operating system) when it is asked for.
 *
 *     34h | IMMED 02h | LBA (4) | GROUP NUMBER | PREFETCH LENGTH (2) | CONTROL
 *     90h | IMMED 02h | LBA (8) | PREFETCH LENGTH (4) | GROUP NUMBER | CONTROL
 *
 * CONDITION MET: all of it is there (with IMMED: will be, as far as can be told); GOOD: not all. A length of zero means
 * up to the end of the unit. Nothing depends on it, so what cannot be read is no error, and when there is much to do
 * already nothing is read.
 */
import { MiB, sectorSizeBytes } from '../../base/limits.ts';
import { stepBytes } from '../limits.ts';
import type { Task } from '../task.ts';
import { blockCount, firstBlock, inRange } from './block-range.ts';

/** Read of one command, in bytes: a little more than the longest READ; further away it is a guess. */
export const maxPreFetchBytes = 16 * MiB;
/** Commands of all units reading at once, each one step in hand: they shall not stand in the way of what is asked for. */
export const maxPreFetches = 4;

let preFetches = 0;

export function preFetch(task: Task): void {
  const { cdb, unit } = task;
  const block = firstBlock(cdb);
  const asked = blockCount(cdb);
  if (!inRange(task, block, asked)) return;
  const blocks = asked === 0 ? unit.sectorCount - block : asked;
  const endBytes = (block + blocks) * sectorSizeBytes;
  const startBytes = block * sectorSizeBytes;
  if (preFetches >= maxPreFetches || blocks === 0) return task.good();
  const stopBytes = Math.min(endBytes, startBytes + maxPreFetchBytes);
  const isImmediate = (cdb[1]! & 0x02) !== 0;
  const isAll = stopBytes === endBytes;
  if (isImmediate) answer(task, isAll);
  preFetches += 1;
  readAhead(task, startBytes, stopBytes, (isRead) => {
    preFetches -= 1;
    if (!isImmediate) answer(task, isAll && isRead);
  });
}

function answer(task: Task, isAll: boolean): void {
  if (isAll) task.conditionMet();
  else task.good();
}

/** Step by step, each in a buffer that is given back: what is read is thrown away here. */
function readAhead(task: Task, atBytes: number, stopBytes: number, done: (isRead: boolean) => void): void {
  const { device, buffers } = task.unit;
  const lengthBytes = Math.min(stepBytes, stopBytes - atBytes);
  const pooled = buffers.take(lengthBytes);
  device.read(atBytes, pooled.subarray(0, lengthBytes), (error) => {
    buffers.give(pooled);
    const nextBytes = atBytes + lengthBytes;
    if (error !== null || task.command.request?.isAborted === true) done(false);
    else if (nextBytes === stopBytes) done(true);
    else readAhead(task, nextBytes, stopBytes, done);
  });
}
