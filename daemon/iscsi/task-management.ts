/**
 * Task management (RFC 7143 §4.2.3, §11.5, §11.6): which tasks a function ends, and when it is answered.
 *
 * A command that the device has begun cannot be recalled. Its answer is suppressed, and the function is answered once
 * none of the tasks it ended has effects any more. Tasks of other initiators are answered TASK ABORTED, so that nobody
 * waits for what will not come (SAM-5 5.6; control mode page TAS=1).
 *
 * Two waits of §4.2.3.3 are left out, because one initiator that says nothing would keep another from a reset. Data
 * asked for by R2T is not waited for: open-iscsi sends none once it has asked for an abort; what comes is dropped. Nor
 * is the acknowledgement of earlier answers: with one connection a session, TCP keeps them before this one.
 */

import { isSameUnit } from '../scsi/logical-unit-number.ts';
import {
  cmdSnOf,
  lunOf,
  refCmdSnOf,
  serialBefore,
  TaskManagementFunction,
  TaskManagementStatus,
  tagAt20,
  taskManagementFunctionOf,
} from './pdu.ts';
import type { Session } from './session.ts';
import type { TargetEntry } from './target-directory.ts';
import type { Task } from './transfer.ts';

type Answer = (status: number) => void;

/** Carries one request out; `answer` is called once. */
export function manageTasks(session: Session, request: Buffer, answer: Answer): void {
  const { target, nexus } = session.identity;
  if (target === null) return answer(TaskManagementStatus.unsupported);
  const fn = taskManagementFunctionOf(request);
  switch (fn) {
    case TaskManagementFunction.abortTask:
      return abortTask(session, request, answer);
    case TaskManagementFunction.abortTaskSet:
    case TaskManagementFunction.clearTaskSet:
    case TaskManagementFunction.logicalUnitReset:
      if (!target.device.lunExists(lunOf(request), nexus)) return answer(TaskManagementStatus.noSuchLun);
      // They mean every command before them, also what an immediate request has overtaken.
      return session.numbering.onceBefore(cmdSnOf(request), () =>
        manageUnit(session, target, request, answer),
      );
    case TaskManagementFunction.targetWarmReset:
    case TaskManagementFunction.targetColdReset:
      if (!target.device.mayResetTarget(nexus)) return answer(TaskManagementStatus.unauthorized);
      session.numbering.plugBefore(cmdSnOf(request));
      return resetTarget(session, target, request, answer);
    case TaskManagementFunction.taskReassign:
      return answer(TaskManagementStatus.reassignUnsupported);
    default:
      return answer(TaskManagementStatus.unsupported);
  }
}

/** §11.6.1 a to c. */
function abortTask(session: Session, request: Buffer, answer: Answer): void {
  const task = session.tasks?.find(tagAt20(request));
  const { numbering } = session;
  if (task !== undefined) {
    const isMeant = task.pdu.lun.equals(lunOf(request));
    if (isMeant) session.tasks!.abort(task, 'silent', () => answer(TaskManagementStatus.complete));
    else answer(TaskManagementStatus.rejected);
    return;
  }
  // Not here, and not answered: it is on its way, and will be ignored when it comes.
  const refCmdSn = refCmdSnOf(request);
  if (numbering.isInWindow(refCmdSn) && serialBefore(refCmdSn, cmdSnOf(request))) {
    numbering.plug(refCmdSn);
    answer(TaskManagementStatus.complete);
    return;
  }
  answer(TaskManagementStatus.noSuchTask);
}

/** The tasks of its own session that came after the request are not meant (§11.5.1). */
function isBefore(task: Task, request: Buffer): boolean {
  return !task.isNumbered || serialBefore(task.cmdSn, cmdSnOf(request));
}

function manageUnit(session: Session, { device }: TargetEntry, request: Buffer, answer: Answer): void {
  const lun = lunOf(request);
  const fn = taskManagementFunctionOf(request);
  const sessions = fn === TaskManagementFunction.abortTaskSet ? [session] : peersOf(session);
  endTasks(
    session,
    sessions,
    request,
    (task) => isSameUnit(task.pdu.lun, lun),
    () => {
      if (fn === TaskManagementFunction.logicalUnitReset) device.resetUnit(lun, session.identity.nexus);
      answer(TaskManagementStatus.complete);
    },
  );
}

function resetTarget(session: Session, { device }: TargetEntry, request: Buffer, answer: Answer): void {
  endTasks(
    session,
    peersOf(session),
    request,
    () => true,
    () => {
      device.resetTarget(session.identity.nexus);
      answer(TaskManagementStatus.complete);
      const isCold = taskManagementFunctionOf(request) === TaskManagementFunction.targetColdReset;
      if (isCold) session.environment.disconnectPeers('target cold reset');
    },
  );
}

const peersOf = (session: Session): Session[] => [...session.environment.peers()];

function endTasks(
  session: Session,
  sessions: readonly Session[],
  request: Buffer,
  isMeant: (task: Task) => boolean,
  done: () => void,
): void {
  let waiting = 1;
  const one = () => {
    waiting -= 1;
    if (waiting === 0) done();
  };
  for (const each of sessions) {
    const isOwn = each === session;
    for (const task of [...(each.tasks?.now() ?? [])]) {
      // An abort may have ended others on the way.
      if (task.state === 'gone' || !isMeant(task)) continue;
      if (isOwn && !isBefore(task, request)) continue;
      waiting += 1;
      each.tasks!.abort(task, isOwn ? 'silent' : 'task aborted', one);
    }
  }
  one();
}

/** PERSISTENT RESERVE OUT. */
const persistentReserveOut = 0x5f;

/**
 * Ends the tasks of some sessions with a logical unit because another nexus has preempted theirs (SPC-4 5.13.11.2.6);
 * `done` is called when none of them has effects any more. A PERSISTENT RESERVE OUT in the device goes on: it is the
 * one that asks, or one that might ask the same of it, and neither would ever end.
 */
export function preemptTasks(
  sessions: Iterable<Session>,
  lun: Buffer,
  fate: 'silent' | 'task aborted',
  done: () => void,
): void {
  let waiting = 1;
  const one = () => {
    waiting -= 1;
    if (waiting === 0) done();
  };
  for (const { tasks } of sessions) {
    for (const task of [...(tasks?.now() ?? [])]) {
      if (task.state === 'gone' || !isSameUnit(task.pdu.lun, lun)) continue;
      if (task.state === 'executing' && task.pdu.cdb[0] === persistentReserveOut) continue;
      waiting += 1;
      tasks!.abort(task, fate, one);
    }
  }
  one();
}
