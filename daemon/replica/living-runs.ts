/** What the index still refers to of a journal file that is to be drained. */
import { blockSizeBytes } from '../base/limits.ts';
import type { Clock } from '../env/clock.ts';
import type { Journal, SealedFile } from '../journal/journal.ts';

/** Neighbouring blocks of a volume, one behind the other in the file; or zeros of one record. */
export interface LivingRun {
  kind: 'journal' | 'zero';
  volumeKey: number;
  block: number;
  count: number;
  /** Of the first block, as in the index. */
  address: number;
  /** crc32c of each block; of zeros none. */
  checksums: number[];
}

/** Records looked at without a pause: others have work to do, and a file may hold 16,000. */
const recordsAtOnce = 500;

/** In the order of the file. What is said of a block holds in the tick it was looked at. */
export async function livingRuns(journal: Journal, file: SealedFile, clock: Clock): Promise<LivingRun[]> {
  const living: LivingRun[] = [];
  let last: LivingRun | null = null;
  let untilPause = recordsAtOnce;
  for (const { kind, volumeKey, offsetBytes, lengthBytes, address: recordAddress } of file.records) {
    if (kind === 'stored') continue;
    if (--untilPause === 0) {
      untilPause = recordsAtOnce;
      await new Promise<void>((resolve) => clock.after(0, resolve));
    }
    const [firstBlock, count] = [offsetBytes / blockSizeBytes, lengthBytes / blockSizeBytes];
    for (const run of journal.index.runs(volumeKey, firstBlock, count)) {
      // Where the file has a block twice, the later record is the one that lives.
      const offset = kind === 'write' ? run.block * blockSizeBytes - offsetBytes : 0;
      if (run.kind === 'below' || run.address !== recordAddress + offset) continue;
      if (last !== null && follows(run, volumeKey, last)) {
        last.count += run.count;
        for (const checksum of run.checksums) last.checksums.push(checksum);
        continue;
      }
      const { block, address, checksums } = run;
      last = { kind: run.kind, volumeKey, block, count: run.count, address, checksums: [...checksums] };
      living.push(last);
    }
  }
  return living;
}

function follows(
  run: { kind: string; block: number; address: number },
  volumeKey: number,
  last: LivingRun,
): boolean {
  return (
    run.kind === 'journal' &&
    last.kind === 'journal' &&
    last.volumeKey === volumeKey &&
    run.block === last.block + last.count &&
    run.address === last.address + last.count * blockSizeBytes
  );
}
