/**
 * The full-feature phase of a session with its one connection (RFC 7143 §4.2.2, §11): numbering, the tasks and their
 * data, and the PDUs that go with them. Error recovery level 0: what cannot be carried on ends the connection, and the
 * initiator logs in again.
 *
 * Commands reach the device in the order of their CmdSN, each once its data-out is here. Three limits hold one
 * initiator back: the command window, the transfer buffers (TASK SET FULL), and the data-in under way.
 */
import { assert } from '../base/assert.ts';
import { MiB } from '../base/limits.ts';
import { type ScsiReply, ScsiStatus } from '../scsi/command.ts';
import type { SessionParameters } from './negotiation.ts';
import { Numbering } from './numbering.ts';
import type { Outbox } from './outbox.ts';
import {
  AsyncEvent,
  bufferOffsetOf,
  cmdSnOf,
  commandReads,
  commandWrites,
  decodeScsiCommand,
  encodeAsyncMessage,
  encodeLogoutResponse,
  encodeNopIn,
  encodeR2t,
  encodeReject,
  encodeTextResponse,
  expectedBytesOf,
  isContinued,
  isFinal,
  isImmediate,
  ittOf,
  logoutReasonOf,
  noTag,
  Opcode,
  opcodeOf,
  RejectReason,
  serialBefore,
  TaskAttribute,
  tagAt20,
} from './pdu.ts';
import type { TargetEntry } from './target-directory.ts';
import { manageTasks } from './task-management.ts';
import type { TextExchange } from './text.ts';
import { checkCondition, type Failure, sendFailure, sendReply, Task, TransportSense } from './transfer.ts';
import { largestTransferBytes, type TransferBuffers } from './transfer-buffers.ts';

/** Immediate commands a session may have outstanding beside the window; they are for task management. */
const immediateLimit = 32;
/** Data-in asked for and not sent, in bytes, so that a host that does not read costs no more memory than that. */
const dataInLimitBytes = 64 * MiB;
assert(dataInLimitBytes >= largestTransferBytes, 'any one command fits');

export interface SessionEnvironment {
  readonly outbox: Outbox;
  readonly pool: TransferBuffers;
  /** All sessions with the same target, this one among them. */
  peers(): Iterable<Session>;
  /** Ends the connection once what is in the outbox is sent. */
  disconnect(reason: string): void;
  /** Ends every connection of the target (TARGET COLD RESET). */
  disconnectPeers(reason: string): void;
}

export interface SessionIdentity {
  initiatorName: string;
  isid: string;
  nexus: string;
  /** Of the portal it logged in at, which is also the relative identifier of that target port. */
  portalGroupTag: number;
  /** Null in a discovery session. */
  target: TargetEntry | null;
}

export class Session {
  readonly identity: SessionIdentity;
  readonly parameters: SessionParameters;
  readonly environment: SessionEnvironment;
  private readonly text: TextExchange;
  private readonly tasks = new Map<number, Task>();
  /** Tasks whose data is here and which wait for a limit or an ORDERED task, oldest first. */
  private readonly ready: Task[] = [];
  readonly numbering: Numbering;
  private immediateTasks = 0;
  private executing = 0;
  private isOrderedRunning = false;
  private dataInBytes = 0;
  private nextTtt = 0;
  /** The place promised for the immediate data of the command PDU that is arriving. */
  private earlyBuffer: Buffer | null = null;
  private isClosed = false;
  private isLoggingOut = false;
  private readonly idleWatchers: (() => void)[] = [];

  constructor(
    identity: SessionIdentity,
    parameters: SessionParameters,
    environment: SessionEnvironment,
    text: TextExchange,
    numbers: { statSn: number; cmdSn: number },
  ) {
    this.identity = identity;
    this.parameters = parameters;
    this.environment = environment;
    this.text = text;
    this.numbering = new Numbering(numbers.statSn, numbers.cmdSn);
  }

  // What arrives

