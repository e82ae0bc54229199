/** Writes one batch at a time and puts it into the index: everything about a batch that is its bytes. */
import { assert } from '../base/assert.ts';
import { blockSizeBytes } from '../base/limits.ts';
import {
  batchHeaderBytes,
  checksumBlocks,
  encodeBatchHeader,
  type JournalRecord,
  maxBatchBlocks,
  maxBatchHeaderBytes,
  maxBatchRecords,
} from '../format/journal-batch.ts';
import { encodeJournalFileHeader, journalFileHeaderBytes } from '../format/journal-file.ts';
import type { BlockIndex } from './block-index.ts';
import type { JournalFile } from './journal-file.ts';

/** Kept free at the end of a file for the empty batch that `Journal.close` ends the journal with, in bytes. */
const markerBytes = batchHeaderBytes(0, 0);

export class BatchWriter {
  readonly #index: BlockIndex;
  readonly #strideBytes: number;
  // One write at a time: one header and one list of checksums serve all batches.
  readonly #header = Buffer.alloc(maxBatchHeaderBytes);
  readonly #checksums = new Uint32Array(maxBatchBlocks);

  constructor(index: BlockIndex, strideBytes: number) {
    this.#index = index;
    this.#strideBytes = strideBytes;
  }

  /** Appends a batch to the file. It is in the index, and the file's end behind it, when this calls back. */
  write(
    file: JournalFile,
    batch: number,
    durableBatch: number,
    records: readonly JournalRecord[],
    done: (error: Error | null) => void,
  ): void {
    const pieces: Buffer[] = [this.#header];
    let blocks = 0;
    for (const { data } of records) {
      if (data === null) continue;
      blocks = checksumBlocks(data, this.#checksums, blocks);
      pieces.push(data);
    }
    const header = this.#header.subarray(0, batchHeaderBytes(records.length, blocks));
    pieces[0] = header;
    const starts = encodeBatchHeader(header, file, batch, durableBatch, records, this.#checksums);
    let position = file.endBytes;
    if (!file.begun) {
      pieces.unshift(this.#fileHeader(file, batch, durableBatch));
      position = 0;
    }
    file.handle.write(pieces, position, (error) => {
      if (!error) {
        file.begun = true;
        this.#take(file, records, header.length, starts);
        file.endBytes += header.length + blocks * blockSizeBytes;
      }
      done(error);
    });
  }

  #fileHeader(file: JournalFile, firstBatch: number, durableBatch: number): Buffer {
    const { incarnation, fileNumber, sizeBytes } = file;
    return encodeJournalFileHeader({
      incarnation,
      fileNumber,
      firstBatch,
      durableBatch,
      fileSizeBytes: sizeBytes,
    });
  }

  #take(file: JournalFile, records: readonly JournalRecord[], headerBytes: number, starts: number[]): void {
    const base = file.fileNumber * this.#strideBytes + file.endBytes;
    let payload = base + headerBytes;
    let checksum = 0;
    for (let at = 0; at < records.length; at += 1) {
      const { kind, volumeKey, offsetBytes, lengthBytes } = records[at]!;
      const firstBlock = offsetBytes / blockSizeBytes;
      const count = lengthBytes / blockSizeBytes;
      if (kind === 'write') {
        this.#index.write(volumeKey, firstBlock, count, payload, this.#checksums, checksum);
        file.records.add(kind, volumeKey, offsetBytes, lengthBytes, payload);
        payload += lengthBytes;
        checksum += count;
      } else {
        const address = base + starts[at]!;
        if (kind === 'zero') this.#index.zero(volumeKey, firstBlock, count, address);
        else this.#index.stored(volumeKey, firstBlock, count);
        file.records.add(kind, volumeKey, offsetBytes, lengthBytes, address);
      }
    }
  }
}

/** How many appends, from the head of the queue, go into the next batch in this file. */
export function countThatFit(
  queue: readonly { record: JournalRecord }[],
  file: JournalFile,
  batchSizeBytes: number,
): number {
  const roomBytes = file.sizeBytes - file.endBytes - markerBytes;
  let blocks = 0;
  let count = 0;
  for (const { record } of queue) {
    const more = record.kind === 'write' ? record.lengthBytes / blockSizeBytes : 0;
    const payloadBytes = (blocks + more) * blockSizeBytes;
    if (batchHeaderBytes(count + 1, blocks + more) + payloadBytes > roomBytes) break;
    if (count > 0 && (payloadBytes > batchSizeBytes || count === maxBatchRecords)) break;
    blocks += more;
    count += 1;
  }
  return count;
}

/** A fault of the caller when a record could never be written, even into an empty file. */
export function assertFits(record: JournalRecord, fileSizeBytes: number): void {
  const { kind, data, offsetBytes, lengthBytes } = record;
  assert(
    offsetBytes % blockSizeBytes === 0 && lengthBytes % blockSizeBytes === 0,
    'records are whole blocks',
  );
  assert(lengthBytes > 0, 'a record covers something');
  if (kind !== 'write') {
    assert(data === null, 'only writes have data');
    return;
  }
  assert(data !== null && data.length === lengthBytes, 'a write has its data');
  const blocks = lengthBytes / blockSizeBytes;
  assert(blocks <= maxBatchBlocks, 'a record fits into a batch');
  const roomBytes = fileSizeBytes - journalFileHeaderBytes - markerBytes;
  assert(batchHeaderBytes(1, blocks) + lengthBytes <= roomBytes, 'a batch fits into a file');
}
