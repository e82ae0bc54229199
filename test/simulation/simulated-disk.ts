/**
 * A disk in memory with the promises of `daemon/env/disk.ts`, and with everything a real one does to those who rely
 * on more: works overtake each other, power loss takes what was not synced, page by page, errors and rot on demand.
 *
 *   const clock = new SimulatedClock(new SeededRandom(seed));
 *   let disk = new SimulatedDisk(clock, random.fork());
 *   ... start things on the disk; await clock.run(() => disk.operationCount >= 17);
 *   disk = disk.crash('power');   // nothing asked of the old one is ever answered
 */
import { WeftError } from '../../daemon/base/errors.ts';
import type { Disk, DiskFile } from '../../daemon/env/disk.ts';
import { storePath } from '../../daemon/env/disk.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { SimulatedClock } from './simulated-clock.ts';
import { SimulatedDirectory } from './simulated-directory.ts';
import { pageSizeBytes, SimulatedFile } from './simulated-file.ts';

export interface DiskOptions {
  /** Of every step of an operation. */
  minLatencyMs: number;
  maxLatencyMs: number;
  /** Room for content; beyond it writes fail with NO_SPACE. */
  capacityBytes: number;
  /** Whether files may have more than one name. */
  hardLinks: boolean;
}

type FaultKind = 'read' | 'write' | 'sync' | 'link';

interface Fault {
  kind: FaultKind;
  /** 1: the next one. */
  countdown: number;
  path: string | undefined;
}

/** A write the system has been handed and has not carried out yet. */
interface WriteInFlight {
  file: SimulatedFile;
  bytes: Buffer;
  position: number;
}

export class SimulatedDisk implements Disk {
  /** May be changed at any time. */
  readonly options: DiskOptions;
  /** Steps carried out so far: a sweep over crash points crashes at each count. */
  operationCount = 0;
  /** Written so far. */
  writtenBytes = 0;
  /** Files that were given a second name. */
  linkCount = 0;
  readonly #clock: SimulatedClock;
  readonly #random: SeededRandom;
  #directory = new SimulatedDirectory();
  /** Files without a name that are still open. */
  readonly #nameless = new Set<SimulatedFile>();
  readonly #writes = new Set<WriteInFlight>();
  #faults: Fault[] = [];
  #crashed = false;

  constructor(clock: SimulatedClock, random: SeededRandom, options: Partial<DiskOptions> = {}) {
    this.#clock = clock;
    this.#random = random;
    this.options = {
      minLatencyMs: 0.02,
      maxLatencyMs: 1,
      capacityBytes: 2 ** 50,
      hardLinks: true,
      ...options,
    };
  }

