/**
 * Keeps other commands out of a range while a command works on it in several steps.
 *
 * The device carries out overlapping operations in the order they were called in; that is enough for a command that
 * is one operation. COMPARE AND WRITE, ORWRITE, WRITE AND VERIFY and WRITE SAME take several, and nobody may
 * change the range between them. WRITE ATOMIC is one, but nobody may see a part of it. They `hold` their range; every
 * other change, and every READ, that overlaps a held range waits its turn.
 * While nothing is held, `idle` is true and a command may go straight to the device: the hot path pays one comparison.
 * Who waits is a command in flight, so the queue is bounded by the transport's command window.
 */
import { assert } from '../base/assert.ts';

interface Waiter {
  offsetBytes: number;
  endBytes: number;
  exclusive: boolean;
  start: (release: () => void) => void;
}

const nothing = (): void => {};

export class RangeGuard {
  readonly #held = new Set<Waiter>();
  #waiting: Waiter[] = [];

  /** Nothing is held, so nobody waits. */
  get idle(): boolean {
    return this.#held.size === 0;
  }

  /** Calls `start` at once, or when no held range overlaps. For a command that is one call of the device. */
  change(offsetBytes: number, lengthBytes: number, start: () => void): void {
    this.#enter({ offsetBytes, endBytes: offsetBytes + lengthBytes, exclusive: false, start });
  }

  /** Calls `start` when no held range overlaps, and keeps the range until it calls `release`. */
  hold(offsetBytes: number, lengthBytes: number, start: (release: () => void) => void): void {
    this.#enter({ offsetBytes, endBytes: offsetBytes + lengthBytes, exclusive: true, start });
  }

  #enter(waiter: Waiter): void {
    if (this.#overlapsHeld(waiter) || this.#waiting.some((earlier) => overlap(earlier, waiter))) {
      this.#waiting.push(waiter);
    } else {
      this.#begin(waiter);
    }
  }

  #begin(waiter: Waiter): void {
    if (!waiter.exclusive) {
      waiter.start(nothing);
      return;
    }
    this.#held.add(waiter);
    waiter.start(() => {
      assert(this.#held.delete(waiter), 'a held range is released once');
      this.#admit();
    });
  }

  /** First come, first served among those that overlap. */
  #admit(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const waiter of waiting) this.#enter(waiter);
  }

  #overlapsHeld(waiter: Waiter): boolean {
    for (const held of this.#held) if (overlap(held, waiter)) return true;
    return false;
  }
}

function overlap(a: Waiter, b: Waiter): boolean {
  return a.offsetBytes < b.endBytes && b.offsetBytes < a.endBytes;
}
