/**
 * EXTENDED COPY(LID1) (SPC-4 6.4): the target copies between logical units of the fabric, whole chunks by sharing them.
 *
 * The initiator copies what it could read and write itself: it must be allowed to use both units, by the fabric
 * (`FindUnit`) and by their reservations. Segments are carried out one after another; while one is, other commands keep
 * out of its destination. An error ends the command where it is: what was copied before stays.
 */
import { sectorSizeBytes } from '../../base/limits.ts';
import { type CopyOutcome, copyRange } from '../../volume/copy.ts';
import { ScsiStatus } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ReservationAccess } from '../reservation-state.ts';
import { type SenseCode, sense, senseOfError } from '../sense.ts';
import type { Task } from '../task.ts';
import { isDesignatorOf } from '../unit-designators.ts';
import type { CopyJob } from './copy-jobs.ts';
import { maxConcurrentCopies, thisUnitId } from './copy-limits.ts';
import { encodeCopySense, type Forwarded, type SegmentFailure } from './copy-sense.ts';
import { type CopyParameters, decodeCopyParameters, type SegmentDescriptor } from './parameter-list.ts';

/** A logical unit that takes part in a copy, and the nexuses by which the initiator may use it. */
export interface CopyUnit {
  unit: LogicalUnit;
  /** One that reservations let through is enough. */
  nexuses: readonly string[];
}

/**
 * The logical unit of the fabric that is meant; null when there is none that this nexus's initiator may use, without
 * saying which of the two it is.
 */
export type FindUnit = (nexus: string, isMeant: (unit: LogicalUnit) => boolean) => CopyUnit | null;

type Failed = Omit<SegmentFailure, 'segment'>;

export function extendedCopy(task: Task): void {
  const { cdb, command, unit, nexus } = task;
  const listBytes = cdb.readUInt32BE(10);
  if (listBytes === 0) return task.good();
  if (command.dataOut.length < listBytes) return task.check(sense.parameterListLengthError);
  const parameters = decodeCopyParameters(command.dataOut.subarray(0, listBytes));
  if ('refusal' in parameters) {
    const { refusal, byte } = parameters;
    return task.check(refusal, null, byte === null ? null : { byte, bit: null, of: 'parameter list' });
  }
  if (unit.copies.running >= maxConcurrentCopies) return task.busy();
  const listId = parameters.usage === 'none' ? null : parameters.listId;
  const job = unit.copies.begin(nexus.name, listId);
  if (job === null) return task.check(sense.operationInProgress);
  void copyAll(task, parameters, job).then((failure) => {
    const { descriptorSense } = unit.control;
    const senseData = failure === null ? null : encodeCopySense(failure, descriptorSense);
    unit.copies.end(job, senseData);
    const isForgotten =
      command.request?.isAborted === true || (parameters.usage === 'discard' && senseData === null);
    if (isForgotten && listId !== null) unit.copies.forget(nexus.name, listId);
    if (command.request?.isAborted) task.aborted();
    else if (senseData === null) task.good(listBytes);
    else task.checkWith(senseData);
  });
}

async function copyAll(task: Task, parameters: CopyParameters, job: CopyJob): Promise<SegmentFailure | null> {
  for (const [index, segment] of parameters.segments.entries()) {
    if (task.command.request?.isAborted) return null;
    const failed = await copySegment(task, parameters, segment, job);
    if (failed !== null) return { ...failed, segment: index };
    job.segmentsProcessed = index + 1;
  }
  return null;
}

async function copySegment(
  task: Task,
  parameters: CopyParameters,
  segment: SegmentDescriptor,
  job: CopyJob,
): Promise<Failed | null> {
  const { sourceId, targetId, blocks, sourceBlock, targetBlock } = segment;
  const source = findUnit(task, parameters, sourceId, 4);
  if ('code' in source) return source;
  const target = findUnit(task, parameters, targetId, 6);
  if ('code' in target) return target;
  const kept = keptOut(source, 'source', 'read') ?? keptOut(target, 'target', 'write');
  if (kept !== null) return kept;
  if (target.unit.control.softwareWriteProtect) return refusedBy('target', sense.writeProtected);
  if (sourceBlock + blocks > source.unit.sectorCount) return wrong(sense.copyAborted, 12);
  if (targetBlock + blocks > target.unit.sectorCount) return wrong(sense.copyAborted, 20);
  if (blocks === 0) return null;
  const [sourceOffsetBytes, offsetBytes, lengthBytes] = [
    sourceBlock * sectorSizeBytes,
    targetBlock * sectorSizeBytes,
    blocks * sectorSizeBytes,
  ];
  const request = {
    source: source.unit.device,
    sourceOffsetBytes,
    target: target.unit.device,
    offsetBytes,
    lengthBytes,
    isAborted: () => task.command.request?.isAborted === true,
  };
  const ends = [source, target].map(({ unit }) => unit.copies.visit(task.nexus.name));
  const outcome = await new Promise<CopyOutcome>((resolve, reject) => {
    // What works on the source in several steps now is waited for first, never while the destination is held.
    source.unit.guard.change(sourceOffsetBytes, lengthBytes, () =>
      target.unit.guard.hold(offsetBytes, lengthBytes, (release) => {
        copyRange(request).finally(release).then(resolve, reject);
      }),
    );
  }).finally(() => {
    for (const end of ends) end();
  });
  job.copiedBytes += outcome.copiedBytes;
  if (outcome.failure === null) return null;
  const { error, side } = outcome.failure;
  const { code, information } = senseOfError(error, side === 'source' ? 'read' : 'write');
  return refusedBy(side, code, information);
}

/** `byte`: of the id in the segment descriptor. */
function findUnit(task: Task, { targets }: CopyParameters, id: number, byte: number): CopyUnit | Failed {
  if (id === thisUnitId) return { unit: task.unit, nexuses: [task.nexus.name] };
  const described = targets[id];
  if (described === undefined) return wrong(sense.unreachableCopyTarget, byte);
  if (described.peripheralType !== 0) return wrong(sense.incorrectCopyTargetDeviceType, byte);
  const isMeant = (unit: LogicalUnit): boolean => isDesignatorOf(unit, described.designator);
  return task.target.findUnit(task.nexus.name, isMeant) ?? wrong(sense.copyTargetNotReachable, byte);
}

function keptOut(
  { unit, nexuses }: CopyUnit,
  side: Forwarded['side'],
  access: ReservationAccess,
): Failed | null {
  if (nexuses.some((nexus) => !unit.reservations.conflicts(nexus, access))) return null;
  const forwarded = { side, status: ScsiStatus.reservationConflict, sense: null, information: null };
  return { code: sense.thirdPartyDeviceFailure, byte: null, forwarded };
}

function refusedBy(side: Forwarded['side'], code: SenseCode, information: number | null = null): Failed {
  const forwarded = { side, status: ScsiStatus.checkCondition, sense: code, information };
  return { code: sense.thirdPartyDeviceFailure, byte: null, forwarded };
}

function wrong(code: SenseCode, byte: number): Failed {
  return { code, byte, forwarded: null };
}
