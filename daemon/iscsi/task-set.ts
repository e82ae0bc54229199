/**
 * The SCSI commands of one session: what arrives for them, what is asked for, what goes to the device and what is
 * answered (RFC 7143 §4.2.5, §11.3, §11.7, §11.8).
 *
 * Commands reach the device in the order of their CmdSN, each once its data-out is here. Three limits hold one
 * initiator back: the command window, the transfer buffers (TASK SET FULL), and what moves at once (execution-queue).
 */
import { assert } from '../base/assert.ts';
import { type ScsiReply, ScsiStatus } from '../scsi/command.ts';
import { ExecutionQueue, isOlder } from './execution-queue.ts';
import type { MemoryShare } from './memory-budget.ts';
import type { MemoryUse } from './memory-pressure.ts';
import type { SessionParameters } from './negotiation.ts';
import type { Numbering } from './numbering.ts';
import type { Outbox } from './outbox.ts';
import {
  bufferOffsetOf,
  cmdSnOf,
  commandReads,
  commandWrites,
  decodeScsiCommand,
  encodeR2t,
  expectedBytesOf,
  isImmediate,
  ittOf,
  noTag,
  Opcode,
  opcodeOf,
  RejectReason,
  TaskAttribute,
} from './pdu.ts';
import type { ScsiDevice } from './target-directory.ts';
import { checkCondition, type Failure, sendFailure, sendReply, Task, TransportSense } from './transfer.ts';
import { largestTransferBytes, type SessionBuffers } from './transfer-buffers.ts';

/** Immediate commands a session may have outstanding beside the window. */
const immediateLimit = 32;

/** What the commands of a session need of it. */
export interface TaskSetEnvironment {
  readonly device: ScsiDevice;
  readonly nexus: string;
  /** RELATIVE TARGET PORT IDENTIFIER. */
  readonly port: number;
  readonly numbering: Numbering;
  readonly parameters: SessionParameters;
  readonly buffers: SessionBuffers;
  readonly dataIn: MemoryShare;
  reject(bhs: Buffer, reason: number): void;
  /** There was no memory for a command's data-in. */
  refused(): void;
  /** The last command has ended after `close`. */
  idle(): void;
}

export class TaskSet {
  private readonly environment: TaskSetEnvironment;
  private readonly tasks = new Map<number, Task>();
  private readonly queue: ExecutionQueue;
  /** Of the connection there is now. */
  private outbox: Outbox;
  private immediateTasks = 0;
  private nextTtt = 0;
  /** Counts `tick`s, the age of tasks. */
  private ticks = 0;
  /** The place promised for the immediate data of the command PDU that is arriving. */
  private earlyBuffer: Buffer | null = null;
  /** See `memoryUse`. */
  private movedBytes = 0;
  private earlyLookedAt: Buffer | null = null;
  private landedAtLook = 0;
  private unsentAtLook = 0;
  private isClosed = false;

  constructor(environment: TaskSetEnvironment, outbox: Outbox) {
    this.environment = environment;
    this.outbox = outbox;
    this.queue = new ExecutionQueue(
      environment.dataIn,
      (task) => this.execute(task),
      (task) => this.refuse(task),
      (task, amongOrdered) => this.hasOlder(task, amongOrdered),
    );
  }

  /** The connection is another; nothing is under way. */
  use(outbox: Outbox): void {
    assert(this.tasks.size === 0, 'no task survives its connection');
    this.outbox = outbox;
  }

  // What arrives

  /** Where the data of a PDU whose header is here shall land (see `PduSink.place`). */
  place(bhs: Buffer, lengthBytes: number): Buffer | null {
    if (opcodeOf(bhs) === Opcode.dataOut) {
      const task = this.tasks.get(ittOf(bhs));
      if (task === undefined || task.buffer === null || task.failure !== null) return null;
      if (task.flawOf(bhs, this.environment.parameters) !== null) return null;
      task.isLanding = true;
      const offset = bufferOffsetOf(bhs);
      return task.buffer.subarray(offset, offset + lengthBytes);
    }
    if (opcodeOf(bhs) !== Opcode.scsiCommand || !commandWrites(bhs) || commandReads(bhs)) return null;
    const expectedBytes = expectedBytesOf(bhs);
    if (expectedBytes < lengthBytes || expectedBytes > largestTransferBytes) return null;
    this.earlyBuffer = this.takeBuffer(expectedBytes);
    return this.earlyBuffer?.subarray(0, lengthBytes) ?? null;
  }

