/** How the journal slows its writers as it fills: smoothly, so that they settle at the speed of the drain. */
import { assert } from '../base/assert.ts';
import type { Clock, Timer } from '../env/clock.ts';

/** Below this used fraction nobody is slowed. */
const slowdownStartFraction = 0.75;
/** The delay between two batches when the journal is full, in ms. With batches of 4 MiB: 160 MB/s. */
const maxBatchDelayMs = 25;
/** Shorter delays are saved up until a timer can keep them, in ms. */
const minTimerMs = 1;
/** The used fractions whose crossing, up or down, is told to `onPressure`. */
const pressureLevels: readonly number[] = [0.25, 0.5, 0.75, 0.9, 1];

assert(slowdownStartFraction < 1, 'there is room to slow down in');

/** Delay owed for one batch, in ms: the square makes its start gentle. */
function batchDelayMs(usedFraction: number): number {
  if (usedFraction <= slowdownStartFraction) return 0;
  const fill = Math.min(1, (usedFraction - slowdownStartFraction) / (1 - slowdownStartFraction));
  return fill * fill * maxBatchDelayMs;
}

/** How many of the levels have been reached. */
function pressureLevel(usedFraction: number): number {
  let level = 0;
  while (level < pressureLevels.length && usedFraction >= pressureLevels[level]!) level += 1;
  return level;
}

export class Throttle {
  readonly #clock: Clock;
  readonly #resume: () => void;
  readonly #onPressure: ((usedFraction: number) => void) | undefined;
  #level = 0;
  #owedMs = 0;
  #timer: Timer | null = null;
  #stopped = false;

  /** `resume` is called when a delay is over. */
  constructor(clock: Clock, resume: () => void, onPressure: ((usedFraction: number) => void) | undefined) {
    this.#clock = clock;
    this.#resume = resume;
    this.#onPressure = onPressure;
  }

  /** No batch is started while this holds. */
  get delaying(): boolean {
    return this.#timer !== null;
  }

  /** So much is used now. */
  used(usedFraction: number): void {
    const level = pressureLevel(usedFraction);
    if (level === this.#level) return;
    this.#level = level;
    this.#onPressure?.(usedFraction);
  }

  /** A batch has been written; so much is used now. */
  batchWritten(usedFraction: number): void {
    this.used(usedFraction);
    this.#owedMs += batchDelayMs(usedFraction);
    if (this.#stopped || this.#owedMs < minTimerMs) return;
    const delayMs = this.#owedMs;
    this.#owedMs = 0;
    this.#timer = this.#clock.after(delayMs, () => {
      this.#timer = null;
      this.#resume();
    });
  }

  /** No delays any more. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#timer = null;
  }
}
