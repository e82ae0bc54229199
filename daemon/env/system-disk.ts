/** A store's directory on the machine's own file system. */
import { type BigIntStats, close, fdatasync, fstat, ftruncate, open, read, write, writev } from 'node:fs';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { asWeftError, WeftError } from '../base/errors.ts';
import { DirectWriter } from './direct-writer.ts';
import type { Disk, DiskFile, FileUse } from './disk.ts';
import { storePath } from './disk.ts';

/** Linux takes no more pieces in one writev (IOV_MAX). */
const maxPiecesAtOnce = 1024;

/** What link(2) says where files cannot have two names, those of other file systems or quotas' projects included. */
const noLinks = new Set(['EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'EMLINK', 'EXDEV']);

export class SystemDisk implements Disk {
  readonly #root: string;

  /** `root` exists. */
  constructor(root: string) {
    this.#root = root;
  }

  async open(path: string, mode: 'read' | 'write' | 'create', use: FileUse = 'data'): Promise<DiskFile> {
    const full = this.#full(path);
    const flags = { read: 'r', write: 'r+', create: 'wx+' }[mode];
    const fd = await new Promise<number>((resolve, reject) => {
      open(full, flags, 0o600, (error, fd) => (error ? reject(diskError(error, full)) : resolve(fd)));
    });
    const direct = use === 'log' && mode !== 'read' ? await DirectWriter.open(full) : null;
    return new SystemFile(fd, full, direct);
  }

  async list(directory: string): Promise<string[]> {
    try {
      return (await fs.readdir(this.#full(directory))).sort();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw diskError(error, this.#full(directory));
    }
  }

  async makeDirectory(path: string): Promise<void> {
    const wanted = storePath(path);
    await attempt(this.#full(wanted), async (full) => {
      await fs.mkdir(full, { recursive: true, mode: 0o700 });
      // A directory is durable once the one above it is synced; one that exists may come from before a crash.
      const parts = wanted.split('/');
      for (let depth = parts.length - 1; depth >= 0; depth--) {
        await this.syncDirectory(parts.slice(0, depth).join('/'));
      }
    });
  }

  async remove(path: string): Promise<void> {
    await attempt(this.#full(path), async (full) => {
      try {
        await fs.unlink(full);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      }
    });
  }

  async rename(from: string, to: string): Promise<void> {
    await attempt(this.#full(from), (full) => fs.rename(full, this.#full(to)));
  }

  async link(from: string, to: string): Promise<void> {
    await attempt(this.#full(from), async (full) => {
      try {
        await fs.link(full, this.#full(to));
      } catch (error) {
        if (!noLinks.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
        throw new WeftError('UNSUPPORTED', `${full} cannot have a second name on this file system`, {
          cause: error,
        });
      }
    });
  }

  async syncDirectory(path: string): Promise<void> {
    await attempt(this.#full(path), async (full) => {
      const directory = await fs.open(full, 'r');
      try {
        await directory.sync();
      } finally {
        await directory.close();
      }
    });
  }

  async space(): Promise<{ totalBytes: number; freeBytes: number }> {
    return attempt(this.#root, async (full) => {
      const { blocks, bavail, bsize } = await fs.statfs(full);
      return { totalBytes: blocks * bsize, freeBytes: bavail * bsize };
    });
  }

  #full(path: string): string {
    return join(this.#root, storePath(path));
  }
}

class SystemFile implements DiskFile {
  readonly #fd: number;
  readonly #path: string;
  readonly #direct: DirectWriter | null;

  constructor(fd: number, path: string, direct: DirectWriter | null) {
    this.#fd = fd;
    this.#path = path;
    this.#direct = direct;
  }

  read(target: Uint8Array, position: number, done: (error: Error | null, bytesRead: number) => void): void {
    this.#readFrom(target, 0, position, done);
  }

  #readFrom(
    target: Uint8Array,
    filled: number,
    position: number,
    done: (error: Error | null, bytesRead: number) => void,
  ): void {
    const wanted = target.length - filled;
    read(this.#fd, target, filled, wanted, position + filled, (error, count) => {
      if (error) done(diskError(error, this.#path), filled);
      else if (count === wanted || count === 0) done(null, filled + count);
      else this.#readFrom(target, filled + count, position, done);
    });
  }

  write(pieces: readonly Uint8Array[], position: number, done: (error: Error | null) => void): void {
    const first = pieces[0];
    const lengthBytes = this.#direct === null ? 0 : pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (first === undefined) {
      setImmediate(done, null);
    } else if (this.#direct?.takes(lengthBytes, position)) {
      this.#direct.write(pieces, lengthBytes, position, (error) =>
        done(error ? diskError(error, this.#path) : null),
      );
    } else if (pieces.length === 1) {
      this.#writeOne(first, position, done);
    } else {
      this.#writeMany(pieces, position, done);
    }
  }

  #writeOne(bytes: Uint8Array, position: number, done: (error: Error | null) => void): void {
    write(this.#fd, bytes, 0, bytes.length, position, (error, count) => {
      if (error) done(diskError(error, this.#path));
      else if (count === bytes.length) done(null);
      else this.#writeOne(bytes.subarray(count), position + count, done);
    });
  }

  /** One writev where the system takes them all; what it leaves is written next. */
  #writeMany(pieces: readonly Uint8Array[], position: number, done: (error: Error | null) => void): void {
    writev(this.#fd, firstPieces(pieces), position, (error, count) => {
      if (error) {
        done(diskError(error, this.#path));
        return;
      }
      const rest = withoutFirst(pieces, count);
      if (rest.length === 0) done(null);
      else this.#writeMany(rest, position + count, done);
    });
  }

  sync(done: (error: Error | null) => void): void {
    fdatasync(this.#fd, (error) => done(error ? diskError(error, this.#path) : null));
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#call((done) => ftruncate(this.#fd, sizeBytes, done));
  }

  async size(): Promise<number> {
    const stats = await this.#call<BigIntStats>((done) => fstat(this.#fd, { bigint: true }, done));
    return Number(stats.size);
  }

  async close(): Promise<void> {
    await this.#direct?.close();
    await this.#call((done) => close(this.#fd, done));
  }

  #call<Result = void>(
    start: (done: (error: NodeJS.ErrnoException | null | undefined, result?: Result) => void) => void,
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      start((error, result) => {
        if (error) reject(diskError(error, this.#path));
        else resolve(result as Result);
      });
    });
  }
}

/** As many as the system takes at once. */
function firstPieces(pieces: readonly Uint8Array[]): Uint8Array[] {
  return (pieces.length > maxPiecesAtOnce ? pieces.slice(0, maxPiecesAtOnce) : pieces) as Uint8Array[];
}

/** The pieces without their first `count` bytes. */
export function withoutFirst(pieces: readonly Uint8Array[], count: number): Uint8Array[] {
  let index = 0;
  let left = count;
  while (index < pieces.length && left >= pieces[index]!.length) {
    left -= pieces[index]!.length;
    index += 1;
  }
  const rest = pieces.slice(index);
  if (left > 0) rest[0] = rest[0]!.subarray(left);
  return rest;
}

async function attempt<Result>(path: string, work: (path: string) => Promise<Result>): Promise<Result> {
  try {
    return await work(path);
  } catch (error) {
    throw diskError(error, path);
  }
}

/** Errors on an open file do not name it: the path goes into the message. */
function diskError(thrown: unknown, path: string): WeftError {
  const errno = (thrown as NodeJS.ErrnoException).code;
  if (errno === 'ENOENT') return new WeftError('NOT_FOUND', `there is no ${path}`, { cause: thrown });
  if (errno === 'EEXIST') return new WeftError('ALREADY_EXISTS', `${path} exists already`, { cause: thrown });
  const error = asWeftError(thrown);
  if (error.message.includes(path)) return error;
  return new WeftError(error.code, `${path}: ${error.message}`, {
    cause: thrown,
    details: { ...error.details },
  });
}
