/** Who may change the extent map next: one at a time, the drain before background work. */
export class WriteTurns {
  private taken = false;
  private readonly urgent: (() => void)[] = [];
  private readonly background: (() => void)[] = [];

  /** Carries `work` out when its turn comes. */
  async run<Result>(priority: 'urgent' | 'background', work: () => Promise<Result>): Promise<Result> {
    if (this.taken) await new Promise<void>((resolve) => this[priority].push(resolve));
    this.taken = true;
    try {
      return await work();
    } finally {
      const next = this.urgent.shift() ?? this.background.shift();
      // The turn passes on without being free in between, so nobody can step in front of `next`.
      if (next) next();
      else this.taken = false;
    }
  }
}
