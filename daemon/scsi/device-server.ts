/**
 * The device server of one target: finds the logical unit and the command, checks what every command is checked for,
 * and hands over to the command's handler.
 *
 * The order of the checks (SAM-5 5.3.3, SPC-4 5.12.1):
 *   logical unit -> operation code -> unit attention -> reservation -> bits of the CDB -> write protection -> handler
 */
import { assert } from '../base/assert.ts';
import { type ScsiCommand, type ScsiReply, ScsiStatus } from './command.ts';
import { commands, findCommand, Opcode } from './command-table.ts';
import type { FindUnit } from './copy/extended-copy.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { decodeLun, maxLun, reportLunsWellKnown } from './logical-unit-number.ts';
import { reportLunsData } from './primary/report-luns.ts';
import { absentUnitInquiry, wellKnownUnitInquiry } from './primary/standard-inquiry.ts';
import { encodeSense, type SenseCode, sense } from './sense.ts';
import { type TargetFacts, Task } from './task.ts';

export interface DeviceServerOptions {
  /** Logical units by their number. The map may change while commands arrive. */
  units: Map<number, LogicalUnit>;
  /** The SCSI device name: the target's iSCSI name (RFC 7143 4.2.7). VPD pages leave it out when not given. */
  name?: string;
  /** The relative target port identifiers the target is reached at now; port 1 alone when not given. */
  ports?: () => readonly number[];
  /**
   * Ends the tasks a nexus has with a logical unit, for whoever preempts it (SPC-4 5.13.11.2.6); calls back when none
   * of them has effects any more. Without it, commands in flight are waited for.
   */
  abortTasks?: (nexus: string, lun: Buffer, done: () => void) => void;
  /** Whether a nexus may know of a logical unit; every one may when not given. Asked for every command. */
  sees?: (lun: number, nexus: string) => boolean;
  /** Finds the logical units of other targets for copies; none when not given. */
  findElsewhere?: FindUnit;
}

export class DeviceServer {
  readonly #units: Map<number, LogicalUnit>;
  readonly #facts: TargetFacts;
  readonly #sees: DeviceServerOptions['sees'];

