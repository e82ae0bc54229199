/**
 * Which blocks have their newest content in the journal, and where.
 *
 * An address is fileNumber × stride + offset in the file, in bytes, always positive: of the block's payload, or of
 * the record header for zeros. Zeros are kept as one entry for each whole extent, and as entries of single blocks
 * with the address negated at the edges. A block's own entry wins over its extent's: it is newer, since zeroing an
 * extent drops the entries in it.
 */
import { blockSizeBytes, extentSizeBytes } from '../base/limits.ts';
import { BlockMap } from './block-map.ts';

const extentBlocks = extentSizeBytes / blockSizeBytes;
const noChecksums = new Uint32Array(0);

/** Neighbouring blocks with one answer. 'below': the journal knows nothing of them, ask the extent store. */
export interface BlockRun {
  kind: 'journal' | 'zero' | 'below';
  block: number;
  count: number;
  /** Of the first block; the following ones of a 'journal' run lie behind it, those of a 'zero' run share it. */
  address: number;
  /** crc32c of each block of a 'journal' run; else empty. */
  checksums: Uint32Array;
}

interface VolumeEntry {
  blocks: BlockMap;
  /** Whole extents that are zero: extent index -> address of the zero record. */
  zeroExtents: Map<number, number>;
  /** Entries of `blocks` that are data. */
  dataBlocks: number;
}

export class BlockIndex {
  readonly #volumes = new Map<number, VolumeEntry>();
  readonly #scratch = new Uint32Array(1);

  /** A write of `count` blocks has been recorded at `address`; its checksums start at `checksums[from]`. */
  write(
    volumeKey: number,
    firstBlock: number,
    count: number,
    address: number,
    checksums: Uint32Array,
    from: number,
  ): void {
    const volume = this.#volume(volumeKey);
    const blocks = volume.blocks;
    blocks.reserve(count);
    let added = count;
    for (let index = 0; index < count; index += 1) {
      const before = blocks.set(
        firstBlock + index,
        address + index * blockSizeBytes,
        checksums[from + index]!,
      );
      if (before > 0) added -= 1;
    }
    volume.dataBlocks += added;
  }

  /** The range reads as zeros since the record at `address`. */
  zero(volumeKey: number, firstBlock: number, count: number, address: number): void {
    const volume = this.#volume(volumeKey);
    const end = firstBlock + count;
    const firstExtent = Math.ceil(firstBlock / extentBlocks);
    const endExtent = Math.floor(end / extentBlocks);
    if (firstExtent >= endExtent) {
      this.#zeroBlocks(volume, firstBlock, end, address);
      return;
    }
    this.#zeroBlocks(volume, firstBlock, firstExtent * extentBlocks, address);
    this.#forget(volume, firstExtent * extentBlocks, endExtent * extentBlocks);
    for (let extent = firstExtent; extent < endExtent; extent += 1) volume.zeroExtents.set(extent, address);
    this.#zeroBlocks(volume, endExtent * extentBlocks, end, address);
  }

  /** The extent store has the range as it is from now on: forgets all that is known of it. */
  stored(volumeKey: number, firstBlock: number, count: number): void {
    const volume = this.#volumes.get(volumeKey);
    if (!volume) return;
    const end = firstBlock + count;
    const firstExtent = Math.floor(firstBlock / extentBlocks);
    const endExtent = Math.ceil(end / extentBlocks);
    for (let extent = firstExtent; extent < endExtent; extent += 1) {
      const whole = extent * extentBlocks >= firstBlock && (extent + 1) * extentBlocks <= end;
      if (whole) volume.zeroExtents.delete(extent);
      else this.#expandZeroExtent(volume, extent);
    }
    this.#forget(volume, firstBlock, end);
    if (volume.blocks.count === 0 && volume.zeroExtents.size === 0) this.#volumes.delete(volumeKey);
  }

  /** The range, cut into runs in order. What they say holds until the index changes: read in the same tick. */
  runs(volumeKey: number, firstBlock: number, count: number): BlockRun[] {
    const volume = this.#volumes.get(volumeKey);
    if (!volume || (volume.blocks.count === 0 && volume.zeroExtents.size === 0)) {
      return [{ kind: 'below', block: firstBlock, count, address: 0, checksums: noChecksums }];
    }
    const blocks = volume.blocks;
    const found = count === 1 ? this.#scratch : new Uint32Array(count);
    const runs: BlockRun[] = [];
    let run: BlockRun | null = null;
    let zeroExtent = 0;
    for (let index = 0; index < count; index += 1) {
      const block = firstBlock + index;
      if (index === 0 || block % extentBlocks === 0) {
        zeroExtent = volume.zeroExtents.get(Math.floor(block / extentBlocks)) ?? 0;
      }
      const slot = blocks.count === 0 ? -1 : blocks.find(block);
      const entry = slot === -1 ? -zeroExtent : blocks.addressAt(slot);
      const kind = entry > 0 ? 'journal' : entry < 0 ? 'zero' : 'below';
      const address = Math.abs(entry);
      if (entry > 0) found[index] = blocks.checksumAt(slot);
      if (
        run !== null &&
        run.kind === kind &&
        address === run.address + (entry > 0 ? run.count * blockSizeBytes : 0)
      ) {
        run.count += 1;
      } else {
        run = { kind, block, count: 1, address, checksums: noChecksums };
        runs.push(run);
      }
    }
    for (const each of runs) {
      if (each.kind !== 'journal') continue;
      each.checksums = found.slice(each.block - firstBlock, each.block - firstBlock + each.count);
    }
    return runs;
  }

