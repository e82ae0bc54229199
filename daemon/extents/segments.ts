/**
 * The segment files of a node's stores: which there are, how full, how much of them is live, who reads them.
 *
 * A segment is born when a writer begins it, sealed when it takes no more, and retired when nothing refers to
 * it: its file goes when the last reader has let go of it. Numbers are never used twice.
 */

import { assert } from '../base/assert.ts';
import { WeftError } from '../base/errors.ts';
import type { DiskFile } from '../env/disk.ts';
import type { Store } from '../env/store.ts';
import { decodeJournalFileHeader, isJournalFile } from '../format/journal-file.ts';
import { checkSegmentHeader, segmentHeaderBytes } from '../format/segment.ts';
import type { MapSummary } from './map-store.ts';

const directory = 'segments';
/**
 * Files kept open at once; far below the usual limit of a process, and 32 GiB of data without an open on the
 * way.
 */
const maxOpenFiles = 512;
/** Files looked at together when a store opens. */
const openingAtOnce = 16;

export interface SegmentLog {
  warn(facts: object, message: string): void;
}

export interface Segment {
  readonly segmentNumber: number;
  /** Where its file is. */
  readonly store: Store;
  /** Of the file, in bytes. */
  sizeBytes: number;
  /** Chunk records the map refers to, in bytes. */
  liveBytes: number;
  /** Takes no more chunks. */
  sealed: boolean;
  /** Holds a commit that may or may not be in the map: its file stays until the map is read again. */
  uncertain: boolean;
  /** Compaction found a chunk it could not read and leaves the segment alone. */
  rotten: boolean;
  retired: boolean;
  /** Reads, and the writer. */
  users: number;
  file: DiskFile | null;
  opening: ((error: WeftError | null) => void)[] | null;
}

export class Segments {
  private readonly stores: readonly Store[];
  private readonly log: SegmentLog | undefined;
  private readonly segments = new Map<number, Segment>();
  private readonly opened = new Map<number, Segment>();
  private readonly ending = new Set<Promise<void>>();
  private nextNumber = 1;

  /** Compares the files with the map; removes files nothing refers to. CORRUPT when one is missing. */
  static async open(
    stores: readonly Store[],
    log: SegmentLog | undefined,
    known: MapSummary['segments'],
  ): Promise<Segments> {
    assert(
      stores.some(({ tier }) => tier === 'hot'),
      'new segments need a hot store',
    );
    const segments = new Segments(stores, log);
    const live = new Map(known.map(({ segmentNumber, liveBytes }) => [segmentNumber, liveBytes]));
    const found = new Map<number, Store>();
    for (const store of stores) {
      await store.disk.makeDirectory(directory);
      for (const name of await store.disk.list(directory)) {
        const segmentNumber = numberOf(name);
        if (segmentNumber === null) continue;
        segments.nextNumber = Math.max(segments.nextNumber, segmentNumber + 1);
        if (live.has(segmentNumber)) found.set(segmentNumber, store);
        else await store.disk.remove(`${directory}/${name}`);
      }
    }
    const wanted = [...live];
    for (let first = 0; first < wanted.length; first += openingAtOnce) {
      const group = wanted.slice(first, first + openingAtOnce);
      await Promise.all(
        group.map(([number, liveBytes]) => segments.adopt(number, liveBytes, found.get(number))),
      );
    }
    return segments;
  }

  private constructor(stores: readonly Store[], log: SegmentLog | undefined) {
    this.stores = stores;
    this.log = log;
  }

  get(segmentNumber: number): Segment | undefined {
    return this.segments.get(segmentNumber);
  }

  all(): IterableIterator<Segment> {
    return this.segments.values();
  }

  /** Begins a new file, on the hot store with the most room. The caller uses it from the start and writes the header page. */
  async create(): Promise<Segment> {
    const store = await this.roomiest();
    const segment = newSegment(this.nextNumber++, store);
    segment.users = 1;
    segment.file = await store.disk.open(pathOf(segment.segmentNumber), 'create');
    this.segments.set(segment.segmentNumber, segment);
    this.opened.set(segment.segmentNumber, segment);
    this.closeIdle();
    return segment;
  }

  /**
   * A second name, durable, for a file of the store that nobody writes to any more; nothing in it is alive yet. The
   * caller uses it from the start, and seals it. Errors: UNSUPPORTED where a file has one name only; IO_ERROR, NO_SPACE.
   */
  async link(store: Store, path: string, sizeBytes: number): Promise<Segment> {
    const segment = newSegment(this.nextNumber++, store);
    segment.users = 1;
    segment.sizeBytes = sizeBytes;
    await store.disk.link(path, pathOf(segment.segmentNumber));
    this.segments.set(segment.segmentNumber, segment);
    try {
      await store.disk.syncDirectory(directory);
    } catch (error) {
      this.retire(segment);
      this.release(segment);
      throw error;
    }
    return segment;
  }

  /** The file's name survives power loss from then on. */
  syncDirectory(segment: Segment): Promise<void> {
    return segment.store.disk.syncDirectory(directory);
  }