  /**
   * 'process': everything written stays; of a write in flight, as much as was carried out. 'power': only what was
   * synced is certain. What was asked of this disk is never answered; the disk returned goes on with what is left.
   */
  crash(kind: 'process' | 'power'): SimulatedDisk {
    this.#crashed = true;
    for (const write of this.#writes) {
      const pages = Math.ceil(write.bytes.length / pageSizeBytes);
      const carriedOut = this.#random.below(pages + 1) * pageSizeBytes;
      if (carriedOut > 0) write.file.write(write.bytes.subarray(0, carriedOut), write.position);
    }
    if (kind === 'power') {
      this.#directory.loseSome(this.#random);
      for (const file of new Set(this.#directory.files().values())) file.loseSome(this.#random);
    }
    const next = new SimulatedDisk(this.#clock, this.#random, this.options);
    next.#directory = this.#directory;
    next.#faults = this.#faults;
    next.linkCount = this.linkCount;
    for (const file of next.#directory.files().values()) file.openCount = 0;
    return next;
  }

  /** The nth such operation from now (1: the next), on this path or on any, fails with IO_ERROR. */
  fail(kind: FaultKind, nth = 1, path?: string): void {
    this.#faults.push({ kind, countdown: nth, path });
  }

  /** What was to fail from now on does not. */
  healthy(): void {
    this.#faults = [];
  }

  /** Rot: one bit of the file is wrong from now on. */
  flipBit(path: string, offset: number, bit = 0): void {
    const file = this.#directory.file(storePath(path));
    if (file === undefined) throw noSuch(path);
    file.flipBit(offset, bit);
  }

  /** Bytes of content on the disk, holes left out. */
  get usedBytes(): number {
    let bytes = 0;
    for (const file of new Set(this.#directory.files().values())) bytes += file.allocatedBytes;
    for (const file of this.#nameless) bytes += file.allocatedBytes;
    return bytes;
  }

  open(path: string, mode: 'read' | 'write' | 'create'): Promise<DiskFile> {
    return this.#ask(() => {
      const plain = storePath(path);
      let file = this.#directory.file(plain);
      if (mode === 'create') {
        if (file !== undefined) throw new WeftError('ALREADY_EXISTS', `${path} exists already`);
        const directory = plain.includes('/') ? plain.slice(0, plain.lastIndexOf('/')) : '.';
        if (!this.#directory.hasDirectory(directory)) throw noSuch(path);
        file = new SimulatedFile();
        this.#directory.change({ kind: 'create', path: plain, file });
      }
      if (file === undefined) throw noSuch(path);
      file.openCount += 1;
      return new OpenFile(this, file, plain, mode !== 'read');
    });
  }

  list(directory: string): Promise<string[]> {
    return this.#ask(() => this.#directory.list(storePath(directory)));
  }

  makeDirectory(path: string): Promise<void> {
    return this.#ask(() => this.#directory.makeDirectory(storePath(path)));
  }

  remove(path: string): Promise<void> {
    return this.#ask(() => {
      const plain = storePath(path);
      const file = this.#directory.file(plain);
      if (file === undefined) return;
      this.#directory.change({ kind: 'remove', path: plain });
      this.#withoutName(file);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.#ask(() => {
      const [path, target] = [storePath(from), storePath(to)];
      if (this.#directory.file(path) === undefined) throw noSuch(from);
      const replaced = this.#directory.file(target);
      this.#directory.change({ kind: 'rename', path, to: target });
      if (replaced !== undefined) this.#withoutName(replaced);
    });
  }

  link(from: string, to: string): Promise<void> {
    return this.#ask(() => {
      const [path, target] = [storePath(from), storePath(to)];
      if (!this.options.hardLinks) throw new WeftError('UNSUPPORTED', `${from} has one name only`);
      const file = this.#directory.file(path);
      if (file === undefined) throw noSuch(from);
      if (this.#directory.file(target) !== undefined)
        throw new WeftError('ALREADY_EXISTS', `${to} exists already`);
      const failure = this.fault('link', path);
      if (failure !== null) throw failure;
      this.#directory.change({ kind: 'create', path: target, file });
      this.linkCount += 1;
    });
  }

  syncDirectory(path: string): Promise<void> {
    return this.#ask(() => {
      const plain = storePath(path);
      if (!this.#directory.hasDirectory(plain)) throw noSuch(path);
      this.#directory.sync(plain);
    });
  }

  space(): Promise<{ totalBytes: number; freeBytes: number }> {
    const totalBytes = this.options.capacityBytes;
    return this.#ask(() => ({ totalBytes, freeBytes: Math.max(0, totalBytes - this.usedBytes) }));
  }

  /** For `OpenFile`: carries the write out at some time, then answers at some later time. */
  writeTo(
    file: SimulatedFile,
    path: string,
    bytes: Buffer,
    position: number,
    done: (error: Error | null) => void,
  ): void {
    const write = { file, bytes, position };
    this.#writes.add(write);
    this.later(() => {
      this.#writes.delete(write);
      const failure = this.fault('write', path);
      const roomBytes = this.options.capacityBytes - this.usedBytes;
      if (failure === null && file.growthBytes(position, bytes.length) <= roomBytes) {
        file.write(bytes, position);
        this.writtenBytes += bytes.length;
        this.later(() => done(null));
        return;
      }
      // As much as an operating system may have written before it failed.
      const pages = Math.floor(Math.min(bytes.length, Math.max(0, roomBytes)) / pageSizeBytes);
      const written = bytes.subarray(0, this.#random.below(pages + 1) * pageSizeBytes);
      if (file.growthBytes(position, written.length) <= roomBytes && written.length > 0)
        file.write(written, position);
      this.later(() => done(failure ?? new WeftError('NO_SPACE', `no space left on the store: ${path}`)));
    });
  }

  /** For `OpenFile`: a step that happens after a latency, and never after a crash. */
  later(step: () => void): void {
    const { minLatencyMs, maxLatencyMs } = this.options;
    this.#clock.schedule(
      () => {
        if (this.#crashed) return;
        this.operationCount += 1;
        step();
      },
      minLatencyMs,
      maxLatencyMs,
    );
  }

  /** For `OpenFile`: the error this operation was told to fail with. */
  fault(kind: FaultKind, path: string): WeftError | null {
    let failure: WeftError | null = null;
    this.#faults = this.#faults.filter((fault) => {
      if (fault.kind !== kind || (fault.path !== undefined && fault.path !== path)) return true;
      fault.countdown -= 1;
      if (fault.countdown > 0) return true;
      failure = new WeftError('IO_ERROR', `${path}: ${kind} failed, as the test asked`, {
        details: { errno: 'EIO' },
      });
      return false;
    });
    return failure;
  }

  /** For `OpenFile`. */
  closed(file: SimulatedFile): void {
    file.openCount -= 1;
    if (file.openCount === 0) this.#nameless.delete(file);
  }

  #withoutName(file: SimulatedFile): void {
    const hasAnother = [...this.#directory.files().values()].includes(file);
    if (file.openCount > 0 && !hasAnother) this.#nameless.add(file);
  }

  /** Carries the work out at some time and answers at some later time: a crash may fall between. */
  #ask<Result>(work: () => Result): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.later(() => {
        try {
          const result = work();
          this.later(() => resolve(result));
        } catch (error) {
          this.later(() => reject(error));
        }
      });
    });
  }
}