  takeCommand(bhs: Buffer, data: Buffer, placed: boolean): void {
    const { numbering, parameters } = this.environment;
    const buffer = this.earlyBuffer;
    this.earlyBuffer = null;
    const numbered = !isImmediate(bhs);
    if (numbered && !numbering.isInWindow(cmdSnOf(bhs))) {
      if (buffer !== null) this.giveBuffer(buffer);
      return;
    }
    const flaw = this.flawOf(bhs, numbered);
    if (flaw !== null) {
      if (buffer !== null) this.giveBuffer(buffer);
      this.environment.reject(bhs, flaw);
      // It took a CmdSN, or later commands would wait for it for ever.
      if (numbered) numbering.inTurn(bhs, () => {});
      return;
    }
    const task = new Task(decodeScsiCommand(bhs), cmdSnOf(bhs), numbered);
    task.buffer = buffer;
    task.tick = this.ticks;
    this.movedBytes += data.length;
    this.tasks.set(task.pdu.itt, task);
    if (!numbered) this.immediateTasks += 1;
    task.failure = task.begin(data.length, parameters) ?? this.provideBuffer(task);
    if (task.failure === null && data.length > 0 && !placed) data.copy(task.buffer!, 0);
    numbering.inTurn(bhs, () => {
      // It may have been aborted while it waited for its turn.
      if (task.state === 'gone') return;
      if (numbered) numbering.outstanding += 1;
      task.isDelivered = true;
      this.queue.delivered(task);
      this.proceed(task);
    });
  }

  /** The reason to reject a command that is in the window, or null. */
  private flawOf(bhs: Buffer, numbered: boolean): number | null {
    if (ittOf(bhs) === noTag) return RejectReason.invalidField;
    if (this.tasks.has(ittOf(bhs))) return RejectReason.taskInProgress;
    if (!numbered && this.immediateTasks >= immediateLimit) return RejectReason.tooManyImmediate;
    return null;
  }

  private provideBuffer(task: Task): Failure | null {
    if (task.outBytes === 0 || task.buffer !== null) return null;
    if (task.outBytes > largestTransferBytes) return checkCondition(TransportSense.invalidCommandUnit);
    task.buffer = this.takeBuffer(task.outBytes);
    return task.buffer === null ? taskSetFull : null;
  }

  takeDataOut(bhs: Buffer, data: Buffer, placed: boolean): void {
    const task = this.tasks.get(ittOf(bhs));
    // Of a task that has been aborted meanwhile: expected, and of no use.
    if (task === undefined || task.state !== 'collecting') return;
    task.isLanding = false;
    task.tick = this.ticks;
    if (task.failure === null) {
      const flaw = task.flawOf(bhs, this.environment.parameters);
      if (flaw === null) {
        if (!placed) data.copy(task.buffer!, bufferOffsetOf(bhs));
        task.advance(bhs);
        this.movedBytes += data.length;
        this.proceed(task);
        return;
      }
      // §11.17.1: rejected, and answered once the initiator has sent what it was going to send.
      task.failure = flaw;
      this.environment.reject(bhs, RejectReason.protocolError);
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
      this.fail(task, task.failure);
      this.queue.startReady();
      return;
    }
    this.queue.add(task);
  }

  private askForData(task: Task): void {
    const { numbering, parameters } = this.environment;
    for (;;) {
      const ttt = this.nextTtt;
      const asked = task.ask(ttt, parameters);
      if (asked === null) return;
      this.nextTtt = ttt === noTag - 1 ? 0 : ttt + 1;
      const header = this.outbox.header();
      encodeR2t(this.outbox.slab, header, task.pdu.itt, numbering.current(), {
        lun: task.pdu.lun,
        ttt,
        r2tSn: task.r2tCount - 1,
        offset: asked.offset,
        lengthBytes: asked.lengthBytes,
      });
      this.outbox.endEmpty(header);
    }
  }

  // Execution

  private hasOlder(task: Task, amongOrdered: boolean): boolean {
    for (const other of this.tasks.values()) {
      if (amongOrdered && other.pdu.attribute !== TaskAttribute.ordered) continue;
      if (isOlder(other, task)) return true;
    }
    return false;
  }

  private refuse(task: Task): void {
    this.remove(task);
    this.fail(task, taskSetFull);
    this.environment.refused();
    this.queue.startReady();
  }

  private execute(task: Task): void {
    const { device, nexus, port } = this.environment;
    task.state = 'executing';
    const { lun, cdb } = task.pdu;
    const dataOut = task.buffer ?? noData;
    const command = { lun, cdb, dataOut, expectedInBytes: task.inBytes, nexus, port, request: task };
    device.execute(command, (reply) => this.executed(task, reply));
  }

  private executed(task: Task, reply: ScsiReply): void {
    assert(task.state === 'executing', 'a command is answered once');
    const { numbering, parameters } = this.environment;
    const { queue, outbox } = this;
    queue.ended(task);
    if (task.fate === 'answered' && !this.isClosed) {
      this.remove(task);
      this.settleDataIn(task, reply);
      sendReply(outbox, numbering, parameters, task, reply);
    } else {
      queue.sent(task);
      reply.release?.();
      this.remove(task);
      if (task.fate === 'task aborted') this.fail(task, taskAborted);
    }
    this.tellWatchers(task);
    queue.startReady();
    if (this.isClosed && queue.executing === 0) this.environment.idle();
  }

