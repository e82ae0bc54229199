/**
 * WRITE ATOMIC(16) (SBC-4 5.47, 4.29): after a crash at any moment all of it is there or none, and no READ sees a part.
 *
 *     9Ch | WRPROTECT E0h, DPO 10h, FUA 08h | LBA (8) | ATOMIC BOUNDARY (2) | TRANSFER LENGTH (2) | GROUP NUMBER | CONTROL
 *
 * What carries it: a write of whole blocks (4 KiB) within one slice (1 GiB) is one record of one journal batch, and
 * recovery takes a batch as a whole or not at all. So alignment and granularity are the block (VPD page B0h), and a
 * write over the border of two slices, which are placed each by itself, is refused rather than promised.
 */
import { blockSizeBytes, sectorSizeBytes, sliceSizeBytes } from '../../base/limits.ts';
import { maxAtomicWriteBlocks } from '../limits.ts';
import type { Task } from '../task.ts';
import { firstBlock, forcesUnitAccess, inRange } from './block-range.ts';

export function writeAtomic(task: Task): void {
  const { cdb, unit, command } = task;
  const block = firstBlock(cdb);
  const blocks = cdb.readUInt16BE(12);
  if (!inRange(task, block, blocks)) return;
  const offsetBytes = block * sectorSizeBytes;
  const lengthBytes = blocks * sectorSizeBytes;
  if (offsetBytes % blockSizeBytes !== 0) return task.invalidField(2);
  if (lengthBytes % blockSizeBytes !== 0 || blocks > maxAtomicWriteBlocks) return task.invalidField(12);
  if (lengthBytes === 0) return task.good();
  if ((offsetBytes % sliceSizeBytes) + lengthBytes > sliceSizeBytes) return task.invalidField(2);
  // A part of it would not be what was asked for.
  if (command.dataOut.length < lengthBytes) return task.invalidField(12);
  const data = command.dataOut.subarray(0, lengthBytes);
  unit.guard.hold(offsetBytes, lengthBytes, (release) => {
    unit.device.write(offsetBytes, data, forcesUnitAccess(cdb), (error) => {
      release();
      if (error === null) task.good(lengthBytes);
      else task.failed(error, 'write');
    });
  });
}
