/** Reads blocks out of a journal file, each against its checksum: the data or an error, never garbage. */
import { crc32c } from '@node-rs/crc32';
import { assert } from '../base/assert.ts';
import { asWeftError, WeftError } from '../base/errors.ts';
import { blockSizeBytes } from '../base/limits.ts';
import { joinedChecksum } from '../format/joined-checksum.ts';
import type { BlockRun } from './block-index.ts';
import type { JournalFile } from './journal-file.ts';

/** What is to be read: a 'journal' run of the index, or a part of one with the checksums of that part. */
export type ReadableRun = Pick<BlockRun, 'block' | 'count' | 'address' | 'checksums'>;

/** The file is kept until this calls back. Errors: CORRUPT with volumeKey and offsetBytes in the details, IO_ERROR. */
export function readBlocks(
  file: JournalFile,
  path: string,
  positionBytes: number,
  volumeKey: number,
  run: ReadableRun,
  target: Buffer,
  done: (error: Error | null) => void,
): void {
  assert(target.length === run.count * blockSizeBytes, 'the target is as long as the run');
  assert(run.checksums.length === run.count, 'every block has its checksum');
  file.pin();
  file.handle.read(target, positionBytes, (error, bytesRead) => {
    file.unpin();
    if (error) {
      done(asWeftError(error));
      return;
    }
    const bad = firstBadBlock(run.checksums, target, bytesRead);
    if (bad === -1) {
      done(null);
      return;
    }
    const offsetBytes = (run.block + bad) * blockSizeBytes;
    const fileOffsetBytes = positionBytes + bad * blockSizeBytes;
    done(
      new WeftError(
        'CORRUPT',
        `volume ${volumeKey} at offset ${offsetBytes}: the data in ${path} at ${fileOffsetBytes} fails its checksum: ` +
          'restore the volume from a snapshot or a backup, or write the block again',
        { details: { volumeKey, offsetBytes, path, fileOffsetBytes } },
      ),
    );
  });
}

function firstBadBlock(checksums: Uint32Array, target: Buffer, bytesRead: number): number {
  // One checksum over all blocks: one for each of them costs twice as much.
  if (
    bytesRead >= target.length &&
    crc32c(target) === joinedChecksum(checksums, 0, checksums.length, blockSizeBytes)
  ) {
    return -1;
  }
  for (let block = 0; block < checksums.length; block += 1) {
    const at = block * blockSizeBytes;
    if (at + blockSizeBytes > bytesRead) return block;
    if (crc32c(target.subarray(at, at + blockSizeBytes)) !== checksums[block]) return block;
  }
  return -1;
}