  /** Where the data of a PDU whose header is here shall land (see `PduSink.place`). */
  place(bhs: Buffer, lengthBytes: number): Buffer | null {
    if (this.isClosed || this.isLoggingOut || this.identity.target === null) return null;
    if (opcodeOf(bhs) === Opcode.dataOut) {
      const task = this.tasks.get(ittOf(bhs));
      if (task === undefined || task.buffer === null || task.failure !== null) return null;
      if (task.flawOf(bhs, this.parameters) !== null) return null;
      task.isLanding = true;
      const offset = bufferOffsetOf(bhs);
      return task.buffer.subarray(offset, offset + lengthBytes);
    }
    if (opcodeOf(bhs) !== Opcode.scsiCommand || !commandWrites(bhs) || commandReads(bhs)) return null;
    const expectedBytes = expectedBytesOf(bhs);
    if (expectedBytes < lengthBytes || expectedBytes > largestTransferBytes) return null;
    this.earlyBuffer = this.environment.pool.take(expectedBytes);
    return this.earlyBuffer?.subarray(0, lengthBytes) ?? null;
  }

  /** Takes one PDU. `data` is the caller's after the return, unless `placed`. */
  take(bhs: Buffer, data: Buffer, placed: boolean): void {
    if (this.isClosed) return;
    const opcode = opcodeOf(bhs);
    const isDiscovery = this.identity.target === null;
    if (this.isLoggingOut || (isDiscovery && !discoveryOpcodes.has(opcode))) {
      this.reject(bhs, RejectReason.protocolError);
      return;
    }
    switch (opcode) {
      case Opcode.scsiCommand:
        this.takeCommand(bhs, data, placed);
        return;
      case Opcode.dataOut:
        this.takeDataOut(bhs, data, placed);
        return;
      case Opcode.nopOut:
        this.takeNopOut(bhs, data);
        return;
      case Opcode.taskManagement: {
        const request = Buffer.from(bhs);
        this.numbering.inTurn(bhs, () => manageTasks(this, request));
        return;
      }
      case Opcode.text:
        this.takeText(bhs, data);
        return;
      case Opcode.logout:
        this.takeLogout(bhs);
        return;
      case Opcode.snack:
        this.reject(bhs, RejectReason.snack);
        return;
      case Opcode.login:
        // Only a new connection logs in (§6.3).
        this.reject(bhs, RejectReason.protocolError);
        this.environment.disconnect('a login request in the full-feature phase');
        return;
      default:
        this.reject(bhs, RejectReason.commandNotSupported);
        // It took a CmdSN, or later commands would wait for it for ever.
        if (!isImmediate(bhs) && this.numbering.isNext(cmdSnOf(bhs))) this.numbering.inTurn(bhs, () => {});
    }
  }

  reject(bhs: Buffer, reason: number): void {
    const { outbox } = this.environment;
    const header = outbox.header();
    encodeReject(outbox.slab, header, this.numbering.next(), reason);
    outbox.end(header, Buffer.from(bhs), null);
  }

  private takeCommand(bhs: Buffer, data: Buffer, placed: boolean): void {
    const buffer = this.earlyBuffer;
    this.earlyBuffer = null;
    const numbered = !isImmediate(bhs);
    const drop = () => {
      if (buffer !== null) this.environment.pool.give(buffer);
    };
    if (numbered && !this.numbering.isInWindow(cmdSnOf(bhs))) {
      drop();
      return;
    }
    if (this.tasks.has(ittOf(bhs))) {
      drop();
      this.reject(bhs, RejectReason.taskInProgress);
      if (numbered) this.numbering.inTurn(bhs, () => {});
      return;
    }
    if (!numbered && this.immediateTasks >= immediateLimit) {
      drop();
      this.reject(bhs, RejectReason.tooManyImmediate);
      return;
    }
    const task = new Task(decodeScsiCommand(bhs), cmdSnOf(bhs), numbered);
    task.buffer = buffer;
    this.tasks.set(task.pdu.itt, task);
    if (!numbered) this.immediateTasks += 1;
    task.failure = task.begin(data.length, this.parameters) ?? this.provideBuffer(task);
    if (task.failure === null && data.length > 0 && !placed) data.copy(task.buffer!, 0);
    this.numbering.inTurn(bhs, () => {
      // It may have been aborted while it waited for its turn.
      if (task.state === 'gone') return;
      if (numbered) this.numbering.outstanding += 1;
      task.isDelivered = true;
      this.proceed(task);
    });
  }

