/**
 * One file of a simulated disk: what reads see now, and what power loss may leave of it.
 *
 * Every page (4 KiB) keeps the content that is durable and each content it had since, until a sync makes one of
 * them durable. At power loss a page takes any of them, or sectors of several: the disk wrote back what it liked.
 */
import type { SeededRandom } from './seeded-random.ts';

export const pageSizeBytes = 4096;
const sectorBytes = 512;
/** Contents kept of a page between syncs: the durable one aside, the last few. Older ones are less likely found. */
const maxVersions = 6;

interface Version {
  /** The change that made it; rises over the whole file. */
  change: number;
  /** null reads as zeros and takes no space. */
  bytes: Uint8Array | null;
}

interface Page {
  durable: Uint8Array | null;
  /** Oldest first. Empty: the durable content is the current one. */
  versions: Version[];
  /** Changes up to here were given up by a failed sync: the system believes them written. */
  givenUp: number;
}

interface SizeChange {
  change: number;
  sizeBytes: number;
}

export class SimulatedFile {
  sizeBytes = 0;
  /** Handles that are open on it. */
  openCount = 0;
  #durableSizeBytes = 0;
  readonly #sizeChanges: SizeChange[] = [];
  readonly #pages = new Map<number, Page>();
  readonly #dirty = new Set<number>();
  /** The changes, since the last sync, that shortened the file. */
  readonly #shortenings = new Set<number>();
  #change = 0;
  #pageCount = 0;

  /** Pages with content, holes left out. */
  get allocatedBytes(): number {
    return this.#pageCount * pageSizeBytes;
  }

