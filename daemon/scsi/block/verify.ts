/** VERIFY and WRITE AND VERIFY, 10, 12 and 16 (SBC-3 5.40 to 5.42, 5.50 to 5.52). BYTCHK 00b and 01b. */
import { sectorSizeBytes } from '../../base/limits.ts';
import { stepBytes } from '../limits.ts';
import { sense } from '../sense.ts';
import type { Task } from '../task.ts';
import { blockCount, firstBlock, transferable, wholeSectors } from './block-range.ts';

function comparesBytes(cdb: Buffer): boolean {
  return (cdb[1]! & 0x02) !== 0;
}

export function verify(task: Task): void {
  const { cdb, command } = task;
  const block = firstBlock(cdb);
  const blocks = blockCount(cdb);
  if (!transferable(task, block, blocks)) return;
  const lengthBytes = blocks * sectorSizeBytes;
  if (!comparesBytes(cdb)) {
    checkMedium(task, block * sectorSizeBytes, lengthBytes, null, () => task.good());
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
      const expected = comparesBytes(cdb) ? data : null;
      checkMedium(task, offsetBytes, data.length, expected, () => task.good(wantedBytes), release);
    });
  });
}

/**
 * Reads a range step by step and compares it with `expected`, if there is any. `ended` is called first, whatever
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
      if (expected !== null && !target.equals(expected.subarray(doneBytes, nextBytes))) {
        end();
        return task.check(sense.miscompareDuringVerify);
      }
      step(nextBytes);
    });
  };
  step(0);
}