  /** Data-in counts against the limits until it has been sent. */
  private settleDataIn(task: Task, reply: ScsiReply): void {
    if (task.inBytes === 0) return;
    const { release } = reply;
    reply.release = () => {
      this.queue.sent(task);
      this.movedBytes += task.inBytes;
      release?.();
      this.queue.startReady();
    };
  }

  private fail(task: Task, failure: Failure): void {
    if (!this.isClosed) sendFailure(this.outbox, this.environment.numbering, task, failure);
  }

  /** Takes a task off the books; its tag and its place in the window are free again. */
  private remove(task: Task): void {
    task.state = 'gone';
    this.tasks.delete(task.pdu.itt);
    if (task.isDelivered) this.queue.gone(task);
    if (!task.isNumbered) this.immediateTasks -= 1;
    else if (task.isDelivered) this.environment.numbering.outstanding -= 1;
    const { buffer } = task;
    task.buffer = null;
    if (buffer === null) return;
    if (task.isLanding) this.forgetBuffer(buffer);
    else this.giveBuffer(buffer);
  }

  private tellWatchers(task: Task): void {
    const { watchers } = task;
    task.watchers = null;
    if (watchers !== null) for (const watcher of watchers) watcher();
  }

  // Buffers: who holds more than its share gets no further room in its window

  private takeBuffer(bytes: number): Buffer | null {
    const { buffers, numbering } = this.environment;
    const buffer = buffers.take(bytes);
    numbering.isHeld = buffers.isOver;
    return buffer;
  }

  private giveBuffer(buffer: Buffer): void {
    const { buffers, numbering } = this.environment;
    buffers.give(buffer);
    numbering.isHeld = buffers.isOver;
  }

  private forgetBuffer(buffer: Buffer): void {
    const { buffers, numbering } = this.environment;
    buffers.forget(buffer);
    numbering.isHeld = buffers.isOver;
  }

  // Aborting (see task-management.ts)

  *now(): Iterable<Task> {
    yield* this.tasks.values();
  }

  find(itt: number): Task | undefined {
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
    this.queue.remove(task);
    this.remove(task);
    if (fate === 'task aborted') this.fail(task, taskAborted);
    done();
    this.queue.startReady();
  }

  /** Ends all of them silently. */
  abortAll(done: () => void): void {
    let waiting = 1;
    const one = () => {
      waiting -= 1;
      if (waiting === 0) done();
    };
    for (const task of [...this.tasks.values()]) {
      if (task.state === 'gone') continue;
      waiting += 1;
      this.abort(task, 'silent', one);
    }
    one();
  }

  /**
   * Called at a steady pace; answers whether data of some command, or a command before it, has been waited for since
   * `sinceTicks` calls ago without any of it coming.
   */
  tick(sinceTicks: number): boolean {
    this.ticks += 1;
    for (const task of this.tasks.values()) {
      if (task.state === 'collecting' && this.ticks - task.tick > sinceTicks) return true;
    }
    return false;
  }

  /**
   * See `MemoryPressure`. Memory waits for the initiator while a command's data is to come, or its turn, and when a
   * command cannot begin because nothing is in the device and the initiator does not take what it was sent; and what
   * it does not take.
   * @param landedBytes of the data segment that is landing.
   */
  memoryUse(landedBytes: number): MemoryUse {
    const { earlyBuffer } = this;
    const isBlocked = this.queue.executing === 0;
    const { unsentBytes } = this.queue;
    let waitingBytes = Math.min(unsentBytes, this.unsentAtLook);
    this.unsentAtLook = unsentBytes;
    if (earlyBuffer !== null && earlyBuffer === this.earlyLookedAt) waitingBytes += earlyBuffer.length;
    for (const task of this.tasks.values()) {
      if (task.buffer === null || task.state === 'executing') continue;
      if (task.state === 'ready' && !isBlocked) continue;
      if (task.isLookedAt) waitingBytes += task.buffer.length;
      task.isLookedAt = true;
    }
    const movedBytes = this.movedBytes + Math.max(0, landedBytes - this.landedAtLook);
    this.movedBytes = 0;
    this.earlyLookedAt = earlyBuffer;
    this.landedAtLook = landedBytes;
    return { waitingBytes, movedBytes };
  }

  /** What was promised to the connection that is gone; bytes may still be landing there. */
  forgetLanding(): void {
    if (this.earlyBuffer !== null) this.forgetBuffer(this.earlyBuffer);
    this.earlyBuffer = null;
  }

  /** Nothing more is taken, started or answered. `idle` is told when nothing runs any more. */
  close(): void {
    this.isClosed = true;
    this.queue.stop();
    this.forgetLanding();
    this.abortAll(() => {});
    if (this.queue.executing === 0) this.environment.idle();
  }
}

const noData = Buffer.alloc(0);
const taskSetFull: Failure = { status: ScsiStatus.taskSetFull, sense: null };
const taskAborted: Failure = { status: ScsiStatus.taskAborted, sense: null };
