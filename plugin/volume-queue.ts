/**
 * One operation of a volume at a time, in the order they came; different volumes do not wait for each other. A caller
 * waits for a bounded time only: then it is told what it waited for, and the operation goes on by itself.
 */
import { WeftError } from '../daemon/base/errors.ts';

/** More waiting operations of one volume mean that something repeats them without end. */
const maxWaitingPerVolume = 64;

/** An operation while it runs. */
export interface Job {
  /** What it does now, for whoever waits: "attaching the device". */
  step: string;
  /** Nobody waits for it any more: it must leave nothing behind that only a waiting caller would take away. */
  abandoned: boolean;
}

interface Line {
  jobs: Job[];
  tail: Promise<unknown>;
}

export class VolumeQueue {
  readonly #lines = new Map<string, Line>();

  /** How many operations of the volume wait behind the one that runs. */
  waiting(volume: string): number {
    return Math.max(0, (this.#lines.get(volume)?.jobs.length ?? 0) - 1);
  }

  get busy(): boolean {
    return this.#lines.size > 0;
  }

  /** Resolves when nothing runs and nothing waits. */
  async idle(): Promise<void> {
    while (this.#lines.size > 0) await Promise.allSettled([...this.#lines.values()].map((line) => line.tail));
  }

  /** @throws WeftError UNAVAILABLE when too many wait already; whatever the work throws. */
  run<Result>(volume: string, job: Job, work: (job: Job) => Promise<Result>): Promise<Result> {
    const line = this.#lines.get(volume) ?? { jobs: [], tail: Promise.resolve() };
    if (line.jobs.length >= maxWaitingPerVolume) {
      return Promise.reject(
        new WeftError(
          'UNAVAILABLE',
          `${line.jobs.length} operations wait for volume ${volume}; the first is ${line.jobs[0]?.step}`,
        ),
      );
    }
    this.#lines.set(volume, line);
    line.jobs.push(job);
    const done = line.tail.then(() => work(job));
    line.tail = done
      .catch(() => {})
      .then(() => {
        line.jobs.shift();
        if (line.jobs.length === 0) this.#lines.delete(volume);
      });
    return done;
  }

  /**
   * The same for a caller who waits at most `limitMs`.
   * @throws WeftError TIMEOUT naming the step that was waited for; the job is then abandoned.
   */
  async runBounded<Result>(
    volume: string,
    limitMs: number,
    abandon: AbortSignal,
    work: (job: Job) => Promise<Result>,
  ): Promise<Result> {
    const job: Job = { step: 'starting', abandoned: false };
    const done = this.run(volume, job, work);
    done.catch(() => {});
    let timer: NodeJS.Timeout | undefined;
    let onAbort: (() => void) | undefined;
    const ranOut = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        job.abandoned = true;
        const running = this.#lines.get(volume)?.jobs[0] ?? job;
        const what = running === job ? job.step : `an earlier operation (${running.step})`;
        reject(
          new WeftError(
            'TIMEOUT',
            `volume ${volume}: waited ${limitMs / 1000} s for ${what}; it goes on in the background, try again`,
          ),
        );
      }, limitMs);
      onAbort = () => {
        job.abandoned = true;
        reject(new WeftError('TIMEOUT', `volume ${volume}: the caller went away during ${job.step}`));
      };
      if (abandon.aborted) onAbort();
      else abandon.addEventListener('abort', onAbort, { once: true });
    });
    try {
      return await Promise.race([done, ranOut]);
    } finally {
      clearTimeout(timer);
      if (onAbort !== undefined) abandon.removeEventListener('abort', onAbort);
    }
  }
}
