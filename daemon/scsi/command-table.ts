/**
 * Every command the device server knows, one entry each: to add a command, add its entry and its handler.
 * REPORT SUPPORTED OPERATION CODES, the reservation rules, write protection and the check for bits that mean nothing
 * here all come from this table.
 */
import { assert } from '../base/assert.ts';
import { compareAndWrite, orWrite } from './block/atomic-update.ts';
import { writeAtomic } from './block/atomic-write.ts';
import { getLbaStatus, readCapacity10, readCapacity16 } from './block/capacity.ts';
import { readDefectData10, readDefectData12 } from './block/defect-data.ts';
import { preFetch } from './block/pre-fetch.ts';
import { read, write } from './block/read-write.ts';
import { synchronizeCache } from './block/synchronize-cache.ts';
import { unmap } from './block/unmap.ts';
import { verify, writeAndVerify } from './block/verify.ts';
import { writeSame } from './block/write-same.ts';
import { copyStatus, failedSegmentDetails, operatingParameters } from './copy/copy-results.ts';
import { extendedCopy } from './copy/extended-copy.ts';
import { receiveDiagnosticResults, sendDiagnostic } from './primary/diagnostics.ts';
import { logSense } from './primary/log-pages.ts';
import { modeSelect6, modeSelect10, modeSense6, modeSense10 } from './primary/mode-parameters.ts';
import * as persistentIn from './primary/persistent-reserve-in.ts';
import * as persistentOut from './primary/persistent-reserve-out.ts';
import { reportLuns } from './primary/report-luns.ts';
import { release, reserve } from './primary/reserve.ts';
import { inquiry } from './primary/standard-inquiry.ts';
import {
  reportSupportedOperationCodes,
  reportSupportedTaskManagementFunctions,
} from './primary/supported-commands.ts';
import { reportTargetPortGroups } from './primary/target-port-groups.ts';
import * as state from './primary/unit-state.ts';
import type { ReservationAccess } from './reservation-state.ts';
import type { CommandEntry } from './task.ts';
import type { Transfer } from './unit-statistics.ts';

/** Operation codes the device server itself needs. */
export const Opcode = { testUnitReady: 0x00, requestSense: 0x03, inquiry: 0x12, reportLuns: 0xa0 } as const;

/**
 * `usage`: the CDB USAGE DATA in hexadecimal, without the opcode. In byte 1 of block commands: E0 protection (never:
 * no protection information), 10 DPO, 08 FUA or UNMAP, 06 BYTCHK, 02 IMMED. The last byte is CONTROL (no NACA).
 */
function entry(
  name: string,
  opcode: number,
  serviceAction: number | null,
  usage: string,
  access: ReservationAccess,
  handler: CommandEntry['handler'],
  writes = false,
): CommandEntry {
  const bytes = new Uint8Array([opcode, ...Buffer.from(usage.replaceAll(' ', ''), 'hex')]);
  assert([6, 10, 12, 16].includes(bytes.length), `the CDB of ${name} has a length of its opcode`);
  const transfer = transferOf(name);
  return { name, opcode, serviceAction, usage: bytes, access, handler, transfer, writes };
}