class OpenFile implements DiskFile {
  readonly #disk: SimulatedDisk;
  readonly #file: SimulatedFile;
  readonly #path: string;
  readonly #isWritable: boolean;
  #isClosed = false;

  constructor(disk: SimulatedDisk, file: SimulatedFile, path: string, isWritable: boolean) {
    this.#disk = disk;
    this.#file = file;
    this.#path = path;
    this.#isWritable = isWritable;
  }

  read(target: Uint8Array, position: number, done: (error: Error | null, bytesRead: number) => void): void {
    this.#disk.later(() => {
      const failure = this.#refusal(false) ?? this.#disk.fault('read', this.#path);
      const count = failure === null ? this.#file.read(target, position) : 0;
      this.#disk.later(() => done(failure, count));
    });
  }

  write(pieces: readonly Uint8Array[], position: number, done: (error: Error | null) => void): void {
    const refusal = this.#refusal(true);
    if (refusal !== null) {
      this.#disk.later(() => done(refusal));
      return;
    }
    const bytes = Buffer.concat(pieces);
    this.#disk.writeTo(this.#file, this.#path, bytes, position, (error) => {
      if (!Buffer.concat(pieces).equals(bytes)) {
        throw new Error(`${this.#path}: a piece changed while it was being written`);
      }
      done(error);
    });
  }

  sync(done: (error: Error | null) => void): void {
    const point = this.#file.syncPoint();
    this.#disk.later(() => {
      const failure = this.#refusal(false) ?? this.#disk.fault('sync', this.#path);
      if (failure === null) this.#file.makeDurable(point);
      else this.#file.giveUp(point);
      this.#disk.later(() => done(failure));
    });
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#ask(true, () => this.#file.truncate(sizeBytes));
  }

  size(): Promise<number> {
    return this.#ask(false, () => this.#file.sizeBytes);
  }

  close(): Promise<void> {
    return this.#ask(false, () => {
      this.#isClosed = true;
      this.#disk.closed(this.#file);
    });
  }

  #refusal(writes: boolean): WeftError | null {
    if (!this.#isClosed && (this.#isWritable || !writes)) return null;
    return new WeftError('IO_ERROR', `${this.#path}: EBADF: bad file descriptor`, {
      details: { errno: 'EBADF' },
    });
  }

  #ask<Result>(writes: boolean, work: () => Result): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#disk.later(() => {
        const refusal = this.#refusal(writes);
        if (refusal !== null) {
          this.#disk.later(() => reject(refusal));
          return;
        }
        const result = work();
        this.#disk.later(() => resolve(result));
      });
    });
  }
}

function noSuch(path: string): WeftError {
  return new WeftError('NOT_FOUND', `there is no ${path}`);
}
