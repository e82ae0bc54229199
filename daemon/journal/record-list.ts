/** The records of one journal file, kept for the drain: 40 bytes each, in one growing array. */
import type { RecordKind } from '../format/journal-batch.ts';

export interface RecordMeta {
  kind: RecordKind;
  volumeKey: number;
  offsetBytes: number;
  lengthBytes: number;
  /** As in the block index: of the payload, or of the record header where there is none. */
  address: number;
}

const fields = 5;
const kinds = ['write', 'zero', 'stored'] as const;
const firstRecords = 64;

export class RecordList {
  #values = new Float64Array(firstRecords * fields);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add(kind: RecordKind, volumeKey: number, offsetBytes: number, lengthBytes: number, address: number): void {
    const at = this.#count * fields;
    if (at === this.#values.length) {
      const larger = new Float64Array(this.#values.length * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[at] = kinds.indexOf(kind);
    this.#values[at + 1] = volumeKey;
    this.#values[at + 2] = offsetBytes;
    this.#values[at + 3] = lengthBytes;
    this.#values[at + 4] = address;
    this.#count += 1;
  }

  at(index: number): RecordMeta {
    const at = index * fields;
    return {
      kind: kinds[this.#values[at]!]!,
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
