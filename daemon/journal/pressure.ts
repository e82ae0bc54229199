/** How the journal slows its writers as it fills: smoothly, so that they settle at the speed of the drain. */
import { assert } from '../base/assert.ts';

/** Below this used fraction nobody is slowed. */
export const slowdownStartFraction = 0.75;
/** The delay between two batches when the journal is full, in ms. With batches of 4 MiB: 160 MB/s. */
export const maxBatchDelayMs = 25;
/** Shorter delays are saved up until a timer can keep them, in ms. */
export const minTimerMs = 1;
/** The used fractions whose crossing, up or down, is told to `onPressure`. */
export const pressureLevels: readonly number[] = [0.25, 0.5, 0.75, 0.9, 1];

assert(slowdownStartFraction < 1, 'there is room to slow down in');

/** Delay owed for one batch, in ms: the square makes its start gentle. */
export function batchDelayMs(usedFraction: number): number {
  if (usedFraction <= slowdownStartFraction) return 0;
  const fill = Math.min(1, (usedFraction - slowdownStartFraction) / (1 - slowdownStartFraction));
  return fill * fill * maxBatchDelayMs;
}

/** How many of the levels have been reached. */
export function pressureLevel(usedFraction: number): number {
  let level = 0;
  while (level < pressureLevels.length && usedFraction >= pressureLevels[level]!) level += 1;
  return level;
}
