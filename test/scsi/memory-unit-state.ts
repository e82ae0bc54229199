/** Keeps a unit's state in memory for tests: it can be slow, and it can fail. */
import type { WeftError } from '../../daemon/base/errors.ts';
import type { UnitState, UnitStateStore } from '../../daemon/scsi/unit-state-store.ts';

export class MemoryUnitState {
  /** What is durable. */
  durable: UnitState | null = null;
  saves = 0;
  /** While set, saves fail with it; the state is the one before. */
  failure: WeftError | null = null;
  /** While true, saves wait for `release`. */
  paused = false;
  #waiting: (() => void)[] = [];

  /** As a unit sees it that comes online now. */
  open(): UnitStateStore {
    return {
      load: () => structuredClone(this.durable),
      save: (state, done) => {
        const finish = (): void => {
          this.saves += 1;
          if (this.failure === null) this.durable = structuredClone(state);
          done(this.failure);
        };
        if (this.paused) this.#waiting.push(finish);
        else setImmediate(finish);
      },
    };
  }

  /** How many saves wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  release(): void {
    this.paused = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const finish of waiting) finish();
  }
}