  /**
   * Keeps the file open until `release`. Calls back at once when it is open already. After an error there is
   * nothing to release.
   */
  use(segment: Segment, done: (error: WeftError | null) => void): void {
    segment.users++;
    if (segment.file) return done(null);
    const opened = (error: WeftError | null) => {
      if (error) this.release(segment);
      done(error);
    };
    if (segment.opening) {
      segment.opening.push(opened);
      return;
    }
    segment.opening = [opened];
    void this.openFile(segment).then(
      () => this.opening(segment, null),
      (error: WeftError) => this.opening(segment, error),
    );
  }

  release(segment: Segment): void {
    segment.users--;
    if (segment.users === 0 && segment.retired) this.removeFile(segment);
  }

  /** Nothing refers to the segment any more. */
  retire(segment: Segment): void {
    if (segment.retired) return;
    segment.retired = true;
    this.segments.delete(segment.segmentNumber);
    if (segment.users === 0) this.removeFile(segment);
  }

  /** Waits for files being removed and closes the others. Nobody may use a segment any more. */
  async close(): Promise<void> {
    await Promise.all(this.ending);
    const files = [...this.opened.values()].map((segment) => segment.file);
    this.opened.clear();
    await Promise.all(files.map((file) => file?.close()));
  }

  private async adopt(segmentNumber: number, liveBytes: number, store: Store | undefined): Promise<void> {
    if (store === undefined) {
      const holds = `${pathOf(segmentNumber)} holds ${liveBytes} bytes of volumes`;
      const missing = `segment ${segmentNumber} is missing: ${holds}`;
      const advice = 'Put the file back; Weft does not start without it.';
      throw new WeftError('CORRUPT', `${missing}. ${advice}`, { details: { segmentNumber } });
    }
    const file = await store.disk.open(pathOf(segmentNumber), 'read');
    const segment = newSegment(segmentNumber, store);
    segment.sizeBytes = await file.size();
    await file.close();
    segment.liveBytes = liveBytes;
    segment.sealed = true;
    this.segments.set(segmentNumber, segment);
  }

  private async roomiest(): Promise<Store> {
    const hot = this.stores.filter(({ tier }) => tier === 'hot');
    if (hot.length === 1) return hot[0]!;
    const spaces = await Promise.all(hot.map(({ disk }) => disk.space()));
    const most = Math.max(...spaces.map(({ freeBytes }) => freeBytes));
    return hot[spaces.findIndex(({ freeBytes }) => freeBytes === most)]!;
  }

  private async openFile(segment: Segment): Promise<void> {
    const file = await segment.store.disk.open(pathOf(segment.segmentNumber), 'read');
    try {
      const header = await readHeader(file);
      // A journal file that was adopted kept its header.
      if (isJournalFile(header)) decodeJournalFileHeader(header, pathOf(segment.segmentNumber));
      else checkSegmentHeader(header, segment.segmentNumber);
    } catch (error) {
      await file.close();
      throw error;
    }
    segment.file = file;
    this.opened.set(segment.segmentNumber, segment);
    this.closeIdle();
  }

  private opening(segment: Segment, error: WeftError | null): void {
    const waiting = segment.opening ?? [];
    segment.opening = null;
    for (const done of waiting) done(error);
  }

  /** Above the limit, the file that was opened first and is not in use is closed. */
  private closeIdle(): void {
    if (this.opened.size <= maxOpenFiles) return;
    for (const segment of this.opened.values()) {
      if (segment.users > 0) continue;
      this.end(segment, this.closeFile(segment));
      return;
    }
  }

  private removeFile(segment: Segment): void {
    const path = pathOf(segment.segmentNumber);
    this.end(
      segment,
      this.closeFile(segment).then(() => segment.store.disk.remove(path)),
    );
  }

  private closeFile(segment: Segment): Promise<void> {
    const file = segment.file;
    segment.file = null;
    this.opened.delete(segment.segmentNumber);
    return file ? file.close() : Promise.resolve();
  }

  /** A file that cannot be closed or removed costs room, not data: the next start tries again. */
  private end(segment: Segment, work: Promise<void>): void {
    const settled = work.catch((error: unknown) => {
      this.log?.warn(
        { error, segmentNumber: segment.segmentNumber },
        'a segment file could not be let go of',
      );
    });
    this.ending.add(settled);
    void settled.then(() => this.ending.delete(settled));
  }
}

function newSegment(segmentNumber: number, store: Store): Segment {
  return {
    segmentNumber,
    store,
    sizeBytes: 0,
    liveBytes: 0,
    sealed: false,
    uncertain: false,
    rotten: false,
    retired: false,
    users: 0,
    file: null,
    opening: null,
  };
}

function pathOf(segmentNumber: number): string {
  return `${directory}/${String(segmentNumber).padStart(10, '0')}.wfs`;
}

/** Null for a file that is not a segment: it is left alone. */
function numberOf(name: string): number | null {
  return /^\d{10}\.wfs$/.test(name) ? Number(name.slice(0, 10)) : null;
}

function readHeader(file: DiskFile): Promise<Buffer> {
  const page = Buffer.alloc(segmentHeaderBytes);
  return new Promise((resolve, reject) => {
    file.read(page, 0, (error, bytesRead) => (error ? reject(error) : resolve(page.subarray(0, bytesRead))));
  });
}
