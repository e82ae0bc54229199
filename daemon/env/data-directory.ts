/** A node's data directory: locked by one daemon at a time, labelled with its format version and the node's id. */
import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import { asWeftError, WeftError } from '../base/errors.ts';
import { decodeStoreLabel, encodeStoreLabel, type StoreLabel } from '../format/store-label.ts';

export interface DataDirectory {
  path: string;
  label: StoreLabel;
  /** Lets another daemon in. */
  unlock(): void;
}

/** What a directory may hold that is new: what is made first, and what a provisioning tool puts there. */
const expectedFirst =
  /^(lock|lock-journal|lock-wal|lock-shm|label\.json\.new|lost\+found|admin\.token|secrets\.key)$/;

/** Made in this order when a directory is new. */
const parts = ['control.db', 'map.db', 'segments', 'journal'];

/**
 * Opens the directory, making and labelling it when it is new, and counts one more start.
 * Errors: LOCKED (another daemon runs on it), CORRUPT, FORMAT_TOO_NEW, IO_ERROR.
 */
export async function openDataDirectory(path: string, nowMs: number): Promise<DataDirectory> {
  try {
    await makeDirectory(path);
  } catch (thrown) {
    const { code, message, details } = asWeftError(thrown);
    throw new WeftError(code, `${path} cannot be the data directory (${message}); give another --data`, {
      cause: thrown,
      details,
    });
  }
  const unlock = lock(path);
  try {
    const known = await readLabel(path);
    await refuseWithoutDatabases(path);
    if (known !== null) await refuseMissingParts(path);
    const label = known ?? { nodeId: randomUUID(), starts: 0, createdAt: new Date(nowMs).toISOString() };
    label.starts += 1;
    await writeDurably(path, 'label.json', encodeStoreLabel(label));
    return { path, label, unlock };
  } catch (error) {
    unlock();
    throw asWeftError(error);
  }
}

/** As `mkdir -p`. Node's own never ends where the file system takes no new directory, as below /proc. */
async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && (await stat(path)).isDirectory()) return;
    if (code !== 'ENOENT' || (await stat(dirname(path)).catch(() => null)) !== null) throw error;
    await makeDirectory(dirname(path));
    await mkdir(path, { mode: 0o700 });
  }
}

/**
 * Node has no flock, and a pid file outlives a crash. SQLite's exclusive lock is a POSIX lock: the kernel drops it
 * with the process, and it holds across network namespaces and Docker containers that share the file system.
 */
function lock(path: string): () => void {
  const database = new Database(join(path, 'lock'), { timeout: 0 });
  try {
    database.pragma('locking_mode = EXCLUSIVE');
    database.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    database.close();
    if ((error as { code?: string }).code?.startsWith('SQLITE_BUSY')) {
      throw new WeftError(
        'LOCKED',
        `another weftd runs on ${path}: stop it, or give this one another --data`,
      );
    }
    throw asWeftError(error);
  }
  return () => database.close();
}

async function readLabel(path: string): Promise<StoreLabel | null> {
  const file = join(path, 'label.json');
  try {
    return decodeStoreLabel(await readFile(file), file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  // A directory with data in it and no label is damaged or foreign: starting afresh in it could hide that data.
  const strangers = (await readdir(path)).filter((name) => !expectedFirst.test(name));
  if (strangers.length > 0) {
    throw new WeftError(
      'CORRUPT',
      `${path} has no label.json and is not empty (${strangers.slice(0, 3).join(', ')}): restore the label, or give an empty directory`,
    );
  }
  return null;
}

/**
 * A part that is missing although a later one is there was lost: made anew, it would say that there is no data, and
 * what the other parts hold would be thrown away as nobody's.
 */
async function refuseMissingParts(path: string): Promise<void> {
  const names = await readdir(path);
  const last = parts.findLastIndex((part) => names.includes(part));
  const missing = parts.slice(0, last + 1).find((part) => !names.includes(part));
  if (missing === undefined) return;
  throw new WeftError('CORRUPT', `${join(path, missing)} is missing: restore it from a backup`);
}

/**
 * The databases are made before the first journal file and the first segment. Started without one of them, weftd would
 * take what the others hold for leftovers of volumes that are gone, and remove it.
 */
async function refuseWithoutDatabases(path: string): Promise<void> {
  const names = await readdir(path);
  if (!names.includes('journal') && !names.includes('segments')) return;
  const missing = ['control.db', 'map.db'].filter((name) => !names.includes(name));
  if (missing.length === 0) return;
  throw new WeftError(
    'CORRUPT',
    `${path} holds volumes' data, and ${missing.join(' and ')} is missing: put it back; nothing was changed`,
    { details: { missing } },
  );
}

/** Replaces a small file so that after power loss the old or the new content is there, whole. */
async function writeDurably(directory: string, name: string, bytes: Buffer): Promise<void> {
  const fresh = join(directory, `${name}.new`);
  const file = await open(fresh, 'w', 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(fresh, join(directory, name));
  const parent = await open(directory, 'r');
  try {
    await parent.sync();
  } finally {
    await parent.close();
  }
}
