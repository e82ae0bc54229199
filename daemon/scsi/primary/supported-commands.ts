/**
 * REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS (SPC-4 6.35, 6.36), from the command table.
 *
 *     A3h | 0Ch | RCTD 80h, REPORTING OPTIONS 07h | OPERATION CODE | SERVICE ACTION (2) | ALLOCATION LENGTH (4) | - | CONTROL
 *     A3h | 0Dh | REPD 80h | - (3) | ALLOCATION LENGTH (4) | - | CONTROL
 */
import type { CommandEntry, Task } from '../task.ts';

const reportingOptions = { all: 0, opcode: 1, opcodeWithServiceAction: 2, either: 3 } as const;

const timeoutDescriptorBytes = 12;

/** The commands timeouts descriptor (6.35.4): nominal and recommended time are not reported (zero). */
function timeoutsDescriptor(): Buffer {
  const descriptor = Buffer.alloc(timeoutDescriptorBytes);
  descriptor.writeUInt16BE(timeoutDescriptorBytes - 2, 0);
  return descriptor;
}

export function reportSupportedOperationCodes(task: Task): void {
  const { cdb, target } = task;
  const withTimeouts = (cdb[2]! & 0x80) !== 0;
  const option = cdb[2]! & 0x07;
  const opcode = cdb[3]!;
  const serviceAction = cdb.readUInt16BE(4);
  const allocationLengthBytes = cdb.readUInt32BE(6);
  if (option === reportingOptions.all) {
    return task.parameterData(allCommands(target.commands, withTimeouts), allocationLengthBytes);
  }
  if (option > reportingOptions.either) return task.invalidField(2, 2);
  const sameOpcode = target.commands.filter((entry) => entry.opcode === opcode);
  const hasServiceActions = sameOpcode.some((entry) => entry.serviceAction !== null);
  if (option === reportingOptions.opcode && hasServiceActions) return task.invalidField(2, 2);
  if (option === reportingOptions.opcodeWithServiceAction && sameOpcode.length > 0 && !hasServiceActions) {
    return task.invalidField(2, 2);
  }
  const wanted = hasServiceActions ? serviceAction : null;
  const ignoresAction = option === reportingOptions.opcode;
  const entry = sameOpcode.find((candidate) => candidate.serviceAction === wanted);
  const mismatched = !ignoresAction && !hasServiceActions && serviceAction !== 0;
  task.parameterData(oneCommand(mismatched ? undefined : entry, withTimeouts), allocationLengthBytes);
}

/** 6.35.2: a descriptor of 8 bytes a command, with CTDP 20 bytes. */
function allCommands(entries: readonly CommandEntry[], withTimeouts: boolean): Buffer {
  const descriptors = entries.map((entry) => {
    const descriptor = Buffer.alloc(8);
    descriptor[0] = entry.opcode;
    descriptor.writeUInt16BE(entry.serviceAction ?? 0, 2);
    descriptor[5] = (withTimeouts ? 0x02 : 0) | (entry.serviceAction === null ? 0 : 0x01);
    descriptor.writeUInt16BE(entry.usage.length, 6);
    return withTimeouts ? Buffer.concat([descriptor, timeoutsDescriptor()]) : descriptor;
  });
  const body = Buffer.concat(descriptors);
  const header = Buffer.alloc(4);
  header.writeUInt32BE(body.length, 0);
  return Buffer.concat([header, body]);
}

/** 6.35.3: SUPPORT 001b for no, 011b for as the standard has it. */
function oneCommand(entry: CommandEntry | undefined, withTimeouts: boolean): Buffer {
  if (entry === undefined) return Buffer.from([0x00, 0x01, 0x00, 0x00]);
  const header = Buffer.from([0x00, 0x03 | (withTimeouts ? 0x80 : 0), 0x00, entry.usage.length]);
  const parts: Buffer[] = [header, Buffer.from(entry.usage)];
  if (withTimeouts) parts.push(timeoutsDescriptor());
  return Buffer.concat(parts);
}

/** ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET: what the iSCSI transport does. */
const taskManagementFunctions = 0x80 | 0x40 | 0x10 | 0x08 | 0x02;

export function reportSupportedTaskManagementFunctions(task: Task): void {
  const { cdb } = task;
  const extended = (cdb[2]! & 0x80) !== 0;
  const data = Buffer.alloc(extended ? 16 : 4);
  data[0] = taskManagementFunctions;
  if (extended) data[3] = data.length - 4;
  task.parameterData(data, cdb.readUInt32BE(6));
}
