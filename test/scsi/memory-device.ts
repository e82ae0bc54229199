/** A block device in memory for tests: sparse, with failures, delays and a record of what was asked of it. */
import { assert } from '../../daemon/base/assert.ts';
import { KiB, sectorSizeBytes } from '../../daemon/base/limits.ts';
import type { BlockDevice, BlockDone } from '../../daemon/volume/block-device.ts';

export interface MemoryDeviceOptions {
  sizeBytes: number;
  durability?: 'flush' | 'sync';
  allocationUnitBytes?: number;
}

type Operation = 'read' | 'write' | 'unmap' | 'flush' | 'allocation';

export class MemoryDevice implements BlockDevice {
  sizeBytes: number;
  readonly durability: 'flush' | 'sync';
  readonly allocationUnitBytes: number;
  /** What was called, as 'write 0+512 fua'. */
  readonly calls: string[] = [];
  /** While set, operations of this kind fail with it. */
  failure: { operation: Operation; error: Error } | null = null;
  /** While true, operations wait; `release` carries them out in the order they were called in. */
  paused = false;
  readonly #units = new Map<number, Buffer>();
  #waiting: (() => void)[] = [];

  constructor(options: MemoryDeviceOptions) {
    this.sizeBytes = options.sizeBytes;
    this.durability = options.durability ?? 'flush';
    this.allocationUnitBytes = options.allocationUnitBytes ?? 16 * KiB;
  }

  release(): void {
    this.paused = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const operation of waiting) operation();
  }

  read(offsetBytes: number, target: Buffer, done: BlockDone): void {
    this.#check(offsetBytes, target.length);
    this.calls.push(`read ${offsetBytes}+${target.length}`);
    this.#carryOut('read', done, () => {
      this.#eachUnit(offsetBytes, target.length, (index, from, to, position) => {
        const unit = this.#units.get(index);
        if (unit === undefined) target.fill(0, position, position + to - from);
        else unit.copy(target, position, from, to);
      });
    });
  }

  write(offsetBytes: number, data: Buffer, fua: boolean, done: BlockDone): void {
    this.#check(offsetBytes, data.length);
    this.calls.push(`write ${offsetBytes}+${data.length}${fua ? ' fua' : ''}`);
    this.#carryOut('write', done, () => {
      this.#eachUnit(offsetBytes, data.length, (index, from, to, position) => {
        let unit = this.#units.get(index);
        if (unit === undefined) {
          unit = Buffer.alloc(this.allocationUnitBytes);
          this.#units.set(index, unit);
        }
        data.copy(unit, from, position, position + to - from);
      });
    });
  }

  unmap(offsetBytes: number, lengthBytes: number, fua: boolean, done: BlockDone): void {
    this.#check(offsetBytes, lengthBytes);
    this.calls.push(`unmap ${offsetBytes}+${lengthBytes}${fua ? ' fua' : ''}`);
    this.#carryOut('unmap', done, () => {
      this.#eachUnit(offsetBytes, lengthBytes, (index, from, to) => {
        if (to - from === this.allocationUnitBytes) this.#units.delete(index);
        else this.#units.get(index)?.fill(0, from, to);
      });
    });
  }

  flush(done: BlockDone): void {
    this.calls.push('flush');
    this.#carryOut('flush', done, () => {});
  }

  allocation(
    offsetBytes: number,
    done: (error: Error | null, mapped: boolean, lengthBytes: number) => void,
  ): void {
    this.#check(offsetBytes, sectorSizeBytes);
    const index = Math.floor(offsetBytes / this.allocationUnitBytes);
    const end = Math.min((index + 1) * this.allocationUnitBytes, this.sizeBytes);
    this.#carryOut(
      'allocation',
      (error) => done(error, this.#units.has(index), end - offsetBytes),
      () => {},
    );
  }

  /** Bytes as they are, past any waiting operation. */
  peek(offsetBytes: number, lengthBytes: number): Buffer {
    const bytes = Buffer.alloc(lengthBytes);
    this.#eachUnit(offsetBytes, lengthBytes, (index, from, to, position) => {
      this.#units.get(index)?.copy(bytes, position, from, to);
    });
    return bytes;
  }

  #check(offsetBytes: number, lengthBytes: number): void {
    assert(offsetBytes % sectorSizeBytes === 0 && lengthBytes % sectorSizeBytes === 0, 'whole sectors');
    assert(offsetBytes >= 0 && lengthBytes > 0, 'a range');
    assert(offsetBytes + lengthBytes <= this.sizeBytes, 'inside the device');
  }

  #carryOut(operation: Operation, done: BlockDone, act: () => void): void {
    const run = (): void => {
      const error = this.failure?.operation === operation ? this.failure.error : null;
      if (error === null) act();
      setImmediate(done, error);
    };
    if (this.paused) this.#waiting.push(run);
    else run();
  }

  #eachUnit(
    offsetBytes: number,
    lengthBytes: number,
    visit: (index: number, from: number, to: number, position: number) => void,
  ): void {
    for (let position = 0; position < lengthBytes; ) {
      const at = offsetBytes + position;
      const index = Math.floor(at / this.allocationUnitBytes);
      const from = at - index * this.allocationUnitBytes;
      const to = Math.min(this.allocationUnitBytes, from + lengthBytes - position);
      visit(index, from, to, position);
      position += to - from;
    }
  }
}
