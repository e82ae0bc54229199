/**
 * What a logical unit was asked for since it came online, for LOG SENSE (primary/log-pages.ts). On the way of every
 * command: two looks at the clock and a few sums.
 */
import { sectorSizeBytes } from '../base/limits.ts';

/** What a command counts as; null: neither. */
export type Transfer = 'read' | 'write' | null;

interface Sums {
  commands: number;
  blocks: number;
  /** From when the device server had them to their answers. They overlap. */
  processingMs: number;
}

export class UnitStatistics {
  readonly read: Sums = { commands: 0, blocks: 0, processingMs: 0 };
  readonly write: Sums = { commands: 0, blocks: 0, processingMs: 0 };
  readonly #monotonicMs: () => number;
  #inFlight = 0;
  #idleMs = 0;
  #idleSinceMs: number;

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs;
    this.#idleSinceMs = monotonicMs();
  }

  /** A command of whatever kind has come. Answers when, for `ended`. */
  begins(): number {
    const nowMs = this.#monotonicMs();
    if (this.#inFlight === 0) this.#idleMs += nowMs - this.#idleSinceMs;
    this.#inFlight += 1;
    return nowMs;
  }

  /** `bytes`: of user data that were transferred. */
  ended(transfer: Transfer, beganMs: number, bytes: number): void {
    const nowMs = this.#monotonicMs();
    this.#inFlight -= 1;
    if (this.#inFlight === 0) this.#idleSinceMs = nowMs;
    if (transfer === null) return;
    const sums = transfer === 'read' ? this.read : this.write;
    sums.commands += 1;
    sums.blocks += Math.floor(bytes / sectorSizeBytes);
    sums.processingMs += nowMs - beganMs;
  }

  /** Time without any command. */
  get idleMs(): number {
    return this.#idleMs + (this.#inFlight === 0 ? this.#monotonicMs() - this.#idleSinceMs : 0);
  }
}
