/**
 * LOG SENSE (SPC-4 6.10) and its pages (SPC-4 7.3, SBC-4 6.4). Counters are the store's and cannot be saved or reset.
 * There is no temperature to tell, and no page for it.
 *
 *     4Dh | SP 01h | PC C0h, PAGE CODE 3Fh | SUBPAGE CODE | - | PARAMETER POINTER (2) | ALLOCATION LENGTH (2) | CONTROL
 */
import { sectorSizeBytes } from '../../base/limits.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { Task } from '../task.ts';

/** One parameter of a page (SPC-4 7.3.2.2). */
interface LogParameter {
  code: number;
  value: Buffer;
}

interface LogPage {
  readonly code: number;
  /** In the order of their codes. */
  readonly parameters: (unit: LogicalUnit) => LogParameter[];
}

const supportedPagesCode = 0x00;
const allSubpages = 0xff;
const cumulativeValues = 0b01;
/** DU, TSD, ETC off; FORMAT AND LINKING 11b: a list in binary that is not changed by the initiator. */
const binaryList = 0x03;
/** "Not able to tell" of a temperature (SPC-4 7.3.8). */
const noTemperature = 0xff;

const pages: readonly LogPage[] = [
  { code: 0x0c, parameters: logicalBlockProvisioning },
  { code: 0x19, parameters: generalStatistics },
  { code: 0x2f, parameters: informationalExceptions },
];

export function logSense(task: Task): void {
  const { cdb, unit } = task;
  const savesParameters = (cdb[1]! & 0x01) !== 0;
  const control = cdb[2]! >> 6;
  const code = cdb[2]! & 0x3f;
  const subpage = cdb[3]!;
  const pointer = cdb.readUInt16BE(5);
  const allocationLengthBytes = cdb.readUInt16BE(7);
  if (savesParameters) return task.invalidField(1, 0);
  if (code === supportedPagesCode) {
    if (subpage !== 0 && subpage !== allSubpages) return task.invalidField(3);
    if (pointer !== 0) return task.invalidField(5);
    return task.parameterData(supportedPages(unit, subpage === allSubpages), allocationLengthBytes);
  }
  const page = supported(unit).find((each) => each.code === code);
  if (page === undefined) return task.invalidField(2, 5);
  if (subpage !== 0) return task.invalidField(3);
  if (control !== cumulativeValues) return task.invalidField(2, 7);
  const parameters = page.parameters(unit).filter((each) => each.code >= pointer);
  if (parameters.length === 0) return task.invalidField(5);
  const body = Buffer.concat(parameters.map(encodeParameter));
  task.parameterData(Buffer.concat([pageHeader(code, null, body.length), body]), allocationLengthBytes);
}

/** Pages that have something to say on this unit. */
function supported(unit: LogicalUnit): LogPage[] {
  return pages.filter((page) => page.parameters(unit).length > 0);
}

/** 7.3.13, 7.3.14: page codes; with subpages, pairs of page and subpage code. */
function supportedPages(unit: LogicalUnit, withSubpages: boolean): Buffer {
  const codes = [supportedPagesCode, ...supported(unit).map((page) => page.code)];
  if (!withSubpages)
    return Buffer.concat([pageHeader(supportedPagesCode, null, codes.length), Buffer.from(codes)]);
  const pairs = [
    [supportedPagesCode, 0],
    [supportedPagesCode, allSubpages],
    ...codes.slice(1).map((code) => [code, 0]),
  ];
  const body = Buffer.from(pairs.flat());
  return Buffer.concat([pageHeader(supportedPagesCode, allSubpages, body.length), body]);
}

/** DS 80h (nothing is saved), SPF 40h with a subpage, PAGE CODE; SUBPAGE CODE; PAGE LENGTH (2). */
function pageHeader(code: number, subpage: number | null, bodyBytes: number): Buffer {
  const flags = code === supportedPagesCode ? 0 : 0x80;
  const header = Buffer.from([flags | (subpage === null ? 0 : 0x40) | code, subpage ?? 0, 0, 0]);
  header.writeUInt16BE(bodyBytes, 2);
  return header;
}

function encodeParameter({ code, value }: LogParameter): Buffer {
  return Buffer.concat([Buffer.from([code >> 8, code & 0xff, binaryList, value.length]), value]);
}

/**
 * 0Ch (SBC-4 6.4.6): what the store has left, shared with other units (SCOPE 10b), and what this one takes (01b), in
 * logical blocks: a threshold set is one, because no thresholds are supported (VPD page B2h).
 */
function logicalBlockProvisioning(unit: LogicalUnit): LogParameter[] {
  const usage = unit.provisioning?.();
  if (usage === undefined) return [];
  return [
    { code: 0x0001, value: resourceCount(usage.availableBytes, 0b10) },
    { code: 0x0002, value: resourceCount(usage.usedBytes, 0b01) },
  ];
}

/** RESOURCE COUNT (4), SCOPE, - (3). FFFFFFFFh is "at least 2 TiB". */
function resourceCount(bytes: number, scope: number): Buffer {
  const value = Buffer.alloc(8);
  value.writeUInt32BE(Math.min(Math.floor(bytes / sectorSizeBytes), 0xffffffff), 0);
  value[4] = scope;
  return value;
}

/** A microsecond: what intervals are counted in. */
const intervalExponent = 6;
const intervalsPerMs = 1000;

/**
 * 19h (SPC-5 7.3.11 General Statistics and Performance): since the unit came online,
 *  - 0001h: read commands, write commands, logical blocks received, logical blocks transmitted, read and write command
 *    processing intervals, and two sums weighted by a device's own weights, of which there are none here;
 *  - 0002h: intervals without any command;
 *  - 0003h: the length of an interval, INTEGER x 10^-EXPONENT seconds.
 */
function generalStatistics({ statistics }: LogicalUnit): LogParameter[] {
  const { read, write, idleMs } = statistics;
  const access = [
    read.commands,
    write.commands,
    write.blocks,
    read.blocks,
    intervals(read.processingMs),
    intervals(write.processingMs),
    0,
    0,
  ];
  const interval = Buffer.alloc(8);
  interval.writeUInt32BE(intervalExponent, 0);
  interval.writeUInt32BE(1, 4);
  return [
    { code: 0x0001, value: counters(access) },
    { code: 0x0002, value: counters([intervals(idleMs)]) },
    { code: 0x0003, value: interval },
  ];
}

function intervals(ms: number): number {
  return Math.floor(ms * intervalsPerMs);
}

/** Eight bytes each. */
function counters(values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [index, value] of values.entries()) bytes.writeBigUInt64BE(BigInt(value), 8 * index);
  return bytes;
}

/**
 * 2Fh (SPC-4 7.3.8): ASC, ASCQ of what is wrong (nothing is), MOST RECENT TEMPERATURE READING, and a byte of the vendor's
 * that initiators take for the temperature not to be exceeded.
 */
function informationalExceptions(): LogParameter[] {
  return [{ code: 0x0000, value: Buffer.from([0x00, 0x00, noTemperature, noTemperature]) }];
}
