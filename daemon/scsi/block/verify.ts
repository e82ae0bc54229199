/**
 * VERIFY and WRITE AND VERIFY, 10, 12 and 16 (SBC-4 5.36 to 5.38, 5.53 to 5.55).
 *
 *     2Fh | VRPROTECT E0h, DPO 10h, BYTCHK 06h | LBA (4) | GROUP NUMBER | VERIFICATION LENGTH (2) | CONTROL
 *     8Fh | VRPROTECT, DPO, BYTCHK | LBA (8) | VERIFICATION LENGTH (4) | GROUP NUMBER | CONTROL
 *     AFh | VRPROTECT, DPO, BYTCHK | LBA (4) | VERIFICATION LENGTH (4) | GROUP NUMBER | CONTROL
 *     2Eh, 8Eh, AEh: WRITE AND VERIFY, the same with WRPROTECT and TRANSFER LENGTH
 */
import { sectorSizeBytes } from '../../base/limits.ts';
import { stepBytes } from '../limits.ts';
import { sense } from '../sense.ts';
import type { Task } from '../task.ts';
import { blockCount, firstBlock, transferable, wholeSectors } from './block-range.ts';

/**
 * What the blocks are compared with (SBC-4 5.36): nothing but their own checksums, the data-out block by block, or
 * its one block with each of them. 10b is reserved everywhere, 11b for WRITE AND VERIFY: its usage map has no 04h.
 */
const ByteCheck = { medium: 0b00, dataOut: 0b01, oneBlock: 0b11 } as const;

function byteCheck(cdb: Buffer): number {
  return (cdb[1]! >> 1) & 0b11;
}

export function verify(task: Task): void {
  const { cdb, command } = task;
  const block = firstBlock(cdb);
  const blocks = blockCount(cdb);
  const check = byteCheck(cdb);
  if (check === 0b10) return task.invalidField(1, 2);
  if (!transferable(task, block, blocks)) return;
  const lengthBytes = blocks * sectorSizeBytes;
  if (check === ByteCheck.medium) {
    checkMedium(task, block * sectorSizeBytes, lengthBytes, null, () => task.good());
    return;
  }
  if (check === ByteCheck.oneBlock) {
    if (blocks === 0) return task.good();
    const sector = wholeSectors(command.dataOut, sectorSizeBytes);
    if (sector.length === 0) return task.good(sectorSizeBytes);
    const repeated = Buffer.alloc(Math.min(stepBytes, lengthBytes), sector);
    checkMedium(task, block * sectorSizeBytes, lengthBytes, repeated, () => task.good(sectorSizeBytes));
    return;
  }
  const expected = wholeSectors(command.dataOut, lengthBytes);
  checkMedium(task, block * sectorSizeBytes, expected.length, expected, () => task.good(lengthBytes));
}

/** Writes through the cache, reads back, and with BYTCHK compares; nobody else changes the range meanwhile. */
export function writeAndVerify(task: Task): void {
  const { cdb, unit, command } = task;
  const block = firstBlock(cdb);
  const blocks = blockCount(cdb);
  if (!transferable(task, block, blocks)) return;
  const wantedBytes = blocks * sectorSizeBytes;
  const data = wholeSectors(command.dataOut, wantedBytes);
  if (data.length === 0) return task.good(wantedBytes);
  const offsetBytes = block * sectorSizeBytes;
  unit.guard.hold(offsetBytes, data.length, (release) => {
    unit.device.write(offsetBytes, data, true, (error) => {
      if (error !== null) {
        release();
        return task.failed(error, 'write');
      }
      const expected = byteCheck(cdb) === ByteCheck.dataOut ? data : null;
      checkMedium(task, offsetBytes, data.length, expected, () => task.good(wantedBytes), release);
    });
  });
}

/**
 * Reads a range step by step and compares it with `expected`, if there is any: all of it, or what every step repeats. `ended` is called first, whatever
 * the result; then `good`, unless the task has been answered with an error.
 */
function checkMedium(
  task: Task,
  offsetBytes: number,
  lengthBytes: number,
  expected: Buffer | null,
  good: () => void,
  ended: () => void = () => {},
): void {
  const { unit } = task;
  if (lengthBytes === 0) {
    ended();
    return good();
  }
  const pooled = unit.buffers.take(Math.min(stepBytes, lengthBytes));
  const end = (): void => {
    unit.buffers.give(pooled);
    ended();
  };
  const step = (doneBytes: number): void => {
    if (doneBytes === lengthBytes) {
      end();
      return good();
    }
    const target = pooled.subarray(0, Math.min(stepBytes, lengthBytes - doneBytes));
    unit.device.read(offsetBytes + doneBytes, target, (error) => {
      if (error !== null) {
        end();
        return task.failed(error, 'read');
      }
      const nextBytes = doneBytes + target.length;
      if (expected !== null && !matches(target, expected, doneBytes)) {
        end();
        return task.check(sense.miscompareDuringVerify);
      }
      step(nextBytes);
    });
  };
  step(0);
}

function matches(read: Buffer, expected: Buffer, doneBytes: number): boolean {
  const start = doneBytes % expected.length;
  return read.equals(expected.subarray(start, start + read.length));
}
