/** The healthy session beside the fuzzer: a thread of its own, so that what it measures is the target and not us. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

export interface HealthyOptions {
  port: number;
  iqn: string;
  chap: { user: string; secret: string } | null;
  sizeBytes: number;
  seed: number;
  /** Between a write with its read and the next. */
  pauseMs: number;
}

export interface HealthReport {
  operations: number;
  slowestMs: number;
  p99Ms: number;
  /** The error, wrong byte or lost connection it ended on. */
  complaint: string | null;
}

/** The thread reads its whole volume once more before it ends. */
const endLimitMs = 60_000;

export class HealthySession {
  readonly #worker: Worker;
  #last: HealthReport = { operations: 0, slowestMs: 0, p99Ms: 0, complaint: null };
  #isOver = false;

  constructor(options: HealthyOptions) {
    this.#worker = new Worker(new URL('./healthy-worker.ts', import.meta.url), { workerData: options });
    this.#worker.on('message', (report: HealthReport) => {
      this.#last = report;
    });
    this.#worker.on('error', (error) => {
      this.#last.complaint ??= String(error);
    });
    this.#worker.on('exit', () => {
      this.#isOver = true;
    });
  }

  async report(): Promise<HealthReport> {
    if (!this.#isOver) {
      const told = once(this.#worker, 'message');
      this.#worker.postMessage('report');
      await Promise.race([told, once(this.#worker, 'exit')]);
    }
    return this.#last;
  }

  /** After it has read everything it wrote. */
  async end(): Promise<HealthReport> {
    if (!this.#isOver) {
      const timer = setTimeout(() => void this.#worker.terminate(), endLimitMs);
      const ended = once(this.#worker, 'exit');
      this.#worker.postMessage('end');
      await ended;
      clearTimeout(timer);
    }
    return this.#last;
  }
}