  private provideBuffer(task: Task): Failure | null {
    if (task.outBytes === 0 || task.buffer !== null) return null;
    if (task.outBytes > largestTransferBytes) return checkCondition(TransportSense.invalidCommandUnit);
    task.buffer = this.environment.pool.take(task.outBytes);
    return task.buffer === null ? { status: ScsiStatus.taskSetFull, sense: null } : null;
  }

  private takeDataOut(bhs: Buffer, data: Buffer, placed: boolean): void {
    const task = this.tasks.get(ittOf(bhs));
    // Of a task that has been aborted meanwhile: expected, and of no use.
    if (task === undefined || task.state !== 'collecting') return;
    task.isLanding = false;
    if (task.failure === null) {
      const flaw = task.flawOf(bhs, this.parameters);
      if (flaw === null) {
        if (!placed) data.copy(task.buffer!, bufferOffsetOf(bhs));
        task.advance(bhs);
        this.proceed(task);
        return;
      }
      // §11.17.1: rejected, and answered once the initiator has sent what it was going to send.
      task.failure = flaw;
      this.reject(bhs, RejectReason.protocolError);
    }
    task.closeSequence(bhs);
    this.proceed(task);
  }

  /** Takes a task as far as it can go now: asks for data, fails it, or hands it to the device. */
  private proceed(task: Task): void {
    if (!task.isDelivered || task.state !== 'collecting') return;
    if (!task.isDataHere) {
      this.askForData(task);
      return;
    }
    task.state = 'ready';
    if (task.failure !== null) {
      this.remove(task);
      sendFailure(this.environment.outbox, this.numbering, task, task.failure);
      this.startReady();
      return;
    }
    if (this.ready.length === 0 && this.mayStart(task)) {
      this.execute(task);
      return;
    }
    this.ready.push(task);
    this.startReady();
  }

  private askForData(task: Task): void {
    const { outbox } = this.environment;
    for (;;) {
      const ttt = this.nextTtt;
      const asked = task.ask(ttt, this.parameters);
      if (asked === null) return;
      this.nextTtt = ttt === noTag - 1 ? 0 : ttt + 1;
      const header = outbox.header();
      encodeR2t(outbox.slab, header, task.pdu.itt, this.numbering.current(), {
        lun: task.pdu.lun,
        ttt,
        r2tSn: task.r2tCount - 1,
        offset: asked.offset,
        lengthBytes: asked.lengthBytes,
      });
      outbox.endEmpty(header);
    }
  }

  // Execution

  private mayStart(task: Task): boolean {
    const { attribute } = task.pdu;
    if (attribute === TaskAttribute.headOfQueue) return true;
    if (this.isOrderedRunning) return false;
    if (attribute === TaskAttribute.ordered && (this.executing > 0 || this.hasOlder(task))) return false;
    return this.dataInBytes + inBytesOf(task) <= dataInLimitBytes;
  }

  private hasOlder(task: Task): boolean {
    for (const other of this.tasks.values()) {
      if (other !== task && other.isDelivered && serialBefore(other.cmdSn, task.cmdSn)) return true;
    }
    return false;
  }

  private startReady(): void {
    while (this.ready.length > 0 && this.mayStart(this.ready[0]!)) this.execute(this.ready.shift()!);
  }

