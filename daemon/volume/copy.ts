/**
 * Copies a range from one device to another, or within one: by sharing allocation units where that is possible, by
 * reading and writing where it is not (the ends of the range, or all of it).
 *
 * A copy is many operations: whoever calls it keeps other changes of the destination out. What is changed in the source
 * meanwhile may be copied or not, block by block.
 */
import { MiB } from '../base/limits.ts';
import { type BlockDevice, type BlockDone, isSharingDevice, type SharingDevice } from './block-device.ts';

/** Shared at once, in bytes: other changes of the destination's volume wait so long. */
const shareStepBytes = 64 * MiB;
/** Read and written at once, in bytes. */
const defaultMoveStepBytes = MiB;

export interface CopyRequest {
  source: BlockDevice;
  sourceOffsetBytes: number;
  target: BlockDevice;
  offsetBytes: number;
  /** Whole sectors, as the offsets. */
  lengthBytes: number;
  /** Read and written at once, in bytes; a MiB when not given. */
  moveStepBytes?: number;
  /** Asked between two steps: the copy ends there, with what was copied so far. */
  isAborted?: () => boolean;
}

/** Where a copy failed: reading the source or writing the destination. */
export type CopySide = 'source' | 'target';

export interface CopyOutcome {
  /** Null: all of it was copied, or the copy was aborted. */
  failure: { error: Error; side: CopySide } | null;
  /** As far as a failure or an abort came behind it; of ranges that overlap, nothing before all is copied. */
  copiedBytes: number;
}

interface Step {
  /** From the beginning of the range. */
  atBytes: number;
  lengthBytes: number;
  shared: boolean;
}

/** Like writes, what was copied is durable after a flush of the destination, or at once in its 'sync' mode. */
export async function copyRange(request: CopyRequest): Promise<CopyOutcome> {
  const { source, target, sourceOffsetBytes, offsetBytes, lengthBytes } = request;
  const moveStepBytes = request.moveStepBytes ?? defaultMoveStepBytes;
  const distanceBytes = offsetBytes - sourceOffsetBytes;
  const overlaps = source === target && Math.abs(distanceBytes) < lengthBytes;
  const steps = overlaps ? cut(0, lengthBytes, moveStepBytes, false) : planSteps(request, moveStepBytes);
  // Towards the end, from the end: no step may read what an earlier one has written.
  if (overlaps && distanceBytes > 0) steps.reverse();
  let room: Buffer | null = null;
  let copiedBytes = 0;
  for (const step of steps) {
    if (request.isAborted?.()) return { failure: null, copiedBytes };
    room ??= step.shared ? null : Buffer.allocUnsafe(Math.min(moveStepBytes, lengthBytes));
    const failure = step.shared ? await share(request, step) : await move(request, step, room!);
    if (failure !== null) return { failure, copiedBytes };
    if (!overlaps) copiedBytes += step.lengthBytes;
  }
  return { failure: null, copiedBytes: lengthBytes };
}

function planSteps(request: CopyRequest, moveStepBytes: number): Step[] {
  const { source, target, sourceOffsetBytes, offsetBytes, lengthBytes } = request;
  const unitBytes = target.allocationUnitBytes;
  const aligned = (offsetBytes - sourceOffsetBytes) % unitBytes === 0;
  const headBytes = (unitBytes - (offsetBytes % unitBytes)) % unitBytes;
  const sharedBytes = lengthBytes - headBytes - ((offsetBytes + lengthBytes) % unitBytes);
  if (!aligned || sharedBytes <= 0 || !isSharingDevice(target) || !target.canShareFrom(source)) {
    return cut(0, lengthBytes, moveStepBytes, false);
  }
  return [
    ...cut(0, headBytes, moveStepBytes, false),
    ...cut(headBytes, headBytes + sharedBytes, shareStepBytes, true),
    ...cut(headBytes + sharedBytes, lengthBytes, moveStepBytes, false),
  ];
}

function cut(fromBytes: number, toBytes: number, stepBytes: number, shared: boolean): Step[] {
  const steps: Step[] = [];
  for (let atBytes = fromBytes; atBytes < toBytes; atBytes += stepBytes) {
    steps.push({ atBytes, lengthBytes: Math.min(stepBytes, toBytes - atBytes), shared });
  }
  return steps;
}

async function share(request: CopyRequest, step: Step): Promise<CopyOutcome['failure']> {
  const source = request.source as SharingDevice;
  const target = request.target as SharingDevice;
  const from = request.sourceOffsetBytes + step.atBytes;
  const to = request.offsetBytes + step.atBytes;
  const error = await called((done) => source.prepareShare(from, step.lengthBytes, done));
  if (error !== null) return { error, side: 'source' };
  const failed = await called((done) => target.shareFrom(source, from, to, step.lengthBytes, false, done));
  return failed === null ? null : { error: failed, side: 'target' };
}

async function move(request: CopyRequest, step: Step, room: Buffer): Promise<CopyOutcome['failure']> {
  const data = room.subarray(0, step.lengthBytes);
  const error = await called((done) =>
    request.source.read(request.sourceOffsetBytes + step.atBytes, data, done),
  );
  if (error !== null) return { error, side: 'source' };
  const failed = await called((done) =>
    request.target.write(request.offsetBytes + step.atBytes, data, false, done),
  );
  return failed === null ? null : { error: failed, side: 'target' };
}

function called(call: (done: BlockDone) => void): Promise<Error | null> {
  return new Promise((resolve) => call(resolve));
}
