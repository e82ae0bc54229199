/** Operations on one thing, one after another: what is done to the data path follows the order of the records. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Runs `operation` when everything asked for before on `key` has ended, well or not. */
  async take<Result>(key: string, operation: () => Promise<Result>): Promise<Result> {
    const before = this.#last.get(key) ?? Promise.resolve();
    const mine = before.then(operation, operation);
    this.#last.set(key, mine);
    try {
      return await mine;
    } finally {
      if (this.#last.get(key) === mine) this.#last.delete(key);
    }
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#last.size > 0) await Promise.allSettled(this.#last.values());
  }
}
