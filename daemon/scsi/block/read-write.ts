/** READ and WRITE, 6, 10, 12 and 16 (SBC-3 5.13 to 5.16, 5.45 to 5.48): the hot path, one device call each. */
import { sectorSizeBytes } from '../../base/limits.ts';
import type { Task } from '../task.ts';
import { blockCount, firstBlock, forcesUnitAccess, transferable, wholeSectors } from './block-range.ts';

/**
 *     08h LBA (21 bits) | TRANSFER LENGTH | CONTROL
 *     28h RDPROTECT E0h, DPO 10h, FUA 08h | LBA (4) | GROUP NUMBER | TRANSFER LENGTH (2) | CONTROL
 *     88h RDPROTECT, DPO, FUA | LBA (8) | TRANSFER LENGTH (4) | GROUP NUMBER | CONTROL
 *     A8h RDPROTECT, DPO, FUA | LBA (4) | TRANSFER LENGTH (4) | GROUP NUMBER | CONTROL
 */
export function read(task: Task): void {
  const { cdb, unit } = task;
  const block = firstBlock(cdb);
  const blocks = blockCount(cdb);
  if (!transferable(task, block, blocks)) return;
  if (forcesUnitAccess(cdb) && unit.device.durability === 'flush') {
    // FUA: what is returned must be on the medium (SBC-3 4.15.3.1); so what the cache holds goes there first.
    unit.device.flush((error) => {
      if (error === null) readUndivided(task, block, blocks);
      else task.failed(error, 'read');
    });
    return;
  }
  readUndivided(task, block, blocks);
}

/** Waits for a command that must be seen as a whole, if one is under way (WRITE ATOMIC, COMPARE AND WRITE). */
function readUndivided(task: Task, block: number, blocks: number): void {
  const { guard } = task.unit;
  if (guard.idle || blocks === 0) return readBlocks(task, block, blocks);
  const offsetBytes = block * sectorSizeBytes;
  guard.change(offsetBytes, blocks * sectorSizeBytes, () => readBlocks(task, block, blocks));
}

/** Reads no more than the initiator takes: the rest would be thrown away. */
function readBlocks(task: Task, block: number, blocks: number): void {
  const { unit, command } = task;
  const wantedBytes = blocks * sectorSizeBytes;
  const takenBlocks = Math.min(blocks, Math.ceil(command.expectedInBytes / sectorSizeBytes));
  const readBytes = takenBlocks * sectorSizeBytes;
  if (readBytes === 0) return task.goodWithoutRoom(wantedBytes);
  const pooled = unit.buffers.take(readBytes);
  const target = pooled.length === readBytes ? pooled : pooled.subarray(0, readBytes);
  const generation = unit.guard.readBegins();
  unit.device.read(block * sectorSizeBytes, target, (error) => {
    unit.guard.readEnded(generation);
    if (error === null) return task.goodWithPooled(pooled, readBytes, wantedBytes);
    unit.buffers.give(pooled);
    task.failed(error, 'read');
  });
}

/** 0Ah, 2Ah, 8Ah, AAh: the layouts of READ, with WRPROTECT. */
export function write(task: Task): void {
  const { cdb, unit, command } = task;
  const block = firstBlock(cdb);
  const blocks = blockCount(cdb);
  if (!transferable(task, block, blocks)) return;
  const wantedBytes = blocks * sectorSizeBytes;
  const data = wholeSectors(command.dataOut, wantedBytes);
  if (data.length === 0) return task.good(wantedBytes);
  const offsetBytes = block * sectorSizeBytes;
  const start = (): void =>
    unit.device.write(offsetBytes, data, forcesUnitAccess(cdb), (error) => {
      if (error === null) task.good(wantedBytes);
      else task.failed(error, 'write');
    });
  if (unit.guard.idle) start();
  else unit.guard.change(offsetBytes, data.length, start);
}
