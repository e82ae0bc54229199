/**
 * What the drain does about damage: a chunk that cannot be read whole must not stop it. The journal's new blocks must
 * not be lost by that, nor may the damaged ones turn into zeros or into what they were before.
 *
 *  - The chunk below is damaged: the journal's blocks of it are written into the journal again, at its end, until the
 *    chunk has been written over whole.
 *  - A block in the journal is damaged: the good blocks of its chunk, those below included, are written into the
 *    journal again, and the chunk is stored as a damaged one. So reading the block stays CORRUPT.
 *  - A block of a file that is kept as a segment (`adoption.ts`) is damaged: nobody reads the file for that, so reading
 *    any block of its chunk gives CORRUPT until the chunk is written over.
 */
import { asWeftError } from '../base/errors.ts';
import { blockSizeBytes } from '../base/limits.ts';
import type { ChunkUpdate } from '../extents/extent-store.ts';
import type { BlockRun, Journal } from '../journal/journal.ts';
import type { Done } from './replica.ts';

export interface DamageEnv {
  journal: Journal;
  read: (volumeKey: number, chunkSizeBytes: number, offsetBytes: number, target: Buffer, done: Done) => void;
  log: { warn(facts: object, message: string): void };
}

/** One extent's share of a batch. */
export interface ExtentWork {
  volumeKey: number;
  updates: ChunkUpdate[];
  /** What the index said when the data was read. */
  runs: BlockRun[];
}

/** The work that can be stored of one that met damage. Errors other than CORRUPT are the drain's. */
export async function setDamagedAside(
  env: DamageEnv,
  work: ExtentWork,
  chunkSizeBytes: number,
): Promise<ExtentWork> {
  const updates: ChunkUpdate[] = [];
  for (const { checksum: _ofTheFirstReading, ...update } of work.updates) {
    const { chunkIndex, data } = update;
    const offsetBytes = chunkIndex * chunkSizeBytes;
    const damage = data === null ? null : await read(env, update, offsetBytes, data);
    if (damage === null) {
      updates.push(update);
      continue;
    }
    const facts = { volumeKey: work.volumeKey, offsetBytes, error: damage.message };
    env.log.warn(facts, 'a damaged chunk is left as it is');
    if (await keepJournalBlocks(env, update)) continue;
    await keepBlocksBelow(env, update);
    updates.push({ ...update, damaged: true });
  }
  return { ...work, updates, runs: runsInside(work.runs, updates, chunkSizeBytes) };
}

/** Writes what the journal has of the chunk again; false when a block of it is damaged there. */
async function keepJournalBlocks(env: DamageEnv, chunk: ChunkUpdate): Promise<boolean> {
  let allGood = true;
  for (const block of blocksOf(chunk)) {
    if (!(await keepBlock(env, chunk, block, (kind) => kind !== 'below'))) allGood = false;
  }
  return allGood;
}

/** Writes what only the extent store has of the chunk into the journal. What is damaged there stays it. */
async function keepBlocksBelow(env: DamageEnv, chunk: ChunkUpdate): Promise<void> {
  for (const block of blocksOf(chunk)) await keepBlock(env, chunk, block, (kind) => kind === 'below');
}

function blocksOf({ chunkIndex, chunkSizeBytes }: ChunkUpdate): number[] {
  const count = chunkSizeBytes / blockSizeBytes;
  return Array.from({ length: count }, (_, index) => chunkIndex * count + index);
}

/** Writes a block into the journal again if it is of the kind; false when it is damaged. */
async function keepBlock(
  env: DamageEnv,
  chunk: ChunkUpdate,
  block: number,
  concerns: (kind: BlockRun['kind']) => boolean,
): Promise<boolean> {
  const data = Buffer.allocUnsafe(blockSizeBytes);
  for (;;) {
    // Looked at in the tick the read begins in: so this is where the data comes from.
    const [run] = env.journal.index.runs(chunk.volumeKey, block, 1);
    if (run === undefined || !concerns(run.kind)) return true;
    if ((await read(env, chunk, block * blockSizeBytes, data)) !== null) return false;
    // A block that was written meanwhile is looked at again: what was read of it is old.
    if (await rewrite(env.journal, chunk.volumeKey, run, data)) return true;
  }
}

function rewrite(journal: Journal, volumeKey: number, run: BlockRun, data: Buffer): Promise<boolean> {
  return new Promise((resolve, reject) => {
    journal.rewrite(volumeKey, run, data, (error, rewritten) =>
      error === null ? resolve(rewritten) : reject(error),
    );
  });
}

/** What is damaged, or null. */
function read(
  env: DamageEnv,
  chunk: ChunkUpdate,
  offsetBytes: number,
  target: Buffer,
): Promise<Error | null> {
  return new Promise((resolve, reject) => {
    env.read(chunk.volumeKey, chunk.chunkSizeBytes, offsetBytes, target, (error) => {
      if (error === null || asWeftError(error).code === 'CORRUPT') resolve(error);
      else reject(error);
    });
  });
}

/** The parts of runs that lie in chunks which are stored. */
function runsInside(
  runs: readonly BlockRun[],
  updates: readonly ChunkUpdate[],
  chunkSizeBytes: number,
): BlockRun[] {
  const chunkBlocks = chunkSizeBytes / blockSizeBytes;
  const stored = new Set(updates.map((update) => update.chunkIndex));
  const inside: BlockRun[] = [];
  for (const run of runs) {
    for (let index = 0; index < run.count; index++) {
      if (!stored.has(Math.floor((run.block + index) / chunkBlocks))) continue;
      const address = run.kind === 'journal' ? run.address + index * blockSizeBytes : run.address;
      inside.push({ ...run, block: run.block + index, count: 1, address, checksums: new Uint32Array(0) });
    }
  }
  return inside;
}
