/**
 * When a session's commands go to the device: in the order they became ready, as task attributes demand (SAM-5 8.6),
 * and within limits, so that one session neither fills the memory nor the device's queue while others wait.
 */
import { assert } from '../base/assert.ts';
import { KiB, MiB } from '../base/limits.ts';
import type { MemoryShare } from './memory-budget.ts';
import { serialBefore, TaskAttribute } from './pdu.ts';
import type { Task } from './transfer.ts';
import { largestTransferBytes } from './transfer-buffers.ts';

/**
 * Data of commands in the device, and data-in not sent yet, of one session, in bytes. It keeps the device busy (16
 * commands of 1 MiB), is all that a host that does not read costs, and all that others have in front of them.
 */
const movingLimitBytes = 16 * MiB;
assert(movingLimitBytes >= largestTransferBytes, 'any one command fits');

/** A READ up to that is begun however much memory others hold: with all sessions there can be, 1 GiB. */
const smallReadBytes = 256 * KiB;

/** Whether a task that came before this one has not ended; `amongOrdered`: of the ORDERED ones. */
type HasOlder = (task: Task, amongOrdered: boolean) => boolean;

export class ExecutionQueue {
  /** Tasks whose data is here and which wait for a limit or an ORDERED task, in order. */
  private readonly ready: Task[] = [];
  private readonly dataIn: MemoryShare;
  private readonly start: (task: Task) => void;
  private readonly refuse: (task: Task) => void;
  private readonly hasOlder: HasOlder;
  /** ORDERED tasks that have come and not ended, whether their data is here or not. */
  private orderedTasks = 0;
  /** In the device now. */
  executing = 0;
  private movingBytes = 0;
  private isOrderedRunning = false;
  private isStopped = false;

  /** `start` carries a task out; `refuse` ends one there is no memory for. */
  constructor(
    dataIn: MemoryShare,
    start: (task: Task) => void,
    refuse: (task: Task) => void,
    hasOlder: HasOlder,
  ) {
    this.dataIn = dataIn;
    this.start = start;
    this.refuse = refuse;
    this.hasOlder = hasOlder;
  }

  /** CmdSN's turn has come; `gone` follows. */
  delivered(task: Task): void {
    if (task.pdu.attribute === TaskAttribute.ordered) this.orderedTasks += 1;
  }

  /** It has ended, whichever way. */
  gone(task: Task): void {
    if (task.pdu.attribute === TaskAttribute.ordered) this.orderedTasks -= 1;
  }

  add(task: Task): void {
    if (this.ready.length === 0 && this.mayStart(task)) {
      this.begin(task);
      return;
    }
    this.ready.splice(this.placeOf(task), 0, task);
    this.startReady();
  }

  /** Around an ORDERED task, by CmdSN: the first of the queue then waits for none behind it, however late data came. */
  private placeOf(task: Task): number {
    if (task.pdu.attribute === TaskAttribute.headOfQueue) return 0;
    if (this.orderedTasks === 0) return this.ready.length;
    const younger = this.ready.findIndex(
      ({ pdu, cmdSn }) => pdu.attribute !== TaskAttribute.headOfQueue && serialBefore(task.cmdSn, cmdSn),
    );
    return younger < 0 ? this.ready.length : younger;
  }

  remove(task: Task): void {
    const index = this.ready.indexOf(task);
    if (index >= 0) this.ready.splice(index, 1);
  }

  /** The device has answered. Its data-in counts until `sent`. */
  ended(task: Task): void {
    this.executing -= 1;
    this.movingBytes -= outBytesOf(task);
    if (task.pdu.attribute === TaskAttribute.ordered) this.isOrderedRunning = false;
  }

  /** The data-in of an ended task has left, or will not. */
  sent(task: Task): void {
    const bytes = inBytesOf(task);
    this.movingBytes -= bytes;
    this.dataIn.give(bytes);
  }

  startReady(): void {
    while (!this.isStopped && this.ready.length > 0 && this.mayStart(this.ready[0]!)) {
      this.begin(this.ready.shift()!);
    }
  }

  /** Data-in that the initiator has not taken; not known while something is in the device. */
  get unsentBytes(): number {
    return this.executing === 0 ? this.dataIn.heldBytes : 0;
  }

  /** Starts nothing more. */
  stop(): void {
    this.isStopped = true;
  }

  private begin(task: Task): void {
    const inBytes = inBytesOf(task);
    if (inBytes > smallReadBytes && this.dataIn.heldBytes === 0 && this.dataIn.isExhausted) {
      this.refuse(task);
      return;
    }
    this.executing += 1;
    this.movingBytes += inBytes + outBytesOf(task);
    this.dataIn.take(inBytes);
    if (task.pdu.attribute === TaskAttribute.ordered) this.isOrderedRunning = true;
    this.start(task);
  }

  private mayStart(task: Task): boolean {
    const { attribute } = task.pdu;
    if (attribute !== TaskAttribute.headOfQueue && this.orderedTasks > 0) {
      const isOrdered = attribute === TaskAttribute.ordered;
      if (this.isOrderedRunning || (isOrdered && this.executing > 0)) return false;
      if (this.hasOlder(task, !isOrdered)) return false;
    }
    const inBytes = inBytesOf(task);
    if (this.movingBytes + inBytes + outBytesOf(task) > movingLimitBytes && this.movingBytes > 0)
      return false;
    // One at a time it always gets: nothing but the end of its own commands would call it again.
    return inBytes === 0 || this.dataIn.heldBytes === 0 || this.dataIn.mayTake(inBytes);
  }
}

/** Whether `other` came before `task` and is still to be ended. */
export function isOlder(other: Task, task: Task): boolean {
  return other !== task && other.isDelivered && serialBefore(other.cmdSn, task.cmdSn);
}

/** What a command counts for against the limits. */
function inBytesOf(task: Task): number {
  return Math.min(task.inBytes, largestTransferBytes);
}

function outBytesOf(task: Task): number {
  return Math.min(task.outBytes, largestTransferBytes);
}
