/** One command on its way through the device server, and the ways it can end. It replies exactly once. */
import { assert } from '../base/assert.ts';
import { type ScsiCommand, type ScsiReply, ScsiStatus } from './command.ts';
import type { FindUnit } from './copy/extended-copy.ts';
import type { LogicalUnit, UnitNexus } from './logical-unit.ts';
import type { ReservationAccess } from './reservation-state.ts';
import {
  type CdbField,
  type DeviceOperation,
  encodeSense,
  type SenseCode,
  sense,
  senseOfError,
} from './sense.ts';
import type { Transfer } from './unit-statistics.ts';

/** Of user data; a command that did not end well has transferred none. */
function transferredBytes(transfer: Transfer, reply: ScsiReply): number {
  if (transfer === null || reply.status !== ScsiStatus.good) return 0;
  if (transfer === 'write') return reply.wantedOutBytes;
  let bytes = 0;
  for (const piece of reply.dataIn) bytes += piece.length;
  return bytes;
}

/** One row of the command table (command-table.ts). */
export interface CommandEntry {
  readonly name: string;
  readonly opcode: number;
  /** The five bits of CDB byte 1 that tell commands of one opcode apart; null when the opcode is one command. */
  readonly serviceAction: number | null;
  /**
   * The bits of the CDB that are evaluated, one byte each, opcode first (SPC-4 6.35.3 CDB USAGE DATA); its length is
   * the CDB's. A command that sets any other bit is refused with INVALID FIELD IN CDB.
   */
  readonly usage: Uint8Array;
  readonly access: ReservationAccess;
  /** What it counts as in the unit's statistics. */
  readonly transfer: Transfer;
  /** Refused while the control page's SWP is set. */
  readonly writes: boolean;
  readonly handler: (task: Task) => void;
}

/** What commands about the target as a whole need to know. */
export interface TargetFacts {
  readonly commands: readonly CommandEntry[];
  /** Numbers of the logical units this nexus may know of, in order. */
  lunNumbers(nexus: string): number[];
  /** Relative target port identifiers, in order. */
  ports(): readonly number[];
  /** See DeviceServerOptions.abortTasks. */
  readonly abortTasks: ((nexus: string, lun: Buffer, done: () => void) => void) | null;
  /** See DeviceServerOptions.name. */
  readonly name: string | null;
  /** A logical unit of this target, or of another, that copies may use. */
  readonly findUnit: FindUnit;
}

const noData: readonly Buffer[] = [];

export class Task {
  readonly command: ScsiCommand;
  readonly cdb: Buffer;
  readonly unit: LogicalUnit;
  readonly nexus: UnitNexus;
  readonly target: TargetFacts;
  /** What it counts as, once that is known. */
  transfer: Transfer = null;
  readonly #beganMs: number;
  readonly #done: (reply: ScsiReply) => void;
  #replied = false;

  constructor(
    command: ScsiCommand,
    unit: LogicalUnit,
    nexus: UnitNexus,
    target: TargetFacts,
    done: (reply: ScsiReply) => void,
  ) {
    this.command = command;
    this.cdb = command.cdb;
    this.unit = unit;
    this.nexus = nexus;
    this.target = target;
    this.#done = done;
    nexus.inFlight += 1;
    this.#beganMs = unit.statistics.begins();
  }

  /** GOOD without data-in. `wantedOutBytes`: how much data-out the CDB asked for. */
  good(wantedOutBytes = 0): void {
    this.#reply({ status: ScsiStatus.good, sense: null, dataIn: noData, wantedOutBytes, wantedInBytes: 0 });
  }

  /** CONDITION MET (PRE-FETCH). */
  conditionMet(): void {
    this.#end(ScsiStatus.conditionMet, null);
  }

  /** GOOD, with data-in the initiator has no room for at all. */
  goodWithoutRoom(wantedInBytes: number): void {
    this.#reply({ status: ScsiStatus.good, sense: null, dataIn: noData, wantedOutBytes: 0, wantedInBytes });
  }

  /** GOOD with a data-in of the CDB's own transfer length, in a pooled buffer. */
  goodWithPooled(pooled: Buffer, dataBytes: number, wantedInBytes: number): void {
    const data = dataBytes === pooled.length ? pooled : pooled.subarray(0, dataBytes);
    const buffers = this.unit.buffers;
    this.#reply({
      status: ScsiStatus.good,
      sense: null,
      dataIn: [data],
      wantedOutBytes: 0,
      wantedInBytes,
      release: () => buffers.give(pooled),
    });
  }

  /** GOOD with parameter data, cut at the CDB's allocation length (SPC-4 4.2.5.6). */
  parameterData(data: Buffer, allocationLengthBytes: number): void {
    const cut = data.length > allocationLengthBytes ? data.subarray(0, allocationLengthBytes) : data;
    this.#reply({
      status: ScsiStatus.good,
      sense: null,
      dataIn: cut.length === 0 ? noData : [cut],
      wantedOutBytes: 0,
      wantedInBytes: cut.length,
    });
  }

  /** CHECK CONDITION. */
  check(what: SenseCode, information: number | null = null, field: CdbField | null = null): void {
    const { descriptorSense } = this.unit.control;
    this.#end(ScsiStatus.checkCondition, encodeSense(what, information, descriptorSense, field));
  }

  /** CHECK CONDITION with sense data that says more than a code. */
  checkWith(senseData: Buffer): void {
    this.#end(ScsiStatus.checkCondition, senseData);
  }

  /** CHECK CONDITION for what the device said. */
  failed(error: Error, operation: DeviceOperation): void {
    const { code, information } = senseOfError(error, operation);
    this.check(code, information);
  }

  /** INVALID FIELD IN CDB, with the byte of the field that is wrong and its left-most bit when they are known. */
  invalidField(byte: number | null = null, bit: number | null = null): void {
    this.check(sense.invalidFieldInCdb, null, byte === null ? null : { byte, bit });
  }

  /** BUSY: to be sent again later. */
  busy(): void {
    this.#end(ScsiStatus.busy, null);
  }

  /** TASK ABORTED: it was ended before it had any effect. */
  aborted(): void {
    this.#end(ScsiStatus.taskAborted, null);
  }

  conflict(): void {
    this.#end(ScsiStatus.reservationConflict, null);
  }

  /** All data-out that came counts as wanted: a refused command has no residual to report. */
  #end(status: ScsiStatus, senseData: Buffer | null): void {
    const wantedOutBytes = this.command.dataOut.length;
    this.#reply({ status, sense: senseData, dataIn: noData, wantedOutBytes, wantedInBytes: 0 });
  }

  #reply(reply: ScsiReply): void {
    assert(!this.#replied, 'a command replies once');
    this.#replied = true;
    const { nexus, transfer } = this;
    this.unit.statistics.ended(transfer, this.#beganMs, transferredBytes(transfer, reply));
    nexus.inFlight -= 1;
    this.#done(reply);
    if (nexus.inFlight === 0 && nexus.whenIdle.length > 0) {
      const waiting = nexus.whenIdle;
      nexus.whenIdle = [];
      for (const waiter of waiting) waiter();
    }
  }
}
