/**
 * What a writer knows of a volume it wrote to: for every block, the changes it asked for, in order, and up to which
 * of them the volume must have kept. After a crash a block must look as after one of its changes not older than that:
 * anything else is a lost write, a torn block, or somebody else's data.
 */
import { blockSizeBytes, sectorSizeBytes } from '../../daemon/base/limits.ts';

const sectorsPerBlock = blockSizeBytes / sectorSizeBytes;
const sectorWords = sectorSizeBytes / 4;

/** One change of one block: the generation that each sector of it carries afterwards; undefined where it has none. */
interface BlockChange {
  generation: number;
  /** First sector in the block, and how many. */
  sector: number;
  sectors: number;
  zero: boolean;
  acknowledged: boolean;
  /** Answered with an error: it may have been carried out or not. */
  refused: boolean;
}

interface BlockHistory {
  /** The generation of each sector before the changes; 0 for zeros. */
  base: number[];
  changes: BlockChange[];
  /** How many of the changes power loss must keep. */
  durable: number;
}

export type Loss = 'process' | 'power';

export class SectorLedger {
  readonly #blocks = new Map<number, BlockHistory>();
  #generation = 0;

  /** Notes a change that is about to be asked for; gives its generation. */
  begin(offsetBytes: number, lengthBytes: number, zero: boolean): number {
    const generation = ++this.#generation;
    forEachBlock(offsetBytes, lengthBytes, (block, sector, sectors) => {
      this.#history(block).changes.push({
        generation,
        sector,
        sectors,
        zero,
        acknowledged: false,
        refused: false,
      });
    });
    return generation;
  }

  /** The change was acknowledged, `durable` when power loss may not take it. */
  acknowledge(generation: number, offsetBytes: number, lengthBytes: number, durable: boolean): void {
    forEachBlock(offsetBytes, lengthBytes, (block) => {
      const history = this.#history(block);
      const index = history.changes.findIndex((change) => change.generation === generation);
      const change = history.changes[index];
      if (change === undefined) return;
      change.acknowledged = true;
      if (durable) history.durable = Math.max(history.durable, index + 1);
    });
  }

  /** The change was answered with an error. */
  refuse(generation: number, offsetBytes: number, lengthBytes: number): void {
    forEachBlock(offsetBytes, lengthBytes, (block) => {
      const change = this.#history(block).changes.find((each) => each.generation === generation);
      if (change !== undefined) change.refused = true;
    });
  }

  /** How many changes of a block there are up to the last one acknowledged: a read that begins now sees them. */
  acknowledged(block: number): number {
    return (this.#blocks.get(block)?.changes.findLastIndex((change) => change.acknowledged) ?? -1) + 1;
  }

  /** What a flush that begins now must have made durable once it is answered; call the result then. */
  beginFlush(): () => void {
    const promised: [BlockHistory, number][] = [];
    for (const history of this.#blocks.values()) {
      const last = history.changes.findLastIndex((change) => change.acknowledged) + 1;
      if (last > history.durable) promised.push([history, last]);
    }
    return () => {
      for (const [history, last] of promised) history.durable = Math.max(history.durable, last);
    };
  }

  /** The bytes of a change: every sector names itself and its generation. */
  fill(target: Buffer, offsetBytes: number, generation: number): void {
    for (let at = 0; at < target.length; at += sectorSizeBytes) {
      stamp(target.subarray(at, at + sectorSizeBytes), (offsetBytes + at) / sectorSizeBytes, generation);
    }
  }

  /**
   * Compares a block read after a crash with what may be there, and takes what was found as the truth from now on.
   * @returns what is wrong, or null.
   */
  verify(block: number, bytes: Buffer, loss: Loss): string | null {
    const found = readGenerations(bytes, block);
    if (typeof found === 'string') return `block ${block}: ${found}`;
    const history = this.#blocks.get(block);
    if (history === undefined) {
      return found.every((generation) => generation === 0)
        ? null
        : `block ${block}: data nobody wrote (${found})`;
    }
    const floor = loss === 'process' ? this.acknowledged(block) : history.durable;
    const fault = mismatch(history, found, floor);
    if (fault !== null) return `block ${block}: ${fault}`;
    this.#blocks.set(block, { base: found, changes: [], durable: 0 });
    return null;
  }

  /** Whether a block read while nothing is in flight shows its last change. */
  verifyCurrent(block: number, bytes: Buffer): string | null {
    return this.verifyFrom(block, bytes, this.#blocks.get(block)?.changes.length ?? 0);
  }

  /** Whether a block read under load shows one of its changes from the `floor`th on. */
  verifyFrom(block: number, bytes: Buffer, floor: number): string | null {
    const found = readGenerations(bytes, block);
    if (typeof found === 'string') return `block ${block}: ${found}`;
    const history = this.#blocks.get(block) ?? {
      base: new Array<number>(sectorsPerBlock).fill(0),
      changes: [],
      durable: 0,
    };
    const fault = mismatch(history, found, floor);
    return fault === null ? null : `block ${block}: ${fault}`;
  }

  #history(block: number): BlockHistory {
    let history = this.#blocks.get(block);
    if (history === undefined) {
      history = { base: new Array<number>(sectorsPerBlock).fill(0), changes: [], durable: 0 };
      this.#blocks.set(block, history);
    }
    return history;
  }
}

