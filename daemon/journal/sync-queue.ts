/**
 * Group fdatasync: at most one under way, each covering every batch that was complete when it started. Whoever wants
 * a batch durable waits here.
 *
 * A failed fdatasync is final. The kernel may have marked the pages clean, so a second one would claim success for
 * data that is gone.
 */
import type { JournalFile } from './journal-file.ts';

export type SyncDone = (error: Error | null) => void;

interface Waiter {
  batch: number;
  done: SyncDone;
}

export class SyncQueue {
  /** Files with batches that are not durable, oldest first. */
  #dirty: JournalFile[] = [];
  /** In order of their batches: nobody waits for less than who came before. */
  #waiters: Waiter[] = [];
  #completedBatch: number;
  #durableBatch: number;
  #syncing = false;
  #failed: Error | null = null;
  readonly #onFailure: (error: Error) => void;

  /** Everything up to `durableBatch` is durable already. */
  constructor(durableBatch: number, onFailure: (error: Error) => void) {
    this.#completedBatch = durableBatch;
    this.#durableBatch = durableBatch;
    this.#onFailure = onFailure;
  }

  get durableBatch(): number {
    return this.#durableBatch;
  }

  get completedBatch(): number {
    return this.#completedBatch;
  }

  /** A batch has been handed to the operating system whole. */
  completed(file: JournalFile, batch: number): void {
    file.lastBatch = batch;
    this.#completedBatch = batch;
    if (this.#dirty.at(-1) !== file) this.#dirty.push(file);
  }

  /** Calls `done` (later, never from here) once every batch up to `batch` is durable. */
  whenDurable(batch: number, done: SyncDone): void {
    if (this.#failed || batch <= this.#durableBatch) {
      const failed = this.#failed;
      queueMicrotask(() => done(failed));
      return;
    }
    this.#waiters.push({ batch, done });
    this.#start();
  }

  /** Fails everybody who waits, now and later. */
  fail(error: Error): void {
    this.#failed ??= error;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.done(error);
  }

  #start(): void {
    if (this.#syncing || this.#failed || this.#waiters.length === 0) return;
    this.#syncing = true;
    const files = this.#dirty.slice();
    const lastBatches = files.map((file) => file.lastBatch);
    this.#syncFrom(files, lastBatches, 0, this.#completedBatch);
  }

  #syncFrom(files: JournalFile[], lastBatches: number[], index: number, target: number): void {
    const file = files[index];
    if (!file) {
      this.#finish(target);
      return;
    }
    file.handle.sync((error) => {
      if (error) {
        this.#syncing = false;
        this.#onFailure(error);
        return;
      }
      file.syncedBatch = lastBatches[index]!;
      this.#syncFrom(files, lastBatches, index + 1, target);
    });
  }

  #finish(target: number): void {
    this.#syncing = false;
    if (this.#failed) return;
    this.#durableBatch = target;
    this.#dirty = this.#dirty.filter((file) => file.lastBatch > file.syncedBatch);
    let served = 0;
    while (served < this.#waiters.length && this.#waiters[served]!.batch <= target) served += 1;
    const waiters = this.#waiters.splice(0, served);
    this.#start();
    for (const waiter of waiters) waiter.done(null);
  }
}
