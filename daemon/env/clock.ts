/** Time as the fabric sees it. Nothing below the composition root asks the machine for it. */
export interface Clock {
  /** Wall clock, in ms since the Unix epoch. For records and leases; may jump. */
  nowMs(): number;
  /** A clock that only rises, in ms. For durations. */
  monotonicMs(): number;
  /** Calls `fire` once after `delayMs`. The timer keeps no process alive. */
  after(delayMs: number, fire: () => void): Timer;
}

export interface Timer {
  cancel(): void;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, fire) {
    const handle = setTimeout(fire, delayMs);
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
};