/** What is wrong with a block, when it does not look as after one of its changes from the `floor`th on; or null. */
function mismatch(history: BlockHistory, found: readonly number[], floor: number): string | null {
  const isBase = history.base.every((generation, sector) => generation === found[sector]);
  if (history.changes.length === 0 && isBase) return null;
  const wanted = found.join();
  let states = new Set([history.base.join()]);
  const allowed: string[] = [];
  for (let kept = 0; kept <= history.changes.length; kept++) {
    const change = history.changes[kept - 1];
    if (change !== undefined) {
      const changed = new Set([...states].map((state) => applied(state, change)));
      // Of a change that was refused nobody knows: the block may be with it or without it.
      states = change.refused ? new Set([...states, ...changed]) : changed;
    }
    if (kept < floor) continue;
    if (states.has(wanted)) return null;
    allowed.push(...states);
  }
  return `found ${wanted}, allowed ${allowed.join(' or ')}`;
}

function applied(state: string, change: BlockChange): string {
  if (change.sectors === sectorsPerBlock)
    return new Array(sectorsPerBlock).fill(change.zero ? 0 : change.generation).join();
  const generations = state.split(',').map(Number);
  generations.fill(change.zero ? 0 : change.generation, change.sector, change.sector + change.sectors);
  return generations.join();
}

function forEachBlock(
  offsetBytes: number,
  lengthBytes: number,
  visit: (block: number, sector: number, sectors: number) => void,
): void {
  const first = offsetBytes / sectorSizeBytes;
  const end = first + lengthBytes / sectorSizeBytes;
  for (let sector = first; sector < end; ) {
    const block = Math.floor(sector / sectorsPerBlock);
    const next = Math.min(end, (block + 1) * sectorsPerBlock);
    visit(block, sector - block * sectorsPerBlock, next - sector);
    sector = next;
  }
}

/** A sector: its number, its generation, and a pattern of both to the end. */
function stamp(target: Buffer, sector: number, generation: number): void {
  for (let at = 0; at < sectorSizeBytes; at += 8) {
    target.writeUInt32LE((sector ^ (at << 20)) >>> 0, at);
    target.writeUInt32LE(generation, at + 4);
  }
}

function readGenerations(bytes: Buffer, block: number): number[] | string {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, blockSizeBytes / 4);
  const generations: number[] = [];
  for (let index = 0; index < sectorsPerBlock; index++) {
    const first = index * sectorWords;
    const generation = words[first + 1]!;
    const sector = generation === 0 ? 0 : block * sectorsPerBlock + index;
    for (let word = 0; word < sectorWords; word += 2) {
      const wanted = generation === 0 ? 0 : (sector ^ (word << 22)) >>> 0;
      if (words[first + word] === wanted && words[first + word + 1] === generation) continue;
      return `sector ${index} is torn or not its own`;
    }
    generations.push(generation);
  }
  return generations;
}
