/**
 * MODE SENSE and MODE SELECT, 6 and 10 (SPC-4 6.11 to 6.14, headers in 7.5.5). All nexuses share one set of current
 * values. A save (SP) is durable before it is answered; when it fails, nothing has changed.
 *
 *     15h | PF 10h, SP 01h | - (2) | PARAMETER LIST LENGTH | CONTROL
 *     55h | PF 10h, SP 01h | - (5) | PARAMETER LIST LENGTH (2) | CONTROL
 *     1Ah | DBD 08h | PC C0h, PAGE CODE 3Fh | SUBPAGE CODE | ALLOCATION LENGTH | CONTROL
 *     5Ah | LLBAA 10h, DBD 08h | PC, PAGE CODE | SUBPAGE CODE | - (3) | ALLOCATION LENGTH (2) | CONTROL
 */
import { sectorSizeBytes } from '../../base/limits.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { defaultModeParameters } from '../saved-unit-state.ts';
import { type SenseCode, sense, senseOfError, senseOfFailedSave } from '../sense.ts';
import type { Task } from '../task.ts';
import type { ModeParameters } from '../unit-state-store.ts';
import { type ModePage, modePages } from './mode-pages.ts';

const allPages = 0x3f;
const allSubpages = 0xff;
const pageControl = { current: 0, changeable: 1, defaults: 2, saved: 3 } as const;

const writeProtectedBit = 0x80;
const dpoFuaBit = 0x10;
/** PS in byte 0 of a page: what may be changed in it may be saved. */
const parametersSavableBit = 0x80;

export function modeSense6(task: Task): void {
  const pages = sensedPages(task);
  if (pages === null) return;
  const descriptor = (task.cdb[1]! & 0x08) !== 0 ? Buffer.alloc(0) : shortBlockDescriptor(task.unit);
  const dataBytes = 4 + descriptor.length + pages.length;
  const header = Buffer.from([dataBytes - 1, 0x00, deviceSpecific(task.unit), descriptor.length]);
  task.parameterData(Buffer.concat([header, descriptor, pages]), task.cdb[4]!);
}

export function modeSense10(task: Task): void {
  const pages = sensedPages(task);
  if (pages === null) return;
  const { cdb, unit } = task;
  const longLba = (cdb[1]! & 0x10) !== 0;
  let descriptor: Buffer = Buffer.alloc(0);
  if ((cdb[1]! & 0x08) === 0) descriptor = longLba ? longBlockDescriptor(unit) : shortBlockDescriptor(unit);
  const header = Buffer.alloc(8);
  header.writeUInt16BE(8 + descriptor.length + pages.length - 2, 0);
  header[3] = deviceSpecific(unit);
  header[4] = descriptor.length === 16 ? 0x01 : 0x00;
  header.writeUInt16BE(descriptor.length, 6);
  task.parameterData(Buffer.concat([header, descriptor, pages]), cdb.readUInt16BE(7));
}

/** The pages asked for, or null when the task has been answered. */
function sensedPages(task: Task): Buffer | null {
  const { cdb, unit } = task;
  const control = cdb[2]! >> 6;
  const code = cdb[2]! & 0x3f;
  const subpage = cdb[3]!;
  if (control === pageControl.saved && !unit.saved.isSupported) {
    task.check(sense.savingParametersNotSupported);
    return null;
  }
  const chosen = code === allPages ? modePages : modePages.filter((page) => page.code === code);
  if (chosen.length === 0 || (subpage !== 0 && subpage !== allSubpages)) {
    task.invalidField();
    return null;
  }
  return Buffer.concat(
    chosen.map((page) => {
      const bytes =
        control === pageControl.changeable
          ? Buffer.from(page.changeable)
          : page.encode(unit, parametersOf(unit, control));
      if (unit.saved.isSupported) bytes[0]! |= parametersSavableBit;
      return bytes;
    }),
  );
}

function parametersOf(unit: LogicalUnit, control: number): Readonly<ModeParameters> {
  if (control === pageControl.defaults) return defaultModeParameters;
  return control === pageControl.saved ? unit.saved.modeParameters : unit.control;
}

function deviceSpecific(unit: LogicalUnit): number {
  return (unit.control.softwareWriteProtect ? writeProtectedBit : 0) | dpoFuaBit;
}

/** SBC-3 6.5.2.2: blocks (FFFFFFFFh when they do not fit), and the block length in three bytes. */
function shortBlockDescriptor(unit: LogicalUnit): Buffer {
  const descriptor = Buffer.alloc(8);
  descriptor.writeUInt32BE(Math.min(unit.sectorCount, 0xffffffff), 0);
  descriptor.writeUIntBE(sectorSizeBytes, 5, 3);
  return descriptor;
}

/** SBC-3 6.5.2.3. */
function longBlockDescriptor(unit: LogicalUnit): Buffer {
  const descriptor = Buffer.alloc(16);
  descriptor.writeBigUInt64BE(BigInt(unit.sectorCount), 0);
  descriptor.writeUInt32BE(sectorSizeBytes, 12);
  return descriptor;
}

