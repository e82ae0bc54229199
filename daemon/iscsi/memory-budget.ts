/**
 * A limit on memory that all sessions have in common, shared so that none can take it from the others: each may hold
 * as much as is free (dynamic thresholds, Choudhury and Hahne 1998). One that asks for all it can get is given half;
 * N of them get an (N+1)th each, and as much stays free for who comes next.
 */
import { assert } from '../base/assert.ts';

export class MemoryBudget {
  readonly limitBytes: number;
  usedBytes = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get freeBytes(): number {
    return this.limitBytes - this.usedBytes;
  }

  /** Negative: given back. */
  use(bytes: number): void {
    this.usedBytes += bytes;
  }
}

/** What one session holds of a budget. */
export class MemoryShare {
  private readonly budget: MemoryBudget;
  private readonly ofSource: MemoryBudget | null;
  heldBytes = 0;

  /** @param ofSource a part of the budget that several sessions have in common; null: all of it. */
  constructor(budget: MemoryBudget, ofSource: MemoryBudget | null = null) {
    this.budget = budget;
    this.ofSource = ofSource;
  }

  /** Who holds nothing may take whatever is there, so that the longest transfer is possible with a small limit too. */
  mayTake(bytes: number): boolean {
    const { freeBytes } = this.budget;
    if (this.ofSource !== null && bytes > this.ofSource.freeBytes) return false;
    return bytes <= freeBytes && (this.heldBytes === 0 || this.heldBytes + bytes <= freeBytes);
  }

  take(bytes: number): void {
    this.heldBytes += bytes;
    this.budget.use(bytes);
    this.ofSource?.use(bytes);
  }

  give(bytes: number): void {
    this.heldBytes -= bytes;
    this.budget.use(-bytes);
    this.ofSource?.use(-bytes);
    assert(this.heldBytes >= 0, 'memory is given back once');
  }

  /** It holds more than it would be given now. */
  get isOver(): boolean {
    return this.heldBytes > this.budget.freeBytes;
  }
}
