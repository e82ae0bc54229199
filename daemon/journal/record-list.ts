/** The records of one journal file, kept for the drain: 40 bytes each, in one growing array. */

export interface RecordMeta {
  kind: 'write' | 'zero';
  volumeKey: number;
  offsetBytes: number;
  lengthBytes: number;
  /** As in the block index: of the payload, or of the record header for zeros. */
  address: number;
}

const fields = 5;
const firstRecords = 64;

export class RecordList {
  #values = new Float64Array(firstRecords * fields);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add(write: boolean, volumeKey: number, offsetBytes: number, lengthBytes: number, address: number): void {
    const at = this.#count * fields;
    if (at === this.#values.length) {
      const larger = new Float64Array(this.#values.length * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[at] = write ? 1 : 0;
    this.#values[at + 1] = volumeKey;
    this.#values[at + 2] = offsetBytes;
    this.#values[at + 3] = lengthBytes;
    this.#values[at + 4] = address;
    this.#count += 1;
  }

  at(index: number): RecordMeta {
    const at = index * fields;
    return {
      kind: this.#values[at] === 1 ? 'write' : 'zero',
      volumeKey: this.#values[at + 1]!,
      offsetBytes: this.#values[at + 2]!,
      lengthBytes: this.#values[at + 3]!,
      address: this.#values[at + 4]!,
    };
  }

  *[Symbol.iterator](): IterableIterator<RecordMeta> {
    for (let index = 0; index < this.#count; index += 1) yield this.at(index);
  }
}
