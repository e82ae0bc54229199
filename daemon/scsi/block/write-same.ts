/**
 * WRITE SAME 10 and 16 (SBC-4 5.58, 5.59), with UNMAP and NDOB. ANCHOR is refused: no space is set aside for blocks
 * that hold nothing (ANC_SUP 000b in VPD page B2h).
 *
 *     41h | WRPROTECT E0h, UNMAP 08h | LBA (4) | GROUP NUMBER | NUMBER OF LOGICAL BLOCKS (2) | CONTROL
 *     93h | WRPROTECT E0h, UNMAP 08h, NDOB 01h | LBA (8) | NUMBER OF LOGICAL BLOCKS (4) | GROUP NUMBER | CONTROL
 */
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
  // Zero means "to the end" (WSNZ 0 in VPD page B0h); what is longer than allowed is refused like any other number.
  const toEnd = blockCount(cdb) === 0;
  if (!inRange(task, block, toEnd ? 1 : blockCount(cdb))) return;
  const blocks = toEnd ? unit.sectorCount - block : blockCount(cdb);
  if (blocks > maxWriteSameBlocks) return task.invalidField(cdb[0] === 0x41 ? 7 : 10);
  if (!withoutData && command.dataOut.length !== sectorSizeBytes) return task.invalidField();

  const sector = withoutData ? zeroSector : command.dataOut;
  const wantedBytes = withoutData ? 0 : sectorSizeBytes;
  const offsetBytes = block * sectorSizeBytes;
  const lengthBytes = blocks * sectorSizeBytes;
  // With UNMAP a thin unit deallocates the blocks, whatever the data, as tgt and Linux' target do and libiscsi's suite
  // wants (WriteSame10.UnmapUntilEnd). They read as zeros then, for certain: this is what sets it apart from the UNMAP
  // command, which may leave blocks alone. (sg_write_same(8) reads the standard otherwise for data that is not zeros.)
  if (unmaps) {
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