  private execute(task: Task): void {
    const { target, nexus, portalGroupTag: port } = this.identity;
    assert(target !== null, 'commands belong to a target');
    task.state = 'executing';
    this.executing += 1;
    this.dataInBytes += inBytesOf(task);
    if (task.pdu.attribute === TaskAttribute.ordered) this.isOrderedRunning = true;
    const { lun, cdb } = task.pdu;
    const dataOut = task.buffer ?? noData;
    const command = { lun, cdb, dataOut, expectedInBytes: task.inBytes, nexus, port };
    target.device.execute(command, (reply) => this.executed(task, reply));
  }

  private executed(task: Task, reply: ScsiReply): void {
    assert(task.state === 'executing', 'a command is answered once');
    this.executing -= 1;
    if (task.pdu.attribute === TaskAttribute.ordered) this.isOrderedRunning = false;
    this.remove(task);
    const { outbox } = this.environment;
    if (task.fate === 'answered' && !this.isClosed) {
      this.settleDataIn(task, reply);
      sendReply(outbox, this.numbering, this.parameters, task, reply);
    } else {
      this.dataInBytes -= inBytesOf(task);
      reply.release?.();
      if (task.fate === 'task aborted' && !this.isClosed)
        sendFailure(outbox, this.numbering, task, taskAborted);
    }
    if (this.ready.length > 0) this.startReady();
    if (this.isClosed && this.executing === 0) this.becomeIdle();
  }

  /** Data-in counts against the limit until it has been sent. */
  private settleDataIn(task: Task, reply: ScsiReply): void {
    const bytes = inBytesOf(task);
    if (bytes === 0) return;
    const { release } = reply;
    reply.release = () => {
      this.dataInBytes -= bytes;
      release?.();
      if (this.ready.length > 0 && !this.isClosed) this.startReady();
    };
  }

  /** Takes a task off the books; its tag and its place in the window are free again. */
  private remove(task: Task): void {
    task.state = 'gone';
    this.tasks.delete(task.pdu.itt);
    if (!task.isNumbered) this.immediateTasks -= 1;
    else if (task.isDelivered) this.numbering.outstanding -= 1;
    const { buffer } = task;
    task.buffer = null;
    if (buffer !== null) {
      if (task.isLanding) this.environment.pool.forget(buffer);
      else this.environment.pool.give(buffer);
    }
    if (task.watchers !== null) for (const watcher of task.watchers) watcher();
  }

  // Aborting (see task-management.ts)

  *tasksNow(): Iterable<Task> {
    yield* this.tasks.values();
  }

  findTask(itt: number): Task | undefined {
    return this.tasks.get(itt);
  }

  /** Ends a task without an answer, or with TASK ABORTED; `done` is called when it has no effects any more. */
  abort(task: Task, fate: 'silent' | 'task aborted', done: () => void): void {
    if (task.state === 'executing') {
      // What the device has begun cannot be recalled. Silence wins over TASK ABORTED.
      if (task.fate !== 'silent') task.fate = fate;
      task.watchers ??= [];
      task.watchers.push(done);
      return;
    }
    const index = this.ready.indexOf(task);
    if (index >= 0) this.ready.splice(index, 1);
    this.remove(task);
    if (fate === 'task aborted' && !this.isClosed) {
      sendFailure(this.environment.outbox, this.numbering, task, taskAborted);
    }
    done();
    if (!this.isClosed) this.startReady();
  }

  // NOP, text, logout, asynchronous messages

  private takeNopOut(bhs: Buffer, data: Buffer): void {
    const itt = ittOf(bhs);
    // The answer to a ping of ours; it has been heard, which is all we wanted.
    if (itt === noTag) return;
    const echoed = Buffer.from(data.subarray(0, this.parameters.initiatorMaxDataBytes));
    this.numbering.inTurn(bhs, () => {
      const { outbox } = this.environment;
      const header = outbox.header();
      encodeNopIn(outbox.slab, header, itt, this.numbering.next(), noTag);
      if (echoed.length > 0) outbox.end(header, echoed, null);
      else outbox.endEmpty(header);
    });
  }