  /**
   * Forgets what a run says, wherever the index still says so: blocks written or zeroed since stay. `run` may be a
   * part of a run, or made from a record (its first block, count and address).
   */
  remove(volumeKey: number, run: Pick<BlockRun, 'kind' | 'block' | 'count' | 'address'>): void {
    const volume = this.#volumes.get(volumeKey);
    if (!volume || run.kind === 'below') return;
    if (run.kind === 'journal') {
      for (let index = 0; index < run.count; index += 1) {
        const block = run.block + index;
        const slot = volume.blocks.find(block);
        if (slot === -1 || volume.blocks.addressAt(slot) !== run.address + index * blockSizeBytes) continue;
        // The older zeros of the extent must not come to light again under the block.
        const expanded = this.#expandZeroExtent(volume, Math.floor(block / extentBlocks));
        volume.blocks.removeSlot(expanded ? volume.blocks.find(block) : slot);
        volume.dataBlocks -= 1;
      }
    } else {
      this.#removeZeros(volume, run.block, run.block + run.count, run.address);
    }
    volume.blocks.shrink();
    if (volume.blocks.count === 0 && volume.zeroExtents.size === 0) this.#volumes.delete(volumeKey);
  }

  /** Blocks of a volume whose newest content is data in the journal (zeros not counted). */
  liveBlocks(volumeKey: number): number {
    return this.#volumes.get(volumeKey)?.dataBlocks ?? 0;
  }

  /** Blocks of a volume the journal has a word on, zeros at the edges of unmapped ranges included. */
  entries(volumeKey: number): number {
    return this.#volumes.get(volumeKey)?.blocks.count ?? 0;
  }

  /** How many chunks of so many blocks those lie in. Goes over all of them: not for the hot path. */
  touchedChunks(volumeKey: number, chunkBlocks: number): number {
    return this.#volumes.get(volumeKey)?.blocks.countRuns(chunkBlocks) ?? 0;
  }

  volumeKeys(): number[] {
    return [...this.#volumes.keys()];
  }

  dropVolume(volumeKey: number): void {
    this.#volumes.delete(volumeKey);
  }

  #volume(volumeKey: number): VolumeEntry {
    let volume = this.#volumes.get(volumeKey);
    if (!volume) {
      volume = { blocks: new BlockMap(), zeroExtents: new Map(), dataBlocks: 0 };
      this.#volumes.set(volumeKey, volume);
    }
    return volume;
  }

  #zeroBlocks(volume: VolumeEntry, from: number, end: number, address: number): void {
    if (from >= end) return;
    volume.blocks.reserve(end - from);
    for (let block = from; block < end; block += 1) {
      if (volume.blocks.set(block, -address, 0) > 0) volume.dataBlocks -= 1;
    }
  }

  /** Drops the entries of blocks from `from` up to `end`. */
  #forget(volume: VolumeEntry, from: number, end: number): void {
    for (const block of this.#entriesIn(volume.blocks, from, end)) {
      const slot = volume.blocks.find(block);
      if (volume.blocks.addressAt(slot) > 0) volume.dataBlocks -= 1;
      volume.blocks.removeSlot(slot);
    }
    volume.blocks.shrink();
  }

  /** Blocks of the range that have an entry; goes over the smaller of the range and the map. */
  #entriesIn(blocks: BlockMap, from: number, end: number): number[] {
    if (blocks.count === 0) return [];
    if (end - from > blocks.slots) return blocks.blocksWhere((block) => block >= from && block < end);
    const found: number[] = [];
    for (let block = from; block < end; block += 1) {
      if (blocks.find(block) !== -1) found.push(block);
    }
    return found;
  }

  #removeZeros(volume: VolumeEntry, from: number, end: number, address: number): void {
    const firstExtent = Math.floor(from / extentBlocks);
    const endExtent = Math.ceil(end / extentBlocks);
    for (let extent = firstExtent; extent < endExtent; extent += 1) {
      if (volume.zeroExtents.get(extent) !== address) continue;
      const whole = extent * extentBlocks >= from && (extent + 1) * extentBlocks <= end;
      if (whole) volume.zeroExtents.delete(extent);
      else this.#expandZeroExtent(volume, extent);
    }
    const blocks = volume.blocks;
    for (const block of this.#entriesIn(blocks, from, end)) {
      if (blocks.addressAt(blocks.find(block)) !== -address) continue;
      this.#expandZeroExtent(volume, Math.floor(block / extentBlocks));
      blocks.removeSlot(blocks.find(block));
    }
  }

  /** Turns the one entry of a zero extent into entries of its blocks, so that some of them can go. */
  #expandZeroExtent(volume: VolumeEntry, extent: number): boolean {
    const address = volume.zeroExtents.get(extent);
    if (address === undefined) return false;
    volume.zeroExtents.delete(extent);
    volume.blocks.reserve(extentBlocks);
    for (let block = extent * extentBlocks; block < (extent + 1) * extentBlocks; block += 1) {
      if (volume.blocks.find(block) === -1) volume.blocks.set(block, -address, 0);
    }
    return true;
  }
}
