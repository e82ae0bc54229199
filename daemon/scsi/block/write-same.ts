/** WRITE SAME 10 and 16 (SBC-3 5.53, 5.54), with UNMAP and NDOB. */
import { sectorSizeBytes } from '../../base/limits.ts';
import { maxWriteSameBlocks, stepBytes } from '../limits.ts';
import type { Task } from '../task.ts';
import { blockCount, firstBlock, inRange } from './block-range.ts';

const zeroSector = Buffer.alloc(sectorSizeBytes);

export function writeSame(task: Task): void {
  const { cdb, unit, command } = task;
  const unmaps = (cdb[1]! & 0x08) !== 0;
  // In the CDB of 10 bytes this bit is reserved, and refused by its usage map.
  const withoutData = (cdb[1]! & 0x01) !== 0;
  const block = firstBlock(cdb);
  const blocks = blockCount(cdb);
  if (!inRange(task, block, blocks)) return;
  // Zero would mean "to the end"; with the limit below that is of no use, and WSNZ in VPD page B0h says so.
  if (blocks === 0) return task.invalidField();
  if (blocks > maxWriteSameBlocks) return task.invalidField();
  if (!withoutData && command.dataOut.length !== sectorSizeBytes) return task.invalidField();

  const sector = withoutData ? zeroSector : command.dataOut;
  const wantedBytes = withoutData ? 0 : sectorSizeBytes;
  const offsetBytes = block * sectorSizeBytes;
  const lengthBytes = blocks * sectorSizeBytes;
  // Unmapped blocks read as zeros (LBPRZ); any other sector must be written even when UNMAP is set (SBC-3 4.7.3.4.4).
  if (unmaps && sector.equals(zeroSector)) {
    unit.guard.change(offsetBytes, lengthBytes, () =>
      unit.device.unmap(offsetBytes, lengthBytes, false, (error) => {
        if (error === null) task.good(wantedBytes);
        else task.failed(error, 'write');
      }),
    );
    return;
  }
  unit.guard.hold(offsetBytes, lengthBytes, (release) => {
    writePattern(task, offsetBytes, lengthBytes, sector, (error) => {
      release();
      if (error === null) task.good(wantedBytes);
      else task.failed(error, 'write');
    });
  });
}

/** Writes the sector over and over, a step at a time, from one buffer. */
function writePattern(
  task: Task,
  offsetBytes: number,
  lengthBytes: number,
  sector: Buffer,
  done: (error: Error | null) => void,
): void {
  const { device, buffers } = task.unit;
  const pooled = buffers.take(Math.min(stepBytes, lengthBytes));
  const pattern = pooled.subarray(0, Math.min(stepBytes, lengthBytes)).fill(sector);
  const step = (doneBytes: number): void => {
    if (doneBytes === lengthBytes) {
      buffers.give(pooled);
      return done(null);
    }
    const data = pattern.subarray(0, Math.min(stepBytes, lengthBytes - doneBytes));
    device.write(offsetBytes + doneBytes, data, false, (error) => {
      if (error === null) return step(doneBytes + data.length);
      buffers.give(pooled);
      done(error);
    });
  };
  step(0);
}
