/**
 * What a writer knows of a volume it wrote to: for every block, the changes it asked for, in order, and up to which
 * of them the volume must have kept. After a crash a block must look as after one of its changes not older than that:
 * anything else is a lost write, a torn block, or somebody else's data.
 */
import { blockSizeBytes, sectorSizeBytes } from '../../daemon/base/limits.ts';

const sectorsPerBlock = blockSizeBytes / sectorSizeBytes;
const sectorWords = sectorSizeBytes / 4;

/** What a sector holds: where it was written first, and the generation of that write; 0 for zeros. */
type Token = number;
const tokensPerGeneration = 2 ** 24;

/** One change of one block. */
interface BlockChange {
  generation: number;
  /** Of a copy: the block it takes the place of its own sectors from. */
  from: CopiedBlock | null;
  /** First sector in the block, and how many. */
  sector: number;
  sectors: number;
  zero: boolean;
  acknowledged: boolean;
  /** Answered with an error: it may have been carried out or not. */
  refused: boolean;
}

/** The states of another block that a copy may have met: those from one on, up to one (so far, while it is under way). */
interface CopiedBlock {
  history: BlockHistory;
  floor: number;
  end: number | null;
}

interface BlockHistory {
  block: number;
  /** What each sector held before the changes. */
  base: Token[];
  changes: BlockChange[];
  /** How many of the changes power loss must keep. */
  durable: number;
}

export type Loss = 'process' | 'power';

/** Gives generations; ledgers of volumes that are copied to each other share one. */
export interface Generations {
  last: number;
}

export class SectorLedger {
  readonly #blocks = new Map<number, BlockHistory>();
  readonly #generations: Generations;

  constructor(generations: Generations = { last: 0 }) {
    this.#generations = generations;
  }