  read(target: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(target.length, this.sizeBytes - position));
    for (let at = 0; at < length; ) {
      const from = (position + at) % pageSizeBytes;
      const count = Math.min(pageSizeBytes - from, length - at);
      const bytes = this.#current(Math.floor((position + at) / pageSizeBytes));
      if (bytes === null) target.fill(0, at, at + count);
      else target.set(bytes.subarray(from, from + count), at);
      at += count;
    }
    return length;
  }

  /** How many bytes the pages need that a write would touch and that have no content yet. */
  growthBytes(position: number, length: number): number {
    let growth = 0;
    for (let page = Math.floor(position / pageSizeBytes); page * pageSizeBytes < position + length; page++) {
      if (this.#current(page) === null) growth += pageSizeBytes;
    }
    return growth;
  }

  write(bytes: Uint8Array, position: number): void {
    if (bytes.length === 0) return;
    this.#change += 1;
    for (let at = 0; at < bytes.length; ) {
      const page = Math.floor((position + at) / pageSizeBytes);
      const from = (position + at) % pageSizeBytes;
      const count = Math.min(pageSizeBytes - from, bytes.length - at);
      const content = new Uint8Array(pageSizeBytes);
      const before = this.#current(page);
      if (before !== null) content.set(before);
      content.set(bytes.subarray(at, at + count), from);
      this.#put(page, content);
      at += count;
    }
    if (position + bytes.length > this.sizeBytes) this.#resize(position + bytes.length);
  }

  truncate(sizeBytes: number): void {
    this.#change += 1;
    if (sizeBytes < this.sizeBytes) {
      this.#shortenings.add(this.#change);
      const kept = Math.ceil(sizeBytes / pageSizeBytes);
      for (const page of this.#pages.keys()) {
        if (page >= kept && this.#current(page) !== null) this.#put(page, null);
      }
      const tail = this.#current(kept - 1);
      if (tail !== null && sizeBytes % pageSizeBytes !== 0) {
        this.#put(kept - 1, tail.slice().fill(0, sizeBytes % pageSizeBytes));
      }
    }
    if (sizeBytes !== this.sizeBytes) this.#resize(sizeBytes);
  }

  /** What a sync that begins now covers: give it to `makeDurable` or `giveUp` when it ends. */
  syncPoint(): number {
    return this.#change;
  }

  makeDurable(upTo: number): void {
    for (const [index, page] of this.#dirtyPages()) {
      const last = page.versions.findLastIndex(({ change }) => change <= upTo);
      // After a failed fsync the system holds the page for clean: only what was written since is written back.
      if (last < 0 || page.versions[last]!.change <= page.givenUp) continue;
      page.durable = page.versions[last]!.bytes;
      page.versions.splice(0, last + 1);
      if (page.versions.length === 0) this.#settled(index, page);
    }
    const last = this.#sizeChanges.findLastIndex(({ change }) => change <= upTo);
    if (last < 0) return;
    this.#durableSizeBytes = this.#sizeChanges[last]!.sizeBytes;
    for (const { change } of this.#sizeChanges.splice(0, last + 1)) this.#shortenings.delete(change);
  }

  giveUp(upTo: number): void {
    for (const [, page] of this.#dirtyPages()) page.givenUp = Math.max(page.givenUp, upTo);
  }

  /** What power loss leaves. Sizes change in order, as a file system's own journal keeps them. */
  loseSome(random: SeededRandom): void {
    const keptSizes = random.below(this.#sizeChanges.length + 1);
    this.sizeBytes = this.#sizeChanges[keptSizes - 1]?.sizeBytes ?? this.#durableSizeBytes;
    const lostFrom = this.#sizeChanges[keptSizes]?.change ?? Infinity;
    for (const [, page] of this.#dirtyPages()) {
      // A shortening that happened took away what was there before; one that did not happen took nothing.
      const floor = page.versions.findLastIndex(
        ({ change }) => this.#shortenings.has(change) && change < lostFrom,
      );
      const contents = page.versions
        .slice(Math.max(0, floor))
        .filter(({ change }) => change < lostFrom || !this.#shortenings.has(change))
        .map(({ bytes }) => bytes);
      if (floor < 0) contents.push(page.durable);
      page.durable = survivor(contents, random);
    }
    this.#settleDurable();
  }

  /** Rot on the medium: the bit is wrong in every content the page has. */
  flipBit(offset: number, bit: number): void {
    const page = this.#pages.get(Math.floor(offset / pageSizeBytes));
    if (page === undefined || offset >= this.sizeBytes) throw new Error(`nothing is stored at ${offset}`);
    const flip = (bytes: Uint8Array | null): Uint8Array => {
      const copy = bytes?.slice() ?? new Uint8Array(pageSizeBytes);
      copy[offset % pageSizeBytes]! ^= 1 << bit;
      return copy;
    };
    const hadContent = (page.versions.at(-1)?.bytes ?? page.durable) !== null;
    page.durable = flip(page.durable);
    for (const version of page.versions) version.bytes = flip(version.bytes);
    if (!hadContent) this.#pageCount += 1;
  }

  #current(index: number): Uint8Array | null {
    const page = this.#pages.get(index);
    if (page === undefined) return null;
    const last = page.versions.at(-1);
    return last === undefined ? page.durable : last.bytes;
  }

  #put(index: number, bytes: Uint8Array | null): void {
    const hadContent = this.#current(index) !== null;
    let page = this.#pages.get(index);
    if (page === undefined) {
      page = { durable: null, versions: [], givenUp: 0 };
      this.#pages.set(index, page);
    }
    if (page.versions.at(-1)?.change === this.#change) page.versions.pop();
    page.versions.push({ change: this.#change, bytes });
    if (page.versions.length > maxVersions) {
      const droppable = page.versions.findIndex(({ change }) => !this.#shortenings.has(change));
      if (droppable >= 0) page.versions.splice(droppable, 1);
    }
    this.#dirty.add(index);
    this.#pageCount += Number(bytes !== null) - Number(hadContent);
  }

  #resize(sizeBytes: number): void {
    this.sizeBytes = sizeBytes;
    this.#sizeChanges.push({ change: this.#change, sizeBytes });
  }

  *#dirtyPages(): Generator<[number, Page]> {
    for (const index of [...this.#dirty]) yield [index, this.#pages.get(index)!];
  }

  #settled(index: number, page: Page): void {
    this.#dirty.delete(index);
    if (page.durable === null) this.#pages.delete(index);
  }

  #settleDurable(): void {
    const last = Math.ceil(this.sizeBytes / pageSizeBytes);
    this.#pageCount = 0;
    for (const [index, page] of [...this.#pages]) {
      let bytes = index < last ? page.durable : null;
      if (index === last - 1 && this.sizeBytes % pageSizeBytes !== 0) {
        bytes = bytes?.slice().fill(0, this.sizeBytes % pageSizeBytes) ?? null;
      }
      if (bytes === null) this.#pages.delete(index);
      else this.#pages.set(index, { durable: bytes, versions: [], givenUp: 0 });
      if (bytes !== null) this.#pageCount += 1;
    }
    this.#dirty.clear();
    this.#sizeChanges.length = 0;
    this.#shortenings.clear();
    this.#durableSizeBytes = this.sizeBytes;
  }
}

/** One of the contents, or, now and then, sectors of several. */
function survivor(contents: readonly (Uint8Array | null)[], random: SeededRandom): Uint8Array | null {
  if (contents.length < 2 || !random.chance(0.25)) return random.pick(contents);
  const torn = new Uint8Array(pageSizeBytes);
  for (let at = 0; at < pageSizeBytes; at += sectorBytes) {
    const from = random.pick(contents);
    if (from !== null) torn.set(from.subarray(at, at + sectorBytes), at);
  }
  return torn;
}