  constructor(options: DeviceServerOptions) {
    for (const number of options.units.keys()) assert(number >= 0 && number <= maxLun, 'a LUN has 14 bits');
    this.#units = options.units;
    this.#sees = options.sees;
    this.#facts = {
      commands,
      lunNumbers: (nexus) => this.#lunNumbers(nexus),
      ports: options.ports ?? (() => [1]),
      abortTasks: options.abortTasks ?? null,
      name: options.name ?? null,
      findUnit: (nexus, isMeant) => {
        const own = this.#lunNumbers(nexus).map((number) => this.#units.get(number)!);
        const unit = own.find(isMeant);
        if (unit !== undefined) return { unit, nexuses: [nexus] };
        return options.findElsewhere?.(nexus, isMeant) ?? null;
      },
    };
  }

  /** Carries a command out. `done` is called exactly once, possibly before this returns. */
  execute(command: ScsiCommand, done: (reply: ScsiReply) => void): void {
    assert(command.cdb.length === 16, 'a CDB comes as 16 bytes');
    const number = decodeLun(command.lun);
    const unit = typeof number === 'number' ? this.#units.get(number) : undefined;
    if (unit === undefined || this.#sees?.(number as number, command.nexus) === false) {
      done(this.#withoutUnit(command, number === reportLunsWellKnown));
      return;
    }
    const task = new Task(command, unit, unit.nexus(command.nexus), this.#facts, done);
    const { cdb, nexus } = task;
    const entry = findCommand(cdb);
    if (entry === 'unknown-opcode') return task.check(sense.invalidOpcode);
    if (entry !== 'unknown-service-action') task.transfer = entry.transfer;
    if (nexus.attentions.length > 0 && !reportsNoAttention(cdb[0]!))
      return task.check(nexus.attentions.shift()!);
    if (entry === 'unknown-service-action') return task.invalidField(1, 4);
    if (unit.reservations.conflicts(nexus.name, entry.access)) return task.conflict();
    const usage = entry.usage;
    for (let index = 1; index < usage.length; index += 1) {
      const unknownBits = cdb[index]! & ~usage[index]!;
      if (unknownBits !== 0) return task.invalidField(index, 31 - Math.clz32(unknownBits));
    }
    if (entry.writes && unit.control.softwareWriteProtect) return task.check(sense.writeProtected);
    entry.handler(task);
  }

  /** Logical units came or went: everybody hears that the list is another (SAM-5 4.6.4). */
  unitsChanged(): void {
    for (const unit of this.#units.values()) unit.raiseAll(sense.reportedLunsChanged);
  }

  #lunNumbers(nexus: string): number[] {
    const numbers = [...this.#units.keys()].sort((a, b) => a - b);
    return numbers.filter((number) => this.#sees?.(number, nexus) !== false);
  }

  /** The nexus is gone: logged out, dropped, or reinstated. */
  nexusLost(nexus: string): void {
    for (const unit of this.#units.values()) unit.nexusLost(nexus);
  }

  /** LOGICAL UNIT RESET. The transport aborts the tasks; nothing happens when there is no such unit. */
  resetUnit(lun: Buffer): void {
    const number = decodeLun(lun);
    if (typeof number === 'number') this.#units.get(number)?.reset();
  }

  /** TARGET WARM or COLD RESET, asked for by this nexus; it hears of it like everybody (SAM-5 6.3.3). */
  resetTarget(_nexus: string): void {
    for (const unit of this.#units.values()) unit.reset();
  }

  lunExists(lun: Buffer, nexus: string): boolean {
    const number = decodeLun(lun);
    if (typeof number !== 'number') return number === reportLunsWellKnown;
    return this.#units.has(number) && this.#sees?.(number, nexus) !== false;
  }

  /** Resets end what others do with any unit of the target, so they are for who may use them all. */
  mayResetTarget(nexus: string): boolean {
    return this.#lunNumbers(nexus).length === this.#units.size;
  }

  /** SPC-4 5.12.1 table 57 and clause 8.2: the commands that need no logical unit. */
  #withoutUnit(command: ScsiCommand, wellKnown: boolean): ScsiReply {
    const { cdb } = command;
    switch (cdb[0]) {
      case Opcode.inquiry:
        if (cdb[1] !== 0 || cdb[2] !== 0) return refusal(command, sense.invalidFieldInCdb);
        return answer(wellKnown ? wellKnownUnitInquiry() : absentUnitInquiry(), cdb.readUInt16BE(3));
      case Opcode.reportLuns: {
        const data = reportLunsData(cdb[2]!, this.#lunNumbers(command.nexus));
        return data === null ? refusal(command, sense.invalidFieldInCdb) : answer(data, cdb.readUInt32BE(6));
      }
      case Opcode.requestSense: {
        const what = wellKnown ? sense.noSense : sense.logicalUnitNotSupported;
        return answer(encodeSense(what, null, (cdb[1]! & 0x01) !== 0), cdb[4]!);
      }
      case Opcode.testUnitReady:
        return wellKnown ? answer(Buffer.alloc(0), 0) : refusal(command, sense.logicalUnitNotSupported);
      default:
        return refusal(command, wellKnown ? sense.invalidOpcode : sense.logicalUnitNotSupported);
    }
  }
}

/** INQUIRY, REPORT LUNS and REQUEST SENSE are carried out without reporting a unit attention (SAM-5 5.14.3). */
function reportsNoAttention(opcode: number): boolean {
  return opcode === Opcode.inquiry || opcode === Opcode.reportLuns || opcode === Opcode.requestSense;
}

function answer(data: Buffer, allocationLengthBytes: number): ScsiReply {
  const cut = data.subarray(0, allocationLengthBytes);
  return {
    status: ScsiStatus.good,
    sense: null,
    dataIn: [cut],
    wantedOutBytes: 0,
    wantedInBytes: cut.length,
  };
}

function refusal(command: ScsiCommand, what: SenseCode): ScsiReply {
  return {
    status: ScsiStatus.checkCondition,
    sense: encodeSense(what, null, false),
    dataIn: [],
    wantedOutBytes: command.dataOut.length,
    wantedInBytes: 0,
  };
}
