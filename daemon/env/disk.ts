import { normalize } from 'node:path/posix';
import { WeftError } from '../base/errors.ts';

/**
 * A store's directory as the fabric sees it: the only way the data path reaches a disk.
 *
 * Promises made by an implementation (the system's and the simulator's alike):
 *  - a write that called back is seen by every later read, also after the process was killed;
 *  - what was written before `sync` was called survives power loss once `sync` has called back;
 *  - what was not synced may survive whole, in part (any set of 4 KiB pages, or torn sectors) or not at all;
 *  - a file's creation, removal, renaming and further names survive power loss after `syncDirectory`.
 * Paths are relative to the store's directory, and stay in it. Errors are WeftErrors (NO_SPACE, IO_ERROR, NOT_FOUND,
 * ALREADY_EXISTS for 'create').
 */
export interface Disk {
  /** 'read': must exist. 'write': must exist, read and write. 'create': must not exist, read and write. */
  open(path: string, mode: 'read' | 'write' | 'create', use?: FileUse): Promise<DiskFile>;
  /** Names in a directory, sorted; empty when it does not exist. */
  list(directory: string): Promise<string[]>;
  /** Creates a directory and its parents, durably; no error when it exists. */
  makeDirectory(path: string): Promise<void>;
  /** No error when it does not exist. */
  remove(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /**
   * Gives a file a second name. UNSUPPORTED where the file system has no such names; ALREADY_EXISTS.
   */
  link(from: string, to: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
  /** Room on the file system below, in bytes. */
  space(): Promise<{ totalBytes: number; freeBytes: number }>;
}

/** How a file is used: 'log' is written in order, in large pieces, and seldom read; its large writes need no cache. */
export type FileUse = 'log' | 'data';

/** Callbacks, not promises: these are called for every batch of the hot path. They never call back synchronously. */
export interface DiskFile {
  /** Fills `target` from `position`. Calls back with the bytes read; fewer than asked only at the file's end. */
  read(target: Uint8Array, position: number, done: (error: Error | null, bytesRead: number) => void): void;
  /** Writes all pieces, one after another, from `position`. The pieces stay untouched until it calls back. */
  write(pieces: readonly Uint8Array[], position: number, done: (error: Error | null) => void): void;
  /** Makes everything written before durable (fdatasync). */
  sync(done: (error: Error | null) => void): void;
  truncate(sizeBytes: number): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

/** A path inside the store's directory as all disks know it: '.' for the directory itself. */
export function storePath(path: string): string {
  const plain = normalize(path === '' ? '.' : path).replace(/\/$/, '');
  if (plain.startsWith('/') || plain === '..' || plain.startsWith('../') || plain.includes('\0')) {
    throw new WeftError('INVALID_ARGUMENT', `${JSON.stringify(path)} does not lie in the store's directory`);
  }
  return plain;
}
