/**
 * Commands that read, decide and write as one step against all other commands to the blocks: COMPARE AND WRITE
 * (SBC-3 5.3) and ORWRITE (SBC-3 5.8). The range guard keeps the others out.
 *
 *     89h | WRPROTECT E0h, DPO 10h, FUA 08h | LBA (8) | - (3) | NUMBER OF LOGICAL BLOCKS | GROUP NUMBER | CONTROL
 *     8Bh | ORPROTECT E0h, DPO 10h, FUA 08h | LBA (8) | TRANSFER LENGTH (4) | GROUP NUMBER | CONTROL
 */
import { sectorSizeBytes } from '../../base/limits.ts';
import { maxCompareAndWriteBlocks } from '../limits.ts';
import { sense } from '../sense.ts';
import type { Task } from '../task.ts';
import {
  blockCount,
  firstBlock,
  forcesUnitAccess,
  inRange,
  transferable,
  wholeSectors,
} from './block-range.ts';

/** The data-out is what must be there, then what takes its place. */
export function compareAndWrite(task: Task): void {
  const { cdb, command } = task;
  const block = firstBlock(cdb);
  const blocks = cdb[13]!;
  if (blocks > maxCompareAndWriteBlocks) return task.invalidField();
  if (!inRange(task, block, blocks)) return;
  const lengthBytes = blocks * sectorSizeBytes;
  if (command.dataOut.length !== 2 * lengthBytes) return task.invalidField();
  if (lengthBytes === 0) return task.good();
  const expected = command.dataOut.subarray(0, lengthBytes);
  const replacement = command.dataOut.subarray(lengthBytes);
  update(task, block, lengthBytes, 2 * lengthBytes, (current) => {
    const differsAt = firstDifference(current, expected);
    if (differsAt === null) return replacement;
    task.check(sense.miscompareDuringVerify, differsAt);
    return null;
  });
}

export function orWrite(task: Task): void {
  const { cdb, command } = task;
  const block = firstBlock(cdb);
  const blocks = blockCount(cdb);
  if (!transferable(task, block, blocks)) return;
  const wantedBytes = blocks * sectorSizeBytes;
  const data = wholeSectors(command.dataOut, wantedBytes);
  if (data.length === 0) return task.good(wantedBytes);
  update(task, block, data.length, wantedBytes, (current) => {
    for (let index = 0; index < data.length; index += 1) current[index]! |= data[index]!;
    return current;
  });
}

/** `decide` gives what to write, or null after it has answered the task. */
function update(
  task: Task,
  block: number,
  lengthBytes: number,
  wantedOutBytes: number,
  decide: (current: Buffer) => Buffer | null,
): void {
  const { cdb, unit } = task;
  const offsetBytes = block * sectorSizeBytes;
  unit.guard.hold(offsetBytes, lengthBytes, (release) => {
    const pooled = unit.buffers.take(lengthBytes);
    const current = pooled.subarray(0, lengthBytes);
    const end = (): void => {
      unit.buffers.give(pooled);
      release();
    };
    unit.device.read(offsetBytes, current, (readError) => {
      if (readError !== null) {
        end();
        return task.failed(readError, 'read');
      }
      const replacement = decide(current);
      if (replacement === null) return end();
      unit.device.write(offsetBytes, replacement, forcesUnitAccess(cdb), (writeError) => {
        end();
        if (writeError === null) task.good(wantedOutBytes);
        else task.failed(writeError, 'write');
      });
    });
  });
}

function firstDifference(left: Buffer, right: Buffer): number | null {
  if (left.equals(right)) return null;
  return left.findIndex((byte, index) => byte !== right[index]);
}
