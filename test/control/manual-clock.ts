import type { Clock, Timer } from '../../daemon/env/clock.ts';

/** Time that passes when the test says so. The wall clock can jump by itself. */
export class ManualClock implements Clock {
  #monotonicMs = 1_000;
  #wallMs: number;
  readonly #timers = new Set<{ atMs: number; fire: () => void }>();

  constructor(wall = '2026-11-01T00:00:00.000Z') {
    this.#wallMs = Date.parse(wall);
  }

  nowMs(): number {
    return this.#wallMs;
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  after(delayMs: number, fire: () => void): Timer {
    const timer = { atMs: this.#monotonicMs + delayMs, fire };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  /** Both clocks go on; timers that come due fire, each at its time. */
  pass(seconds: number): void {
    const endMs = this.#monotonicMs + seconds * 1000;
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#advance(Math.max(0, due.atMs - this.#monotonicMs));
      due.fire();
    }
    this.#advance(endMs - this.#monotonicMs);
  }

  jumpWall(seconds: number): void {
    this.#wallMs += seconds * 1000;
  }

  get timers(): number {
    return this.#timers.size;
  }

  #advance(byMs: number): void {
    this.#monotonicMs += byMs;
    this.#wallMs += byMs;
  }
}
