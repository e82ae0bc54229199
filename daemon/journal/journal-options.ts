/** What a journal is given: the world it lives in, its sizes, and whom it tells. */
import { GiB, KiB, MiB } from '../base/limits.ts';
import type { Clock } from '../env/clock.ts';
import type { Disk } from '../env/disk.ts';
import type { Random } from '../env/random.ts';
import type { RecordList } from './record-list.ts';

export const defaultJournalFileBytes = 64 * MiB;
export const defaultJournalCapacityBytes = GiB;
/** A batch takes no more records once its payloads are this long, in bytes: long enough for the disk's full speed. */
export const defaultBatchSizeBytes = 4 * MiB;
/** The shortest file that is of use, in bytes. */
export const minJournalFileBytes = 64 * KiB;

export interface JournalEnvironment {
  disk: Disk;
  clock: Clock;
  random: Random;
  log?: (message: string, facts: Record<string, unknown>) => void;
}

export interface JournalOptions {
  /** Directory in the store. */
  directory?: string;
  /** A record's payload and header have to fit into one file. */
  fileSizeBytes?: number;
  /** All files together; at least two. */
  capacityBytes?: number;
  batchSizeBytes?: number;
  /** Volumes whose records are taken in at recovery; all when not given. */
  keepVolume?: (volumeKey: number) => boolean;
  /** Called when the used fraction (0 to 1) crosses one of the levels in `pressure.ts`, up or down. */
  onPressure?: (usedFraction: number) => void;
  /** Called when a file has been sealed: there is something to drain. */
  onSealed?: () => void;
}

export type AppendDone = (error: Error | null) => void;

/** A file nothing is appended to any more: the unit of draining. */
export interface SealedFile {
  readonly fileNumber: number;
  readonly sizeBytes: number;
  /** What it holds, in the order it was appended. */
  readonly records: RecordList;
}