  /** Asks the initiator for a sign of life. */
  ping(): void {
    const { outbox } = this.environment;
    const header = outbox.header();
    encodeNopIn(outbox.slab, header, noTag, this.numbering.current(), 0);
    outbox.endEmpty(header);
  }

  private takeText(bhs: Buffer, data: Buffer): void {
    const request = Buffer.from(bhs);
    const text = Buffer.from(data);
    this.numbering.inTurn(bhs, () => {
      const reply = this.text.next(tagAt20(request), isFinal(request), isContinued(request), text);
      if (reply === null) {
        this.reject(request, RejectReason.protocolError);
        return;
      }
      const { outbox } = this.environment;
      const header = outbox.header();
      encodeTextResponse(outbox.slab, header, ittOf(request), this.numbering.next(), reply);
      if (reply.text.length > 0) outbox.end(header, reply.text, null);
      else outbox.endEmpty(header);
    });
  }

  private takeLogout(bhs: Buffer): void {
    const request = Buffer.from(bhs);
    this.numbering.inTurn(bhs, () => {
      const reason = logoutReasonOf(request);
      if (reason !== logoutCloseSession && reason !== logoutCloseConnection) {
        // Removing a connection for recovery needs error recovery level 2 (§11.14.1).
        this.answerLogout(request, 2);
        return;
      }
      this.isLoggingOut = true;
      this.abortAll(() => {
        if (this.isClosed) return;
        this.answerLogout(request, 0);
        this.environment.disconnect('logout');
      });
    });
  }

  private answerLogout(request: Buffer, response: number): void {
    const { outbox } = this.environment;
    const header = outbox.header();
    encodeLogoutResponse(outbox.slab, header, ittOf(request), this.numbering.next(), response);
    outbox.endEmpty(header);
  }

  /** Tells the initiator to log out within that time, for instance because the daemon ends. */
  requestLogout(withinSeconds: number): void {
    const { outbox } = this.environment;
    const header = outbox.header();
    const parameters = [0, 0, Math.min(withinSeconds, 0xffff)] as const;
    encodeAsyncMessage(outbox.slab, header, this.numbering.next(), AsyncEvent.requestLogout, parameters);
    outbox.endEmpty(header);
  }

  // The end

  private abortAll(done: () => void): void {
    const all = [...this.tasks.values()];
    let waiting = 1;
    const one = () => {
      waiting -= 1;
      if (waiting === 0) done();
    };
    for (const task of all) {
      if (task.state === 'gone') continue;
      waiting += 1;
      this.abort(task, 'silent', one);
    }
    one();
  }

  /** The connection is gone, or about to be: nothing more is taken or answered. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.numbering.close();
    if (this.earlyBuffer !== null) {
      this.environment.pool.forget(this.earlyBuffer);
      this.earlyBuffer = null;
    }
    this.abortAll(() => {});
    if (this.executing === 0) this.becomeIdle();
  }

  private isIdle = false;

  /** Everything that had begun has ended, so the nexus can be called lost. */
  private becomeIdle(): void {
    if (this.isIdle) return;
    this.isIdle = true;
    this.identity.target?.device.nexusLost(this.identity.nexus);
    for (const watcher of this.idleWatchers) watcher();
  }

  /** Calls `done` when the session is closed and none of its commands runs any more. */
  whenIdle(done: () => void): void {
    if (this.isIdle) done();
    else this.idleWatchers.push(done);
  }
}

const noData = Buffer.alloc(0);
const taskAborted: Failure = { status: ScsiStatus.taskAborted, sense: null };
const discoveryOpcodes: ReadonlySet<number> = new Set([
  Opcode.nopOut,
  Opcode.text,
  Opcode.logout,
  Opcode.login,
]);
const logoutCloseSession = 0;
const logoutCloseConnection = 1;

/** What a command counts for against the data-in limit. */
function inBytesOf(task: Task): number {
  return Math.min(task.inBytes, largestTransferBytes);
}
