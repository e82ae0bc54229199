/**
 * Block number -> (address, crc32c) in typed arrays: 20 bytes a slot, no garbage (a Map of 2.6 million entries takes
 * six times the memory and is eight times slower).
 *
 * Open addressing with linear probing. Sixteen neighbouring blocks share one hash and lie side by side, so that a
 * 1 MiB write touches 16 places and not 256. At most half the slots are taken. Removal shifts the followers back,
 * so there are no tombstones.
 */
import { assert } from '../base/assert.ts';
import { blockSizeBytes, maxVolumeSizeBytes } from '../base/limits.ts';

const groupBlocks = 16;
const groupBits = 4;
const minSlots = 256;
const empty = -1;

assert(maxVolumeSizeBytes / blockSizeBytes / groupBlocks < 2 ** 31, 'a group number is an int32');

export class BlockMap {
  #keys = new Float64Array(minSlots).fill(empty);
  #addresses = new Float64Array(minSlots);
  #checksums = new Uint32Array(minSlots);
  #mask = minSlots - 1;
  #shift = 32 - Math.log2(minSlots) + groupBits;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  get slots(): number {
    return this.#keys.length;
  }

  /** The slot of a block, or -1. Valid until the map changes. */
  find(block: number): number {
    const keys = this.#keys;
    const mask = this.#mask;
    let slot = this.#home(block);
    for (;;) {
      const key = keys[slot]!;
      if (key === block) return slot;
      if (key === empty) return -1;
      slot = (slot + 1) & mask;
    }
  }

  addressAt(slot: number): number {
    return this.#addresses[slot]!;
  }

  checksumAt(slot: number): number {
    return this.#checksums[slot]!;
  }

  /** Returns the address the block had before, or 0. Call `reserve` first. */
  set(block: number, address: number, checksum: number): number {
    const keys = this.#keys;
    const mask = this.#mask;
    let slot = this.#home(block);
    let key = keys[slot]!;
    while (key !== block && key !== empty) {
      slot = (slot + 1) & mask;
      key = keys[slot]!;
    }
    let before = 0;
    if (key === empty) {
      keys[slot] = block;
      this.#count += 1;
    } else {
      before = this.#addresses[slot]!;
    }
    this.#addresses[slot] = address;
    this.#checksums[slot] = checksum;
    return before;
  }

  /** Makes room for so many more entries. */
  reserve(more: number): void {
    let slots = this.#keys.length;
    while ((this.#count + more) * 2 > slots) slots *= 2;
    if (slots !== this.#keys.length) this.#rebuild(slots);
  }

  /** Gives memory back after many removals. */
  shrink(): void {
    let slots = this.#keys.length;
    while (slots > minSlots && this.#count * 8 < slots) slots /= 2;
    if (slots !== this.#keys.length) this.#rebuild(slots);
  }

  removeSlot(slot: number): void {
    const keys = this.#keys;
    const mask = this.#mask;
    let hole = slot;
    let next = slot;
    for (;;) {
      next = (next + 1) & mask;
      const key = keys[next]!;
      if (key === empty) break;
      // It may move into the hole only when its home is not after the hole on the way to where it is.
      const home = this.#home(key);
      if (((next - home) & mask) < ((next - hole) & mask)) continue;
      keys[hole] = key;
      this.#addresses[hole] = this.#addresses[next]!;
      this.#checksums[hole] = this.#checksums[next]!;
      hole = next;
    }
    keys[hole] = empty;
    this.#count -= 1;
  }

  /** The blocks the test names, in one pass over the slots. */
  blocksWhere(test: (block: number, address: number) => boolean): number[] {
    const found: number[] = [];
    for (let slot = 0; slot < this.#keys.length; slot += 1) {
      const key = this.#keys[slot]!;
      if (key !== empty && test(key, this.#addresses[slot]!)) found.push(key);
    }
    return found;
  }

  /** How many runs of `length` blocks, each beginning at a multiple of it, have a block here. */
  countRuns(length: number): number {
    let runs = 0;
    for (const block of this.#keys) {
      if (block === empty) continue;
      // The first one that is here counts for its run.
      let before = block - 1;
      while (before >= block - (block % length) && this.find(before) === -1) before -= 1;
      if (before < block - (block % length)) runs += 1;
    }
    return runs;
  }

  #home(block: number): number {
    const group = Math.floor(block / groupBlocks) | 0;
    const spread = Math.imul(group, 0x9e3779b1) >>> this.#shift;
    return ((spread << groupBits) | (block % groupBlocks)) & this.#mask;
  }

  #rebuild(slots: number): void {
    const keys = this.#keys;
    const addresses = this.#addresses;
    const checksums = this.#checksums;
    this.#keys = new Float64Array(slots).fill(empty);
    this.#addresses = new Float64Array(slots);
    this.#checksums = new Uint32Array(slots);
    this.#mask = slots - 1;
    this.#shift = 32 - Math.log2(slots) + groupBits;
    this.#count = 0;
    for (let slot = 0; slot < keys.length; slot += 1) {
      const key = keys[slot]!;
      if (key !== empty) this.set(key, addresses[slot]!, checksums[slot]!);
    }
  }
}
