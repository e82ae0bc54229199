/**
 * Task management (RFC 7143 §11.5, §11.6): which tasks a function ends, and when it is answered.
 *
 * A command that the device has begun cannot be recalled. Its answer is suppressed, and the function is answered once
 * none of the tasks it ended has effects any more. Tasks of other initiators are answered TASK ABORTED, so that nobody
 * waits for what will not come (SAM-5 5.6; control mode page TAS=1).
 */

import {
  cmdSnOf,
  encodeTaskManagementResponse,
  ittOf,
  lunOf,
  serialBefore,
  TaskManagementFunction,
  TaskManagementStatus,
  tagAt20,
  taskManagementFunctionOf,
} from './pdu.ts';
import type { Session } from './session.ts';
import type { Task } from './transfer.ts';

export function manageTasks(session: Session, request: Buffer): void {
  const { target, nexus } = session.identity;
  if (target === null) return;
  const lun = lunOf(request);
  const answer = (status: number) => respond(session, request, status);
  const isUnitWide = (task: Task) => task.pdu.lun.equals(lun);
  const anyTask = () => true;
  const fn = taskManagementFunctionOf(request);
  const needsUnit =
    fn >= TaskManagementFunction.abortTaskSet && fn <= TaskManagementFunction.logicalUnitReset;
  if (needsUnit && !target.device.lunExists(lun)) {
    answer(TaskManagementStatus.noSuchLun);
    return;
  }
  switch (fn) {
    case TaskManagementFunction.abortTask: {
      const task = session.findTask(tagAt20(request));
      if (task === undefined || !isUnitWide(task)) answer(TaskManagementStatus.noSuchTask);
      else session.abort(task, 'silent', () => answer(TaskManagementStatus.complete));
      return;
    }
    case TaskManagementFunction.abortTaskSet:
      endTasks(session, [session], request, isUnitWide, () => answer(TaskManagementStatus.complete));
      return;
    case TaskManagementFunction.clearTaskSet:
      endTasks(session, peersOf(session), request, isUnitWide, () => answer(TaskManagementStatus.complete));
      return;
    case TaskManagementFunction.logicalUnitReset:
      endTasks(session, peersOf(session), request, isUnitWide, () => {
        target.device.resetUnit(lun, nexus);
        answer(TaskManagementStatus.complete);
      });
      return;
    case TaskManagementFunction.targetWarmReset:
    case TaskManagementFunction.targetColdReset:
      endTasks(session, peersOf(session), request, anyTask, () => {
        target.device.resetTarget(nexus);
        answer(TaskManagementStatus.complete);
        if (fn === TaskManagementFunction.targetColdReset) {
          session.environment.disconnectPeers('target cold reset');
        }
      });
      return;
    case TaskManagementFunction.taskReassign:
      answer(TaskManagementStatus.reassignUnsupported);
      return;
    default:
      answer(TaskManagementStatus.unsupported);
  }
}

const peersOf = (session: Session): Session[] => [...session.environment.peers()];

/** Ends the tasks that came before the request; its own session's later ones are not meant (§11.5.1). */
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
    for (const task of [...each.tasksNow()]) {
      // An abort may have ended others on the way.
      if (task.state === 'gone' || !isMeant(task)) continue;
      if (isOwn && task.isNumbered && !serialBefore(task.cmdSn, cmdSnOf(request))) continue;
      waiting += 1;
      each.abort(task, isOwn ? 'silent' : 'task aborted', one);
    }
  }
  one();
}

function respond(session: Session, request: Buffer, status: number): void {
  const { outbox } = session.environment;
  const header = outbox.header();
  encodeTaskManagementResponse(outbox.slab, header, ittOf(request), session.numbering.next(), status);
  outbox.endEmpty(header);
}
