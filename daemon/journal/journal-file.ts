/** One numbered file of the journal while the journal is open. */
import { assert } from '../base/assert.ts';
import type { DiskFile } from '../env/disk.ts';
import { journalFileHeaderBytes } from '../format/journal-file.ts';
import { RecordList } from './record-list.ts';

export interface JournalFileFacts {
  fileNumber: number;
  incarnation: Buffer;
  sizeBytes: number;
  handle: DiskFile;
  begun: boolean;
  sparse: boolean;
  own: boolean;
}

export class JournalFile {
  readonly fileNumber: number;
  readonly incarnation: Buffer;
  readonly sizeBytes: number;
  readonly handle: DiskFile;
  readonly records = new RecordList();
  /** The header on disk says that the file is not begun: the first batch takes the true one along. */
  begun: boolean;
  /** Where the next batch goes, in bytes. */
  endBytes = journalFileHeaderBytes;
  /** Number of the newest batch in it; 0 when there is none. */
  lastBatch = 0;
  /** Number of the newest batch in it that is known durable. */
  syncedBatch = 0;
  /** Payloads of large batches in it, in bytes. */
  streamedBytes = 0;
  /** It has been given a second name, or may have been before a restart: it is not used again for the journal. */
  shared = false;
  /** Its room on the disk is not taken yet where nothing has been written. */
  readonly sparse: boolean;
  /** Whether it was made, or used again, since the journal was opened: one that was recovered may have a second name. */
  readonly own: boolean;
  #readers = 0;
  #idle: (() => void) | null = null;

  constructor(facts: JournalFileFacts) {
    this.fileNumber = facts.fileNumber;
    this.incarnation = facts.incarnation;
    this.sizeBytes = facts.sizeBytes;
    this.handle = facts.handle;
    this.begun = facts.begun;
    this.sparse = facts.sparse;
    this.own = facts.own;
  }

  /** Whether another file of the journal may take its place on the disk once it is released. */
  get reusable(): boolean {
    return this.own && !this.shared && !this.sparse;
  }

  pin(): void {
    this.#readers += 1;
  }

  unpin(): void {
    this.#readers -= 1;
    assert(this.#readers >= 0, 'a reader leaves a file once');
    if (this.#readers === 0) this.#idle?.();
  }

  /** Resolves once nobody reads the file. */
  async idle(): Promise<void> {
    while (this.#readers > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
      this.#idle = null;
    }
  }
}

export function writeToFile(file: DiskFile, pieces: readonly Uint8Array[], position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(pieces, position, (error) => (error ? reject(error) : resolve()));
  });
}

export function syncFile(file: DiskFile): Promise<void> {
  return new Promise((resolve, reject) => {
    file.sync((error) => (error ? reject(error) : resolve()));
  });
}

/** Returns how many bytes there were: fewer than asked only at the file's end. */
export function readFromFile(file: DiskFile, target: Uint8Array, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    file.read(target, position, (error, bytesRead) => (error ? reject(error) : resolve(bytesRead)));
  });
}
