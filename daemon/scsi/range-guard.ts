/**
 * Keeps other commands out of a range while a command works on it in several steps.
 *
 * The device carries out overlapping operations in the order they were called in; that is enough for a command that
 * is one operation. COMPARE AND WRITE, ORWRITE, WRITE AND VERIFY and WRITE SAME take several, and nobody may
 * change the range between them. WRITE ATOMIC is one, but nobody may see a part of it. They `hold` their range; every
 * other change, and every READ, that overlaps a held range waits its turn.
 * A READ that is in the device when a range is to be held is waited for: it may show some blocks as before a change and
 * others as after, and then would have seen a part. Reads are counted by generations, so that those that come later,
 * which cannot overlap, do not delay it.
 * While nothing is held, `idle` is true and a command may go straight to the device: the hot path pays one comparison,
 * and a READ counting up and down.
 * Who waits is a command in flight, so the queue is bounded by the transport's command window.
 */
import { assert } from '../base/assert.ts';

interface Waiter {
  offsetBytes: number;
  endBytes: number;
  exclusive: boolean;
  start: (release: () => void) => void;
}

/** READs that came between two holds. */
interface Generation {
  inFlight: number;
  /** Called, and forgotten, when there are none. */
  readonly whenOver: (() => void)[];
}

const nothing = (): void => {};

export class RangeGuard {
  readonly #held = new Set<Waiter>();
  #waiting: Waiter[] = [];
  #reads: Generation = { inFlight: 0, whenOver: [] };
  /** Earlier ones that are not over. */
  readonly #earlierReads = new Set<Generation>();

  /** Nothing is held, so nobody waits. */
  get idle(): boolean {
    return this.#held.size === 0;
  }

  /** Calls `start` at once, or when no held range overlaps. For a command that is one call of the device. */
  change(offsetBytes: number, lengthBytes: number, start: () => void): void {
    this.#enter({ offsetBytes, endBytes: offsetBytes + lengthBytes, exclusive: false, start });
  }

  /** To be called when a READ goes to the device; `readEnded` gets what it returns. */
  readBegins(): Generation {
    this.#reads.inFlight += 1;
    return this.#reads;
  }

  readEnded(generation: Generation): void {
    generation.inFlight -= 1;
    if (generation.inFlight > 0 || generation === this.#reads) return;
    this.#earlierReads.delete(generation);
    for (const tell of generation.whenOver) tell();
  }

  /**
   * Calls `start` when no held range overlaps and the READs before it have ended, and keeps the range until it calls
   * `release`.
   */
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
    const release = (): void => {
      assert(this.#held.delete(waiter), 'a held range is released once');
      this.#admit();
    };
    this.#afterReads(() => waiter.start(release));
  }

  #afterReads(go: () => void): void {
    if (this.#reads.inFlight > 0) {
      this.#earlierReads.add(this.#reads);
      this.#reads = { inFlight: 0, whenOver: [] };
    }
    let waiting = this.#earlierReads.size;
    if (waiting === 0) return go();
    const oneOver = (): void => {
      waiting -= 1;
      if (waiting === 0) go();
    };
    for (const { whenOver } of this.#earlierReads) whenOver.push(oneOver);
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