/** READ and WRITE in all their forms (SPC-5 7.3.11, SBC-4): those that move user data. */
function transferOf(name: string): Transfer {
  if (/^READ\(/.test(name)) return 'read';
  return /^(WRITE|ORWRITE|COMPARE AND WRITE)\b/.test(name) ? 'write' : null;
}

const usage10 = (flags: string): string => `${flags} ffffffff 3f ffff 00`;
const usage12 = (flags: string): string => `${flags} ffffffff ffffffff 3f 00`;
const usage16 = (flags: string): string => `${flags} ffffffffffffffff ffffffff 3f 00`;
const usageIn = (action: string): string => `${action} 0000000000 ffff 00`;
const usageOut = (action: string): string => `${action} ff 0000 ffffffff 00`;
const usageCopy = (listId: string): string => `1f ${listId} 00000000000000 ffffffff 00 00`;

/** In the order of their operation codes. */
export const commands: readonly CommandEntry[] = [
  entry('TEST UNIT READY', Opcode.testUnitReady, null, '00000000 00', 'status', state.testUnitReady),
  entry('REQUEST SENSE', Opcode.requestSense, null, '010000ff 00', 'exempt', state.requestSense),
  entry('READ(6)', 0x08, null, '1fffffff 00', 'read', read),
  entry('WRITE(6)', 0x0a, null, '1fffffff 00', 'write', write, true),
  entry('INQUIRY', Opcode.inquiry, null, '01ffffff 00', 'exempt', inquiry),
  entry('MODE SELECT(6)', 0x15, null, '110000ff 00', 'write', modeSelect6),
  entry('RESERVE(6)', 0x16, null, '00000000 00', 'status', reserve),
  entry('RELEASE(6)', 0x17, null, '00000000 00', 'exempt', release),
  entry('MODE SENSE(6)', 0x1a, null, '08ffffff 00', 'write', modeSense6),
  entry('START STOP UNIT', 0x1b, null, '01000ff7 00', 'status', state.startStopUnit),
  entry('RECEIVE DIAGNOSTIC RESULTS', 0x1c, null, '01ffffff 00', 'write', receiveDiagnosticResults),
  entry('SEND DIAGNOSTIC', 0x1d, null, 'f700ffff 00', 'write', sendDiagnostic),
  entry('PREVENT ALLOW MEDIUM REMOVAL', 0x1e, null, '00000003 00', 'exempt', state.preventAllowMediumRemoval),
  entry('READ CAPACITY(10)', 0x25, null, '00ffffffff 000000 00', 'exempt', readCapacity10),
  entry('READ(10)', 0x28, null, usage10('18'), 'read', read),
  entry('WRITE(10)', 0x2a, null, usage10('18'), 'write', write, true),
  entry('WRITE AND VERIFY(10)', 0x2e, null, usage10('12'), 'write', writeAndVerify, true),
  entry('VERIFY(10)', 0x2f, null, usage10('16'), 'read', verify),
  entry('PRE-FETCH(10)', 0x34, null, usage10('02'), 'read', preFetch),
  entry('SYNCHRONIZE CACHE(10)', 0x35, null, usage10('02'), 'write', synchronizeCache),
  entry('READ DEFECT DATA(10)', 0x37, null, '00 1f 00000000 ffff 00', 'write', readDefectData10),
  entry('WRITE SAME(10)', 0x41, null, usage10('08'), 'write', writeSame, true),
  entry('UNMAP', 0x42, null, '00 00000000 3f ffff 00', 'write', unmap, true),
  entry('LOG SENSE', 0x4d, null, '01 ffff 00 ffff ffff 00', 'exempt', logSense),
  entry('MODE SELECT(10)', 0x55, null, '11 0000000000 ffff 00', 'write', modeSelect10),
  entry('RESERVE(10)', 0x56, null, '00 000000000000 00 00', 'status', reserve),
  entry('RELEASE(10)', 0x57, null, '00 000000000000 00 00', 'exempt', release),
  entry('MODE SENSE(10)', 0x5a, null, '18 ffff 000000 ffff 00', 'write', modeSense10),
  entry('READ KEYS', 0x5e, 0x00, usageIn('1f'), 'status', persistentIn.readKeys),
  entry('READ RESERVATION', 0x5e, 0x01, usageIn('1f'), 'status', persistentIn.readReservation),
  entry('REPORT CAPABILITIES', 0x5e, 0x02, usageIn('1f'), 'status', persistentIn.reportCapabilities),
  entry('READ FULL STATUS', 0x5e, 0x03, usageIn('1f'), 'status', persistentIn.readFullStatus),
  entry('REGISTER', 0x5f, 0x00, usageOut('1f'), 'status', persistentOut.register),
  entry('RESERVE', 0x5f, 0x01, usageOut('1f'), 'status', persistentOut.reserve),
  entry('RELEASE', 0x5f, 0x02, usageOut('1f'), 'status', persistentOut.release),
  entry('CLEAR', 0x5f, 0x03, usageOut('1f'), 'status', persistentOut.clear),
  entry('PREEMPT', 0x5f, 0x04, usageOut('1f'), 'status', persistentOut.preempt),
  entry('PREEMPT AND ABORT', 0x5f, 0x05, usageOut('1f'), 'status', persistentOut.preemptAndAbort),
  entry(
    'REGISTER AND IGNORE EXISTING KEY',
    0x5f,
    0x06,
    usageOut('1f'),
    'status',
    persistentOut.registerAndIgnoreExistingKey,
  ),
  entry('REGISTER AND MOVE', 0x5f, 0x07, usageOut('1f'), 'status', persistentOut.registerAndMove),
  entry('EXTENDED COPY(LID1)', 0x83, 0x00, usageCopy('00'), 'write', extendedCopy),
  entry('COPY STATUS', 0x84, 0x00, usageCopy('ff'), 'write', copyStatus),
  entry('OPERATING PARAMETERS', 0x84, 0x03, usageCopy('ff'), 'status', operatingParameters),
  entry('FAILED SEGMENT DETAILS', 0x84, 0x04, usageCopy('ff'), 'write', failedSegmentDetails),
  entry('READ(16)', 0x88, null, usage16('18'), 'read', read),
  entry(
    'COMPARE AND WRITE',
    0x89,
    null,
    '18 ffffffffffffffff 000000ff 3f 00',
    'write',
    compareAndWrite,
    true,
  ),
  entry('WRITE(16)', 0x8a, null, usage16('18'), 'write', write, true),
  entry('ORWRITE(16)', 0x8b, null, usage16('18'), 'write', orWrite, true),
  entry('WRITE AND VERIFY(16)', 0x8e, null, usage16('12'), 'write', writeAndVerify, true),
  entry('VERIFY(16)', 0x8f, null, usage16('16'), 'read', verify),
  entry('PRE-FETCH(16)', 0x90, null, usage16('02'), 'read', preFetch),
  entry('SYNCHRONIZE CACHE(16)', 0x91, null, usage16('02'), 'write', synchronizeCache),
  entry('WRITE SAME(16)', 0x93, null, usage16('09'), 'write', writeSame, true),
  entry('WRITE ATOMIC(16)', 0x9c, null, '18 ffffffffffffffff 0000 ffff 3f 00', 'write', writeAtomic, true),
  entry('READ CAPACITY(16)', 0x9e, 0x10, '1f 0000000000000000 ffffffff 00 00', 'exempt', readCapacity16),
  entry('GET LBA STATUS', 0x9e, 0x12, '1f ffffffffffffffff ffffffff 00 00', 'read', getLbaStatus),
  entry('REPORT LUNS', Opcode.reportLuns, null, '00 ff 000000 ffffffff 00 00', 'exempt', reportLuns),
  entry(
    'REPORT TARGET PORT GROUPS',
    0xa3,
    0x0a,
    '3f 00000000 ffffffff 00 00',
    'exempt',
    reportTargetPortGroups,
  ),
  entry(
    'REPORT SUPPORTED OPERATION CODES',
    0xa3,
    0x0c,
    '1f 87 ff ffff ffffffff 00 00',
    'status',
    reportSupportedOperationCodes,
  ),
  entry(
    'REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS',
    0xa3,
    0x0d,
    '1f 80 000000 ffffffff 00 00',
    'status',
    reportSupportedTaskManagementFunctions,
  ),
  entry('READ(12)', 0xa8, null, usage12('18'), 'read', read),
  entry('WRITE(12)', 0xaa, null, usage12('18'), 'write', write, true),
  entry('WRITE AND VERIFY(12)', 0xae, null, usage12('12'), 'write', writeAndVerify, true),
  entry('VERIFY(12)', 0xaf, null, usage12('16'), 'read', verify),
  entry('READ DEFECT DATA(12)', 0xb7, null, '1f ffffffff ffffffff 00 00', 'write', readDefectData12),
];

/** By operation code: the entry, or the entries by service action. */
const byOpcode: (CommandEntry | Map<number, CommandEntry> | undefined)[] = new Array(256).fill(undefined);
for (const command of commands) {
  const known = byOpcode[command.opcode];
  if (command.serviceAction === null) {
    assert(known === undefined, `operation code of ${command.name} is its own`);
    byOpcode[command.opcode] = command;
  } else {
    const actions = known ?? new Map<number, CommandEntry>();
    assert(
      actions instanceof Map && !actions.has(command.serviceAction),
      `${command.name} has its service action`,
    );
    actions.set(command.serviceAction, command);
    byOpcode[command.opcode] = actions;
  }
}

export function findCommand(cdb: Buffer): CommandEntry | 'unknown-opcode' | 'unknown-service-action' {
  const found = byOpcode[cdb[0]!];
  if (found === undefined) return 'unknown-opcode';
  if (!(found instanceof Map)) return found;
  return found.get(cdb[1]! & 0x1f) ?? 'unknown-service-action';
}
