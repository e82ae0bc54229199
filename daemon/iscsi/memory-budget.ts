/**
 * Limits on memory that all sessions have in common, shared so that none can take it from the others.
 *
 * Of the common part each session may hold as much as is free (dynamic thresholds, Choudhury and Hahne 1998). One that
 * asks for all it can get is given half; N of them get an (N+1)th each, and as much stays free for who comes next.
 * That is fair among those who give back. For the case that nobody does, a source has two bounds more: the most it may
 * hold, and a small part of a reserve that nobody else can take.
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

/** What the sessions of one source hold together: of the common budget, and of the reserve. */
export class SourceShare {
  /** The most it may hold of the common budget, in bytes. */
  limitBytes: number;
  heldBytes = 0;
  private readonly reserve: MemoryBudget;
  private readonly reservedLimitBytes: number;
  private reservedBytes = 0;

  /** `reservedLimitBytes`: while it holds less than that altogether, it may take from the reserve. */
  constructor(limitBytes: number, reserve: MemoryBudget, reservedLimitBytes: number) {
    this.limitBytes = limitBytes;
    this.reserve = reserve;
    this.reservedLimitBytes = reservedLimitBytes;
  }

  mayTakeCommon(bytes: number): boolean {
    return this.heldBytes - this.reservedBytes + bytes <= this.limitBytes;
  }

  mayTakeReserved(bytes: number): boolean {
    return this.heldBytes + bytes <= this.reservedLimitBytes && bytes <= this.reserve.freeBytes;
  }

  take(bytes: number, isReserved: boolean): void {
    this.heldBytes += bytes;
    if (!isReserved) return;
    this.reservedBytes += bytes;
    this.reserve.use(bytes);
  }

  /** The reserve gets its part first. Answers how much is the common budget's. */
  give(bytes: number): number {
    const fromReserve = Math.min(bytes, this.reservedBytes);
    this.heldBytes -= bytes;
    this.reservedBytes -= fromReserve;
    this.reserve.use(-fromReserve);
    return bytes - fromReserve;
  }
}

/** What one session holds of a budget. */
export class MemoryShare {
  private readonly budget: MemoryBudget;
  private readonly ofSource: SourceShare | null;
  heldBytes = 0;

  /** @param ofSource what several sessions have in common; null: nothing but the budget. */
  constructor(budget: MemoryBudget, ofSource: SourceShare | null = null) {
    this.budget = budget;
    this.ofSource = ofSource;
  }

  /** Who holds nothing may take whatever is there, so that the longest transfer is possible with a small limit too. */
  mayTake(bytes: number): boolean {
    return this.mayTakeCommon(bytes) || this.ofSource?.mayTakeReserved(bytes) === true;
  }

  private mayTakeCommon(bytes: number): boolean {
    const { freeBytes } = this.budget;
    if (this.ofSource?.mayTakeCommon(bytes) === false) return false;
    return bytes <= freeBytes && (this.heldBytes === 0 || this.heldBytes + bytes <= freeBytes);
  }

  /** What `mayTake` allows; where nobody asked it, the common budget may be exceeded. */
  take(bytes: number): void {
    const isReserved =
      this.ofSource !== null && !this.mayTakeCommon(bytes) && this.ofSource.mayTakeReserved(bytes);
    this.heldBytes += bytes;
    if (!isReserved) this.budget.use(bytes);
    this.ofSource?.take(bytes, isReserved);
  }

  give(bytes: number): void {
    this.heldBytes -= bytes;
    this.budget.use(-(this.ofSource?.give(bytes) ?? bytes));
    assert(this.heldBytes >= 0, 'memory is given back once');
  }

  /** All together hold twice what they should. */
  get isExhausted(): boolean {
    return this.budget.usedBytes >= 2 * this.budget.limitBytes;
  }

  /** It holds more than it would be given now. */
  get isOver(): boolean {
    return this.heldBytes > this.budget.freeBytes;
  }
}
