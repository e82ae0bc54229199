/** The logical blocks a CDB addresses (SBC-3 clause 5), and the checks all block commands share. */
import { maxTransferBytes, sectorSizeBytes } from '../../base/limits.ts';
import { sense } from '../sense.ts';
import type { Task } from '../task.ts';

const maxTransferBlocks = maxTransferBytes / sectorSizeBytes;

/** The first block, by the CDB's size. Beyond 2^53 it is not exact, and far outside any unit. */
export function firstBlock(cdb: Buffer): number {
  switch (cdb[0]! >> 5) {
    case 0:
      return ((cdb[1]! & 0x1f) << 16) | (cdb[2]! << 8) | cdb[3]!;
    case 4:
      return cdb.readUInt32BE(2) * 2 ** 32 + cdb.readUInt32BE(6);
    default:
      return cdb.readUInt32BE(2);
  }
}

/** The number of blocks, by the CDB's size; zero means 256 in a CDB of 6 bytes (SBC-3 5.13). */
export function blockCount(cdb: Buffer): number {
  switch (cdb[0]! >> 5) {
    case 0:
      return cdb[4] === 0 ? 256 : cdb[4]!;
    case 4:
      return cdb.readUInt32BE(10);
    case 5:
      return cdb.readUInt32BE(6);
    default:
      return cdb.readUInt16BE(7);
  }
}

/** False, and the task is answered, when the blocks are not all on the unit. */
export function inRange(task: Task, block: number, blocks: number): boolean {
  if (block + blocks <= task.unit.sectorCount) return true;
  task.check(sense.lbaOutOfRange);
  return false;
}

/** As `inRange`, and the transfer is no longer than VPD page B0h allows. */
export function transferable(task: Task, block: number, blocks: number): boolean {
  if (!inRange(task, block, blocks)) return false;
  if (blocks <= maxTransferBlocks) return true;
  task.invalidField();
  return false;
}

/** DPO and FUA are in byte 1 of all CDBs but those of 6 bytes, where these bits belong to the LBA. */
export function forcesUnitAccess(cdb: Buffer): boolean {
  return cdb[0]! >> 5 !== 0 && (cdb[1]! & 0x08) !== 0;
}

/** What came of a transfer of `wantedBytes`: no more than that, and only whole sectors. */
export function wholeSectors(dataOut: Buffer, wantedBytes: number): Buffer {
  if (dataOut.length === wantedBytes) return dataOut;
  const usableBytes = Math.min(dataOut.length, wantedBytes);
  return dataOut.subarray(0, usableBytes - (usableBytes % sectorSizeBytes));
}
