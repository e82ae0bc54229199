/**
 * The embedded control store: one SQLite file, kept by a worker thread so that its fdatasync never stops the I/O
 * thread. Other processes may read the file; only one opens it to write (the data directory's lock sees to it), so
 * watchers hear of everything.
 */
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { type ErrorCode, WeftError } from '../base/errors.ts';
import type {
  ControlChange,
  ControlDocument,
  ControlStore,
  ControlTransaction,
  DamagedDocument,
} from './control-store.ts';
import { assertKey, asText } from './control-text.ts';
import type { WorkerAnswer, WorkerCall } from './sqlite-control-worker.ts';
import { Watchers } from './watchers.ts';

/** Calls waiting for the worker. More means the disk below has stopped, and more waiting does not help. */
const maxWaitingCalls = 10_000;

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

/**
 * Opens or creates the file.
 * @throws WeftError FORMAT_TOO_NEW, CORRUPT, NO_SPACE, IO_ERROR.
 */
export async function openSqliteControlStore(filename: string): Promise<ControlStore> {
  const store = new SqliteControlStore(filename);
  try {
    await store.open();
  } catch (error) {
    await store.close();
    throw error;
  }
  return store;
}

class SqliteControlStore implements ControlStore {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #watchers = new Watchers();
  readonly #exited: Promise<void>;
  #nextCallId = 1;
  #closing: Promise<void> | null = null;
  /** Why the worker ended by itself. */
  #fault: WeftError | null = null;

  constructor(filename: string) {
    const program = new URL(`./sqlite-control-worker${extname(import.meta.filename)}`, import.meta.url);
    this.#worker = new Worker(program, { workerData: { filename } });
    this.#worker.on('message', (answer: WorkerAnswer) => this.#settle(answer));
    this.#worker.on('error', (cause) => {
      this.#fault = new WeftError('INTERNAL', `the control store's worker failed: ${String(cause)}`, {
        cause,
      });
    });
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        const error = this.#fault ?? closedError();
        for (const waiting of this.#waiting.values()) waiting.reject(error);
        this.#waiting.clear();
        resolve();
      });
    });
  }

  async open(): Promise<void> {
    await this.#call({ kind: 'open' });
  }

  async get(key: string): Promise<ControlDocument | null> {
    assertKey(key);
    const row = (await this.#call({ kind: 'get', key })) as TextDocument | null;
    return row === null ? null : parsed(row);
  }

  async list(prefix: string, damaged?: DamagedDocument): Promise<ControlDocument[]> {
    const documents: ControlDocument[] = [];
    for (const document of (await this.#call({ kind: 'list', prefix })) as TextDocument[]) {
      try {
        documents.push(parsed(document));
      } catch (error) {
        if (damaged === undefined) throw error;
        damaged(document.key, document.revision, error as WeftError);
      }
    }
    return documents;
  }

  async transact(transaction: ControlTransaction): Promise<number | null> {
    // The watchers are told in #settle, in the worker's order, before this promise resolves.
    return (await this.#call({ kind: 'transact', ...asText(transaction) })) as number | null;
  }

  async purgeHistory(): Promise<void> {
    await this.#call({ kind: 'purge' });
  }

  watch(prefix: string, notify: (changes: readonly ControlChange[]) => void): () => void {
    return this.#watchers.add(prefix, notify);
  }

  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  async #shutDown(): Promise<void> {
    if (this.#fault === null) this.#worker.postMessage({ id: 0, call: { kind: 'close' } });
    await this.#exited;
  }

  #call(call: WorkerCall): Promise<unknown> {
    if (this.#fault !== null) return Promise.reject(this.#fault);
    if (this.#closing !== null) return Promise.reject(closedError());
    if (this.#waiting.size >= maxWaitingCalls) {
      return Promise.reject(new WeftError('UNAVAILABLE', 'the control store does not keep up; try again'));
    }
    const id = this.#nextCallId++;
    return new Promise((resolve, reject) => {
      const settled =
        call.kind !== 'transact'
          ? resolve
          : (revision: unknown) => {
              if (revision !== null) this.#tell(revision as number, call);
              resolve(revision);
            };
      this.#waiting.set(id, { resolve: settled, reject });
      this.#worker.postMessage({ id, call });
    });
  }

  #settle(answer: WorkerAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    if (waiting === undefined) return;
    this.#waiting.delete(answer.id);
    if (answer.error === undefined) waiting.resolve(answer.result);
    else waiting.reject(new WeftError(answer.error.code as ErrorCode, answer.error.message));
  }

  #tell(revision: number, call: WorkerCall & { kind: 'transact' }): void {
    const deletions = call.deletes.map((key) => ({ key, json: undefined }));
    this.#watchers.tell(revision, [...call.puts, ...deletions]);
  }
}

interface TextDocument {
  key: string;
  json: string;
  revision: number;
}

function parsed({ key, json, revision }: TextDocument): ControlDocument {
  try {
    return { key, value: JSON.parse(json), revision };
  } catch (cause) {
    const advice = 'restore the data directory from a backup';
    throw new WeftError('CORRUPT', `the control store's document ${key} is damaged: no JSON; ${advice}`, {
      cause,
    });
  }
}

function closedError(): WeftError {
  return new WeftError('SHUTTING_DOWN', 'the control store is closed');
}
