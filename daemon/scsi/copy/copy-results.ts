/** RECEIVE COPY RESULTS (SPC-3 6.18; in SPC-4 RECEIVE COPY STATUS(LID1) and its neighbours, 6.18 to 6.23). */
import type { Task } from '../task.ts';
import type { CopyJob } from './copy-jobs.ts';
import {
  blockToBlockSegment,
  identificationTarget,
  maxConcurrentCopies,
  maxDescriptorListBytes,
  maxSegmentBytes,
  maxSegmentDescriptors,
  maxTargetDescriptors,
} from './copy-limits.ts';

/** The smallest amount that can be copied, and its multiples: a sector, as a power of two. */
export const segmentGranularityBits = 9;
/** Descriptor type codes, in order. */
export const implementedDescriptors = [blockToBlockSegment, identificationTarget] as const;

const stateCodes: Record<CopyJob['state'], number> = { running: 0x00, done: 0x01, failed: 0x02 };
const bytesUnit = 0x00;
const mebibytesUnit = 0x02;

/** COPY STATUS: AVAILABLE DATA (4), state, SEGMENTS PROCESSED (2), TRANSFER COUNT UNITS, TRANSFER COUNT (4). */
export function copyStatus(task: Task): void {
  const { cdb, unit, nexus } = task;
  const job = unit.copies.find(nexus.name, cdb[2]!);
  if (job === null) return task.invalidField(2);
  const data = Buffer.alloc(12);
  data.writeUInt32BE(data.length - 4, 0);
  data[4] = stateCodes[job.state];
  data.writeUInt16BE(job.segmentsProcessed, 5);
  const isShort = job.copiedBytes <= 0xffffffff;
  data[7] = isShort ? bytesUnit : mebibytesUnit;
  data.writeUInt32BE(isShort ? job.copiedBytes : Math.floor(job.copiedBytes / 2 ** 20), 8);
  task.parameterData(data, cdb.readUInt32BE(10));
}

/**
 * FAILED SEGMENT DETAILS: AVAILABLE DATA (4), reserved, at 56 the state, at 58 SENSE DATA LENGTH (2), sense data. Told
 * once; of a copy that did not fail there is nothing to tell.
 */
export function failedSegmentDetails(task: Task): void {
  const { cdb, unit, nexus } = task;
  const listId = cdb[2]!;
  const job = unit.copies.find(nexus.name, listId);
  if (job === null || job.state === 'running') return task.invalidField(2);
  unit.copies.forget(nexus.name, listId);
  if (job.sense === null) return task.parameterData(Buffer.alloc(4), cdb.readUInt32BE(10));
  const data = Buffer.alloc(60 + job.sense.length);
  data.writeUInt32BE(data.length - 4, 0);
  data[56] = stateCodes.failed;
  data.writeUInt16BE(job.sense.length, 58);
  job.sense.copy(data, 60);
  task.parameterData(data, cdb.readUInt32BE(10));
}

/** OPERATING PARAMETERS: what a copy may consist of. Nothing is held, nothing streamed, no inline data taken. */
export function operatingParameters(task: Task): void {
  const data = Buffer.alloc(44 + implementedDescriptors.length);
  data.writeUInt32BE(data.length - 4, 0);
  data[4] = 0x01; // SNLID: copies without a list identifier
  data.writeUInt16BE(maxTargetDescriptors, 8);
  data.writeUInt16BE(maxSegmentDescriptors, 10);
  data.writeUInt32BE(maxDescriptorListBytes, 12);
  data.writeUInt32BE(maxSegmentBytes, 16);
  data.writeUInt16BE(maxConcurrentCopies, 34);
  data[36] = maxConcurrentCopies;
  data[37] = segmentGranularityBits;
  data[43] = implementedDescriptors.length;
  data.set(implementedDescriptors, 44);
  task.parameterData(data, task.cdb.readUInt32BE(10));
}

/**
 * VPD page 8Fh, Third-party Copy (SPC-4 7.8.17): descriptors of type (2), length (2) and content, whose length is a
 * multiple of four.
 */
export function thirdPartyCopyPage(serviceActions: readonly { opcode: number; actions: number[] }[]): Buffer {
  const list = serviceActions.flatMap(({ opcode, actions }) => [opcode, actions.length, ...actions]);
  const parameters = Buffer.alloc(28);
  parameters.writeUInt16BE(maxTargetDescriptors, 4);
  parameters.writeUInt16BE(maxSegmentDescriptors, 6);
  parameters.writeUInt32BE(maxDescriptorListBytes, 8);
  const operations = Buffer.alloc(32);
  operations.writeUInt32BE(maxConcurrentCopies, 0);
  operations.writeUInt32BE(maxConcurrentCopies, 4);
  operations.writeUInt32BE(maxSegmentBytes, 8);
  operations[12] = segmentGranularityBits;
  return Buffer.concat([
    descriptor(0x0001, Buffer.from([list.length, ...list])), // supported commands
    descriptor(0x0004, parameters), // parameter data
    descriptor(0x0008, Buffer.from([implementedDescriptors.length, ...implementedDescriptors])),
    descriptor(0x000c, Buffer.from([0x00, 0x02, 0xff, 0xff])), // CSCD ids: this logical unit
    descriptor(0x8001, operations), // general copy operations
  ]);
}

function descriptor(type: number, content: Buffer): Buffer {
  const padded = Buffer.alloc(4 + 4 * Math.ceil(content.length / 4));
  padded.writeUInt16BE(type, 0);
  padded.writeUInt16BE(padded.length - 4, 2);
  content.copy(padded, 4);
  return padded;
}
