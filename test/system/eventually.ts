import { setTimeout as delay } from 'node:timers/promises';

/**
 * Waits until `attempt` gives something other than undefined, null or false, and returns it. A failure counts as not
 * yet; the last one is told when the time is over.
 */
export async function eventually<Result>(
  what: string,
  limitMs: number,
  attempt: () => Result | Promise<Result>,
  pollMs = 100,
): Promise<NonNullable<Result>> {
  const endMs = performance.now() + limitMs;
  let reason: unknown = 'it never was so';
  for (;;) {
    try {
      const result = await attempt();
      if (result !== undefined && result !== null && (result as unknown) !== false) return result;
    } catch (error) {
      reason = error instanceof Error ? error.message : error;
    }
    if (performance.now() >= endMs) {
      throw new Error(`waited ${limitMs / 1000} s for this: ${what}; last: ${String(reason)}`);
    }
    await delay(pollMs);
  }
}