  /** Notes a change that is about to be asked for; gives its generation. */
  begin(offsetBytes: number, lengthBytes: number, zero: boolean): number {
    const generation = ++this.#generations.last;
    forEachBlock(offsetBytes, lengthBytes, (block, sector, sectors) => {
      this.#history(block).changes.push({
        generation,
        from: null,
        sector,
        sectors,
        zero,
        acknowledged: false,
        refused: false,
      });
    });
    return generation;
  }

  /** Notes a copy of whole blocks that is about to be asked for; gives its generation. */
  beginCopy(
    offsetBytes: number,
    lengthBytes: number,
    source: SectorLedger,
    sourceOffsetBytes: number,
  ): number {
    const generation = ++this.#generations.last;
    const behind = (sourceOffsetBytes - offsetBytes) / blockSizeBytes;
    forEachBlock(offsetBytes, lengthBytes, (block, sector, sectors) => {
      const history = source.#history(block + behind);
      const from = { history, floor: source.acknowledged(block + behind), end: null };
      const flags = { zero: false, acknowledged: false, refused: false };
      this.#history(block).changes.push({ generation, from, sector, sectors, ...flags });
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
      endCopy(change);
      change.acknowledged = true;
      if (durable) history.durable = Math.max(history.durable, index + 1);
    });
  }

  /** The change was answered with an error. */
  refuse(generation: number, offsetBytes: number, lengthBytes: number): void {
    forEachBlock(offsetBytes, lengthBytes, (block) => {
      const change = this.#history(block).changes.find((each) => each.generation === generation);
      if (change === undefined) return;
      endCopy(change);
      change.refused = true;
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
    const found = readTokens(bytes);
    if (typeof found === 'string') return `block ${block}: ${found}`;
    const history = this.#blocks.get(block);
    if (history === undefined) {
      return found.every((token) => token === 0)
        ? null
        : `block ${block}: data nobody wrote (${shown(found.join())})`;
    }
    const floor = loss === 'process' ? this.acknowledged(block) : history.durable;
    const fault = mismatch(history, found, floor);
    if (fault !== null) return `block ${block}: ${fault}`;
    this.#blocks.set(block, { block, base: found, changes: [], durable: 0 });
    return null;
  }

  /** Whether a block read while nothing is in flight shows its last change. */
  verifyCurrent(block: number, bytes: Buffer): string | null {
    return this.verifyFrom(block, bytes, this.#blocks.get(block)?.changes.length ?? 0);
  }

  /** Whether a block read under load shows one of its changes from the `floor`th on. */
  verifyFrom(block: number, bytes: Buffer, floor: number): string | null {
    const found = readTokens(bytes);
    if (typeof found === 'string') return `block ${block}: ${found}`;
    const history = this.#blocks.get(block) ?? unwritten(block);
    const fault = mismatch(history, found, floor);
    return fault === null ? null : `block ${block}: ${fault}`;
  }

  #history(block: number): BlockHistory {
    let history = this.#blocks.get(block);
    if (history === undefined) {
      history = unwritten(block);
      this.#blocks.set(block, history);
    }
    return history;
  }
}

function unwritten(block: number): BlockHistory {
  return { block, base: new Array<Token>(sectorsPerBlock).fill(0), changes: [], durable: 0 };
}

function endCopy({ from }: BlockChange): void {
  if (from !== null) from.end = from.history.changes.length;
}

/** What is wrong with a block, when it does not look as after one of its changes from the `floor`th on; or null. */
function mismatch(history: BlockHistory, found: readonly Token[], floor: number): string | null {
  const wanted = found.join();
  const allowed = states(history, floor, history.changes.length);
  if (allowed.has(wanted)) return null;
  return `found ${shown(wanted)}, allowed ${[...allowed].map(shown).join(' or ')}`;
}

/** How the block may look as after one of its changes from the `floor`th on, up to the `end`th. */
function states({ block, base, changes }: BlockHistory, floor: number, end: number): Set<string> {
  // What came before a change of the whole block is of no account, unless that was refused.
  const isWhole = (change: BlockChange) => change.sectors === sectorsPerBlock && !change.refused;
  const first = Math.max(0, changes.slice(0, floor).findLastIndex(isWhole));
  let now = new Set([base.join()]);
  const all = new Set<string>();
  for (let kept = first; kept <= end; kept++) {
    const change = kept === first ? undefined : changes[kept - 1]!;
    if (change !== undefined) {
      const changed = applied(now, change, block);
      // Of a change that was refused nobody knows: the block may be with it or without it.
      now = change.refused ? new Set([...now, ...changed]) : changed;
    }
    if (kept >= floor) for (const state of now) all.add(state);
  }
  return all;
}

function applied(before: Set<string>, change: BlockChange, block: number): Set<string> {
  const { from, zero, generation, sector, sectors } = change;
  if (from !== null) return states(from.history, from.floor, from.end ?? from.history.changes.length);
  const after = new Set<string>();
  for (const state of before) {
    const tokens = state.split(',').map(Number);
    for (let at = sector; at < sector + sectors; at++) {
      tokens[at] = zero ? 0 : generation * tokensPerGeneration + block * sectorsPerBlock + at;
    }
    after.add(tokens.join());
  }
  return after;
}

/** A state for people: each sector as generation@sector. */
function shown(state: string): string {
  const tokens = state.split(',').map(Number);
  return tokens
    .map((token) => `${Math.floor(token / tokensPerGeneration)}@${token % tokensPerGeneration}`)
    .join();
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

function readTokens(bytes: Buffer): Token[] | string {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, blockSizeBytes / 4);
  const tokens: Token[] = [];
  for (let index = 0; index < sectorsPerBlock; index++) {
    const first = index * sectorWords;
    const generation = words[first + 1]!;
    const sector = generation === 0 ? 0 : words[first]!;
    for (let word = 0; word < sectorWords; word += 2) {
      const wanted = generation === 0 ? 0 : (sector ^ (word << 22)) >>> 0;
      if (words[first + word] === wanted && words[first + word + 1] === generation) continue;
      return `sector ${index} is torn`;
    }
    tokens.push(generation * tokensPerGeneration + sector);
  }
  return tokens;
}