export function modeSelect6(task: Task): void {
  modeSelect(task, task.cdb[4]!, 4);
}

export function modeSelect10(task: Task): void {
  modeSelect(task, task.cdb.readUInt16BE(7), 8);
}

function modeSelect(task: Task, listBytes: number, headerBytes: 4 | 8): void {
  const { cdb, unit } = task;
  const pageFormat = (cdb[1]! & 0x10) !== 0;
  const savePages = (cdb[1]! & 0x01) !== 0;
  if (!pageFormat) return task.invalidField(1, 4);
  if (savePages && !unit.saved.isSupported) return task.invalidField(1, 0);
  const list = task.command.dataOut.subarray(0, listBytes);
  if (list.length < listBytes) return task.check(sense.parameterListLengthError);
  unit.changes.take(task, (finished) => {
    const selected = selectedParameters(unit, list, headerBytes);
    if ('asc' in selected) {
      task.check(selected);
      return finished();
    }
    select(task, selected, savePages, (refusal) => {
      if (refusal === null) task.good(listBytes);
      else task.check(refusal);
      finished();
    });
  });
}

/** What the parameters are with all pages of the list, or why none of it is taken. */
function selectedParameters(unit: LogicalUnit, list: Buffer, headerBytes: 4 | 8): ModeParameters | SenseCode {
  let selected: ModeParameters = { ...unit.control };
  if (list.length === 0) return selected;
  if (list.length < headerBytes) return sense.parameterListLengthError;
  const long = headerBytes === 8 && (list[4]! & 0x01) !== 0;
  const descriptorBytes = headerBytes === 8 ? list.readUInt16BE(6) : list[3]!;
  const pagesStart = headerBytes + descriptorBytes;
  if (list.length < pagesStart) return sense.parameterListLengthError;
  if (!describesUnit(unit, list.subarray(headerBytes, pagesStart), long))
    return sense.invalidFieldInParameterList;
  for (let position = pagesStart; position < list.length; ) {
    if (list.length < position + 2) return sense.parameterListLengthError;
    const bytes = list.subarray(position, position + 2 + list[position + 1]!);
    if (bytes.length < 2 + list[position + 1]!) return sense.parameterListLengthError;
    const page = modePages.find(({ code }) => code === (bytes[0]! & 0x7f));
    if (page === undefined || !isAllowed(page, unit, bytes)) return sense.invalidFieldInParameterList;
    selected = page.decode(bytes, selected);
    position += bytes.length;
  }
  return selected;
}

/**
 * Gives the parameters their new values. Write protection holds from the beginning when it is turned on, and to the
 * end when it is turned off; what was written before is durable by then (SPC-4 7.5.8, SWP).
 */
function select(
  task: Task,
  selected: ModeParameters,
  savePages: boolean,
  done: (refusal: SenseCode | null) => void,
): void {
  const { unit } = task;
  const before = { ...unit.control };
  const isProtecting = selected.softwareWriteProtect && !before.softwareWriteProtect;
  const fail = (refusal: SenseCode): void => {
    Object.assign(unit.control, before);
    done(refusal);
  };
  const finish = (): void => {
    Object.assign(unit.control, selected);
    const isOther =
      before.descriptorSense !== selected.descriptorSense ||
      before.softwareWriteProtect !== selected.softwareWriteProtect;
    if (isOther) unit.raiseAll(sense.modeParametersChanged, task.nexus.name);
    done(null);
  };
  const save = (): void => {
    if (!savePages) return finish();
    unit.saved.save({ modeParameters: selected }, (error) => {
      if (error === null) finish();
      else fail(senseOfFailedSave(error));
    });
  };
  if (!isProtecting) return save();
  unit.control.softwareWriteProtect = true;
  unit.device.flush((error) => {
    if (error === null) save();
    else fail(senseOfError(error, 'write').code);
  });
}

/** No block descriptor, or one that changes nothing: zero blocks means "as it is" (SBC-3 6.5.2.2). */
function describesUnit(unit: LogicalUnit, descriptor: Buffer, long: boolean): boolean {
  if (descriptor.length === 0) return true;
  if (descriptor.length !== (long ? 16 : 8)) return false;
  const blocks = long ? Number(descriptor.readBigUInt64BE(0)) : descriptor.readUInt32BE(0);
  const blockBytes = long ? descriptor.readUInt32BE(12) : descriptor.readUIntBE(5, 3);
  const capacity = long ? unit.sectorCount : Math.min(unit.sectorCount, 0xffffffff);
  return blockBytes === sectorSizeBytes && (blocks === 0 || blocks === capacity);
}

/** The page has its length and differs from the current one only in changeable bits; PS is reserved here. */
function isAllowed(page: ModePage, unit: LogicalUnit, bytes: Buffer): boolean {
  const current = page.encode(unit, unit.control);
  if (bytes.length !== current.length) return false;
  for (let index = 2; index < bytes.length; index += 1) {
    if (((bytes[index]! ^ current[index]!) & ~page.changeable[index]!) !== 0) return false;
  }
  return true;
}
