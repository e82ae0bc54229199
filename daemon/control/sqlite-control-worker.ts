/**
 * The thread that keeps the control store's SQLite file.
 *
 * Format 1: `documents(key TEXT PRIMARY KEY, json TEXT, revision INTEGER)` and `store(revision INTEGER)` with one
 * row, the revision of the last transaction. `application_id` says that the file is ours, `user_version` holds the
 * format's version.
 */
// biome-ignore lint/style/noRestrictedImports: the file's mode must be right before SQLite opens it.
import { closeSync, fchmodSync, openSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import Database from 'better-sqlite3';
import { assert } from '../base/assert.ts';
import { asWeftError, type ErrorCode, WeftError } from '../base/errors.ts';
import type { TextTransaction } from './control-text.ts';

export type WorkerCall =
  | { kind: 'open' }
  | { kind: 'get'; key: string }
  | { kind: 'list'; prefix: string }
  | ({ kind: 'transact' } & TextTransaction)
  | { kind: 'purge' }
  | { kind: 'close' };

export interface WorkerAnswer {
  id: number;
  result?: unknown;
  error?: { code: string; message: string };
}

/** "WEFC" */
const applicationId = 0x57454643;
const formatVersion = 1;
/** How long to wait for another process that holds the file's lock, such as a backup. */
const busyTimeoutMs = 5_000;

class ControlFile {
  readonly #database: Database.Database;
  readonly #get: Database.Statement;
  readonly #list: Database.Statement;
  readonly #transact: (transaction: TextTransaction) => number | null;

  constructor(filename: string) {
    keepPrivate(filename);
    const database = new Database(filename, { timeout: busyTimeoutMs });
    try {
      prepare(database, filename);
    } catch (error) {
      database.close();
      throw error;
    }
    this.#database = database;
    this.#get = database.prepare('SELECT key, json, revision FROM documents WHERE key = ?');
    // Keys compare by their bytes; U+10FFFF sorts behind every character a key can go on with.
    this.#list = database.prepare(
      'SELECT key, json, revision FROM documents WHERE key >= :prefix AND key < :prefix || char(1114111) ORDER BY key',
    );
    this.#transact = transaction(database);
  }

  handle(call: WorkerCall): unknown {
    switch (call.kind) {
      case 'open':
        return null;
      case 'get':
        return this.#get.get(call.key) ?? null;
      case 'list':
        return this.#list.all({ prefix: call.prefix });
      case 'transact':
        return this.#transact(call);
      case 'purge':
        return purge(this.#database);
      case 'close':
        return this.#database.close();
    }
  }
}

/** A file made anew has no free pages and no gaps with old rows in them; the write-ahead log had them too. */
function purge(database: Database.Database): null {
  database.exec('VACUUM');
  database.pragma('wal_checkpoint(TRUNCATE)');
  return null;
}

/**
 * Names of users, volumes and hosts are in it, and sealed secrets. SQLite gives its other files (-wal, -shm) the same mode. Only before SQLite opens the file:
 * closing any descriptor of it drops the POSIX locks this process has on it.
 */
function keepPrivate(filename: string): void {
  const descriptor = openSync(filename, 'a', 0o600);
  fchmodSync(descriptor, 0o600);
  closeSync(descriptor);
}

function prepare(database: Database.Database, filename: string): void {
  const owner = database.pragma('application_id', { simple: true }) as number;
  const version = database.pragma('user_version', { simple: true }) as number;
  const tables = database.prepare('SELECT count(*) FROM sqlite_schema').pluck().get() as number;
  if (owner !== applicationId && (tables > 0 || owner !== 0)) {
    throw new WeftError('CORRUPT', `${filename} is a database, and not Weft's control store`);
  }
  if (version > formatVersion) {
    throw new WeftError(
      'FORMAT_TOO_NEW',
      `${filename} has format ${version}; this Weft knows up to ${formatVersion}: run the newer version again`,
    );
  }
  database.pragma('journal_mode = WAL');
  // A transaction that resolved survives power loss: the WAL is synced at every commit.
  database.pragma('synchronous = FULL');
  // What was overwritten or deleted is zeros at once, as far as SQLite knows where it is.
  database.pragma('secure_delete = ON');
  const check = database.pragma('quick_check(1)', { simple: true });
  if (check !== 'ok') throw new WeftError('CORRUPT', `${filename} is damaged: ${String(check)}`);
  if (version === formatVersion) return;
  database
    .transaction(() => {
      database.exec(`
        CREATE TABLE documents (key TEXT PRIMARY KEY, json TEXT NOT NULL, revision INTEGER NOT NULL)
          STRICT, WITHOUT ROWID;
        CREATE TABLE store (revision INTEGER NOT NULL) STRICT;
        INSERT INTO store VALUES (0);
      `);
      database.pragma(`application_id = ${applicationId}`);
      database.pragma(`user_version = ${formatVersion}`);
    })
    .immediate();
}

function transaction(database: Database.Database): (transaction: TextTransaction) => number | null {
  const revisionOf = database.prepare('SELECT revision FROM documents WHERE key = ?').pluck();
  const next = database.prepare('UPDATE store SET revision = revision + 1 RETURNING revision').pluck();
  const put = database.prepare('INSERT OR REPLACE INTO documents (key, json, revision) VALUES (?, ?, ?)');
  const remove = database.prepare('DELETE FROM documents WHERE key = ?');
  const run = database.transaction(({ conditions, puts, deletes }: TextTransaction) => {
    for (const { key, revision } of conditions) {
      if (((revisionOf.get(key) as number | undefined) ?? 0) !== revision) return null;
    }
    const revision = next.get() as number;
    for (const key of deletes) remove.run(key);
    for (const { key, json } of puts) put.run(key, json, revision);
    return revision;
  });
  return (wanted) => run.immediate(wanted);
}

/** SQLite's result codes in the fabric's words. */
function coded(thrown: unknown): { code: string; message: string } {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const code = (error as { code?: unknown }).code;
  if (error instanceof WeftError) return { code: error.code, message: error.message };
  const families: [string, ErrorCode][] = [
    ['SQLITE_NOTADB', 'CORRUPT'],
    ['SQLITE_CORRUPT', 'CORRUPT'],
    ['SQLITE_FULL', 'NO_SPACE'],
    ['SQLITE_BUSY', 'UNAVAILABLE'],
    ['SQLITE_', 'IO_ERROR'],
  ];
  const family = families.find(([prefix]) => typeof code === 'string' && code.startsWith(prefix));
  return {
    code: family?.[1] ?? asWeftError(error).code,
    message: `the control store failed: ${error.message} (${code})`,
  };
}

const port = parentPort;
assert(port !== null, 'runs as a worker');
const { filename } = workerData as { filename: string };
let file: ControlFile | null = null;

port.on('message', ({ id, call }: { id: number; call: WorkerCall }) => {
  if (call.kind === 'close') {
    file?.handle(call);
    port.close();
    return;
  }
  try {
    file ??= new ControlFile(filename);
    port.postMessage({ id, result: file.handle(call) } satisfies WorkerAnswer);
  } catch (error) {
    port.postMessage({ id, error: coded(error) } satisfies WorkerAnswer);
  }
});
