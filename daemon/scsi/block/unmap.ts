/**
 * UNMAP (SBC-3 5.39). All of the parameter list is checked before any of it is carried out. ANCHOR (01h of byte 1) is
 * refused: no space is set aside for blocks that hold nothing (ANC_SUP 000b in VPD page B2h).
 *
 *     42h | - | - (4) | GROUP NUMBER | PARAMETER LIST LENGTH (2) | CONTROL
 */
import { sectorSizeBytes } from '../../base/limits.ts';
import { maxUnmapBlocks, maxUnmapDescriptors } from '../limits.ts';
import { type SenseCode, sense } from '../sense.ts';
import type { Task } from '../task.ts';

const headerBytes = 8;
const descriptorBytes = 16;

interface UnmapRange {
  offsetBytes: number;
  lengthBytes: number;
}

export function unmap(task: Task): void {
  const { cdb, unit, command } = task;
  const listBytes = cdb.readUInt16BE(7);
  if (listBytes === 0) return task.good();
  const list = command.dataOut.subarray(0, listBytes);
  if (list.length < listBytes || listBytes < headerBytes) return task.check(sense.parameterListLengthError);
  const ranges: UnmapRange[] = [];
  const wrong = decodeRanges(list, unit.sectorCount, ranges);
  if (wrong !== null) return task.check(wrong);

  let pending = ranges.length + 1;
  let failure: Error | null = null;
  const oneDone = (error: Error | null): void => {
    failure ??= error;
    pending -= 1;
    if (pending > 0) return;
    if (failure === null) task.good(listBytes);
    else task.failed(failure, 'write');
  };
  for (const { offsetBytes, lengthBytes } of ranges) {
    unit.guard.change(offsetBytes, lengthBytes, () =>
      unit.device.unmap(offsetBytes, lengthBytes, false, oneDone),
    );
  }
  oneDone(null);
}

/**
 * The list: UNMAP DATA LENGTH (2, counts from byte 2), UNMAP BLOCK DESCRIPTOR DATA LENGTH (2), reserved (4), then
 * descriptors: LBA (8), blocks (4), reserved (4). An incomplete last descriptor is ignored.
 */
function decodeRanges(list: Buffer, sectorCount: number, ranges: UnmapRange[]): SenseCode | null {
  const descriptorsBytes = list.readUInt16BE(2);
  if (headerBytes + descriptorsBytes > list.length) return sense.parameterListLengthError;
  const count = Math.floor(descriptorsBytes / descriptorBytes);
  if (count > maxUnmapDescriptors) return sense.invalidFieldInParameterList;
  let totalBlocks = 0;
  for (let index = 0; index < count; index += 1) {
    const position = headerBytes + index * descriptorBytes;
    const block = list.readUInt32BE(position) * 2 ** 32 + list.readUInt32BE(position + 4);
    const blocks = list.readUInt32BE(position + 8);
    if (block + blocks > sectorCount) return sense.lbaOutOfRange;
    totalBlocks += blocks;
    if (totalBlocks > maxUnmapBlocks) return sense.invalidFieldInParameterList;
    if (blocks > 0) {
      ranges.push({ offsetBytes: block * sectorSizeBytes, lengthBytes: blocks * sectorSizeBytes });
    }
  }
  return null;
}
