/**
 * Large writes past the page cache (O_DIRECT).
 *
 * A journal's bytes are written once and seldom read back from the cache, yet every cached page has to be found,
 * filled and written back; on a virtual machine a page the host has not given yet costs more than writing it. So
 * large batches are gathered in a page-aligned room and handed to the disk directly. Small ones stay cached: a 4 KiB
 * direct write waits for the disk, a cached one does not. Reads are cached ones; Linux keeps both views coherent
 * (a direct write drops the pages it covers).
 *
 * Only WebAssembly gives page-aligned memory in Node: its linear memory begins on a page.
 */
import { close, constants, open, write } from 'node:fs';
import { blockSizeBytes, KiB, MiB } from '../base/limits.ts';

/** What is used of it; neither the ES library nor Node's types declare it. */
declare const WebAssembly: { Memory: new (size: { initial: number }) => { buffer: ArrayBuffer } };

/** From this length a write goes directly, in bytes: below it, waiting for the disk costs more than the cache. */
export const directFromBytes = 256 * KiB;
/** The longest direct write, in bytes: a journal batch of the longest transfer with its headers. */
const roomBytes = 12 * MiB;
const wasmPageBytes = 64 * KiB;

/** Rooms that are not in use. One for each write in flight; two serve a journal that changes files. */
const idleRooms: Buffer[] = [];
const maxIdleRooms = 2;

function takeRoom(): Buffer {
  const room = idleRooms.pop();
  if (room !== undefined) return room;
  return Buffer.from(new WebAssembly.Memory({ initial: roomBytes / wasmPageBytes }).buffer);
}

function giveRoom(room: Buffer): void {
  if (idleRooms.length < maxIdleRooms) idleRooms.push(room);
}

export class DirectWriter {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Null where the file system has no direct writes. */
  static open(path: string): Promise<DirectWriter | null> {
    return new Promise((resolve) => {
      open(path, constants.O_WRONLY | constants.O_DIRECT, (error, fd) => {
        resolve(error ? null : new DirectWriter(fd));
      });
    });
  }

  /** Whether a write of so many bytes there should, and can, go directly. */
  takes(lengthBytes: number, position: number): boolean {
    const isAligned = lengthBytes % blockSizeBytes === 0 && position % blockSizeBytes === 0;
    return isAligned && lengthBytes >= directFromBytes && lengthBytes <= roomBytes;
  }

  write(
    pieces: readonly Uint8Array[],
    lengthBytes: number,
    position: number,
    done: (error: NodeJS.ErrnoException | null) => void,
  ): void {
    const room = takeRoom();
    let filled = 0;
    for (const piece of pieces) {
      room.set(piece, filled);
      filled += piece.length;
    }
    const finish = (error: NodeJS.ErrnoException | null): void => {
      giveRoom(room);
      done(error);
    };
    const writeFrom = (from: number, isRetry = false): void => {
      write(this.#fd, room, from, lengthBytes - from, position + from, (error, count) => {
        if (error) finish(error);
        else if (from + count === lengthBytes) finish(null);
        // What is left of a short write may not be aligned: it goes on from the last whole block. Where that is none,
        // the next try tells why, mostly that the disk is full.
        else if (count >= blockSizeBytes) writeFrom(from + count - (count % blockSizeBytes));
        else if (isRetry) finish(Object.assign(new Error('short write'), { code: 'EIO' }));
        else writeFrom(from, true);
      });
    };
    writeFrom(0);
  }

  close(): Promise<void> {
    return new Promise((resolve, reject) => {
      close(this.#fd, (error) => (error ? reject(error) : resolve()));
    });
  }
}
