/**
 * Commands that change what a unit keeps (PERSISTENT RESERVE OUT, MODE SELECT) are carried out one after another, in
 * the order they came: each decides on what the one before has made durable.
 */
import type { Task } from './task.ts';

/** Every registrant of a full unit may have one waiting; more are asked to come again (BUSY). */
const maxWaitingChanges = 512;

type Change = (finished: () => void) => void;

export class ChangeTurns {
  #isTaken = false;
  #waiting: { task: Task; change: Change }[] = [];

  /** Carries the change out when it is its turn, which it gives on by calling `finished`. */
  take(task: Task, change: Change): void {
    if (!this.#isTaken) this.#begin(change);
    else if (this.#waiting.length >= maxWaitingChanges) task.busy();
    else this.#waiting.push({ task, change });
  }

  /** Ends what these nexuses have waiting, without any effect. */
  abort(nexuses: readonly string[]): void {
    const isMeant = ({ task }: { task: Task }): boolean => nexuses.includes(task.nexus.name);
    const ended = this.#waiting.filter(isMeant);
    this.#waiting = this.#waiting.filter((waiting) => !isMeant(waiting));
    for (const { task } of ended) task.aborted();
  }

  #begin(change: Change): void {
    this.#isTaken = true;
    change(() => {
      this.#isTaken = false;
      const next = this.#waiting.shift();
      if (next !== undefined) this.#begin(next.change);
    });
  }
}
