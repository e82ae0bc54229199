/**
 * READ CAPACITY 10 and 16, GET LBA STATUS (SBC-3 5.20, 5.21, 5.5).
 *
 *     25h | - | LBA (4, obsolete: zero) | - (3) | CONTROL
 *     9Eh | 10h | - (8) | ALLOCATION LENGTH (4) | - | CONTROL
 *     9Eh | 12h | STARTING LBA (8) | ALLOCATION LENGTH (4) | REPORT TYPE (SBC-4; 00h, all blocks, alone) | CONTROL
 */
import { sectorSizeBytes } from '../../base/limits.ts';
import { maxLbaStatusDescriptors, maxLbaStatusQuestions } from '../limits.ts';
import type { Task } from '../task.ts';
import { firstBlock, inRange } from './block-range.ts';

export function readCapacity10(task: Task): void {
  const { cdb, unit } = task;
  if (cdb.readUInt32BE(2) !== 0) return task.invalidField(2);
  const data = Buffer.alloc(8);
  // FFFFFFFFh sends the initiator to READ CAPACITY(16).
  data.writeUInt32BE(Math.min(unit.sectorCount - 1, 0xffffffff), 0);
  data.writeUInt32BE(sectorSizeBytes, 4);
  task.parameterData(data, data.length);
}

export function readCapacity16(task: Task): void {
  const { cdb, unit } = task;
  const data = Buffer.alloc(32);
  data.writeBigUInt64BE(BigInt(unit.sectorCount - 1), 0);
  data.writeUInt32BE(sectorSizeBytes, 8);
  data[13] = Math.log2(unit.physicalBlockBytes / sectorSizeBytes); // LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT
  data[14] = 0x80 | 0x40; // LBPME, LBPRZ: thin, and unmapped blocks read as zeros
  task.parameterData(data, cdb.readUInt32BE(10));
}

const headerBytes = 8;
const descriptorBytes = 16;

interface BlockStatus {
  block: number;
  blocks: number;
  mapped: boolean;
}

export function getLbaStatus(task: Task): void {
  const { cdb, unit } = task;
  const start = firstBlock(cdb);
  if (!inRange(task, start, 1)) return;
  const allocationLengthBytes = cdb.readUInt32BE(10);
  const room = Math.ceil((allocationLengthBytes - headerBytes) / descriptorBytes);
  const limit = Math.max(1, Math.min(room, maxLbaStatusDescriptors));
  const found: BlockStatus[] = [];
  let questions = 0;
  const next = (block: number): void => {
    if (block >= unit.sectorCount || questions === maxLbaStatusQuestions) return finish();
    questions += 1;
    unit.device.allocation(block * sectorSizeBytes, (error, mapped, lengthBytes) => {
      if (error !== null) return task.failed(error, 'read');
      const blocks = Math.min(lengthBytes / sectorSizeBytes, unit.sectorCount - block);
      const last = found.at(-1);
      if (last !== undefined && last.mapped === mapped && last.blocks + blocks <= 0xffffffff) {
        last.blocks += blocks;
      } else if (found.length === limit) {
        return finish();
      } else {
        found.push({ block, blocks: Math.min(blocks, 0xffffffff), mapped });
      }
      next(block + blocks);
    });
  };
  const finish = (): void => task.parameterData(encodeStatus(found), allocationLengthBytes);
  next(start);
}

/**
 * PARAMETER DATA LENGTH counts from byte 4; a descriptor: LBA, blocks, status 0 (mapped) or 1 (deallocated). The first
 * begins at the LBA asked for, also in the middle of a physical block (SBC-4 5.8.2.3).
 */
function encodeStatus(found: readonly BlockStatus[]): Buffer {
  const data = Buffer.alloc(headerBytes + found.length * descriptorBytes);
  data.writeUInt32BE(data.length - 4, 0);
  for (const [index, status] of found.entries()) {
    const position = headerBytes + index * descriptorBytes;
    data.writeBigUInt64BE(BigInt(status.block), position);
    data.writeUInt32BE(status.blocks, position + 8);
    data[position + 12] = status.mapped ? 0x00 : 0x01;
  }
  return data;
}
