/**
 * What a logical unit knows of the copies its nexuses asked for, by their list identifiers (SPC-4 5.17.4): those under
 * way, and of those that ended what RECEIVE COPY RESULTS tells, until the identifier is used again, or the nexus is gone.
 * An identifier has one byte, so there are 256 a nexus at most.
 */

export interface CopyJob {
  state: 'running' | 'done' | 'failed';
  segmentsProcessed: number;
  copiedBytes: number;
  /** Why it failed; null when it did not. */
  sense: Buffer | null;
}

export class CopyJobs {
  readonly #byNexus = new Map<string, Map<number, CopyJob>>();
  /** By nexus: segments that are being copied from or to this unit, by commands sent to whichever. */
  readonly #visits = new Set<{ nexus: string; whenOver: (() => void)[] }>();
  #running = 0;

  get running(): number {
    return this.#running;
  }

  /** A new copy; `listId` null: it is known by no identifier. Null when a copy with that one is under way. */
  begin(nexus: string, listId: number | null): CopyJob | null {
    const job: CopyJob = { state: 'running', segmentsProcessed: 0, copiedBytes: 0, sense: null };
    if (listId !== null) {
      const jobs = this.#byNexus.get(nexus) ?? new Map<number, CopyJob>();
      if (jobs.get(listId)?.state === 'running') return null;
      jobs.set(listId, job);
      this.#byNexus.set(nexus, jobs);
    }
    this.#running += 1;
    return job;
  }

  end(job: CopyJob, sense: Buffer | null): void {
    job.state = sense === null ? 'done' : 'failed';
    job.sense = sense;
    this.#running -= 1;
  }

  find(nexus: string, listId: number): CopyJob | null {
    return this.#byNexus.get(nexus)?.get(listId) ?? null;
  }

  forget(nexus: string, listId: number): void {
    this.#byNexus.get(nexus)?.delete(listId);
  }

  forgetNexus(nexus: string): void {
    this.#byNexus.delete(nexus);
  }

  /** A segment is copied from or to this unit; to be called when that is over. */
  visit(nexus: string): () => void {
    const visit = { nexus, whenOver: [] as (() => void)[] };
    this.#visits.add(visit);
    return () => {
      this.#visits.delete(visit);
      for (const tell of visit.whenOver) tell();
    };
  }

  /** Resolves when what these nexuses have copied from or to this unit now is over: for who takes it from them. */
  async visitsOver(isMeant: (nexus: string) => boolean): Promise<void> {
    const visits = [...this.#visits].filter(({ nexus }) => isMeant(nexus));
    await Promise.all(visits.map(({ whenOver }) => new Promise<void>((resolve) => whenOver.push(resolve))));
  }

  /** Of all nexuses, for a reset; those under way end by themselves. */
  forgetAll(): void {
    this.#byNexus.clear();
  }
}
