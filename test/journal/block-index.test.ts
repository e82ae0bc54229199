import t from 'tap';
import { BlockIndex } from '../../daemon/journal/block-index.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';

const extentBlocks = 1024;
const volumeBlocks = 4 * extentBlocks;
type Entry = { kind: 'journal' | 'zero'; address: number; checksum: number };

/** What the index must say, kept block by block. */
function said(index: BlockIndex, volumeKey: number, first: number, count: number): Map<number, Entry> {
  const blocks = new Map<number, Entry>();
  let next = first;
  for (const run of index.runs(volumeKey, first, count)) {
    if (run.block !== next || run.count < 1) throw new Error('runs leave a gap or overlap');
    next += run.count;
    if (run.kind === 'below') continue;
    for (let at = 0; at < run.count; at += 1) {
      const { kind } = run;
      const address = run.address + (kind === 'journal' ? at * 4096 : 0);
      blocks.set(run.block + at, { kind, address, checksum: kind === 'journal' ? run.checksums[at]! : 0 });
    }
  }
  if (next !== first + count) throw new Error('runs do not cover the range');
  return blocks;
}

function checksumsFrom(address: number, count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, at) => (address + at * 7919) >>> 0);
}

t.test(
  'the index says what a plain map of blocks says, whatever was written, zeroed and removed',
  async (t) => {
    for (let seed = 1; seed <= 25; seed += 1) {
      const random = new SeededRandom(seed);
      const index = new BlockIndex();
      const model = new Map<number, Entry>();
      const records: { kind: 'journal' | 'zero'; block: number; count: number; address: number }[] = [];
      let nextAddress = 4096;
      for (let step = 0; step < 150; step += 1) {
        const block = random.chance(0.3)
          ? random.below(4) * extentBlocks
          : random.below(volumeBlocks - extentBlocks);
        const choice = random.next();
        if (choice < 0.5) {
          const count = random.between(1, random.chance(0.2) ? 600 : 20);
          const address = nextAddress;
          const checksums = checksumsFrom(address, count);
          index.write(7, block, count, address, checksums, 0);
          for (let at = 0; at < count; at += 1) {
            model.set(block + at, {
              kind: 'journal',
              address: address + at * 4096,
              checksum: checksums[at]!,
            });
          }
          records.push({ kind: 'journal', block, count, address });
          nextAddress += (count + 1) * 4096;
        } else if (choice < 0.7) {
          const count = random.chance(0.5) ? random.between(1, 50) : random.between(1, volumeBlocks - block);
          index.zero(7, block, count, nextAddress);
          for (let at = 0; at < count; at += 1)
            model.set(block + at, { kind: 'zero', address: nextAddress, checksum: 0 });
          records.push({ kind: 'zero', block, count, address: nextAddress });
          nextAddress += 4096;
        } else if (choice < 0.8) {
          const count = random.chance(0.5) ? random.between(1, 50) : random.between(1, volumeBlocks - block);
          index.stored(7, block, count);
          for (let at = 0; at < count; at += 1) model.delete(block + at);
        } else if (records.length > 0) {
          // A part of a record, or the whole of it, as the drain removes it.
          const record = random.pick(records);
          const from = random.chance(0.5) ? 0 : random.below(record.count);
          const count = random.chance(0.5) ? record.count - from : random.between(1, record.count - from);
          const { kind } = record;
          const address = record.address + (kind === 'journal' ? from * 4096 : 0);
          index.remove(7, { kind, block: record.block + from, count, address });
          for (let at = 0; at < count; at += 1) {
            const key = record.block + from + at;
            const entry = model.get(key);
            const same =
              entry?.kind === kind && entry.address === address + (kind === 'journal' ? at * 4096 : 0);
            if (same) model.delete(key);
          }
        }
        const live = [...model.values()].filter((entry) => entry.kind === 'journal').length;
        if (index.liveBlocks(7) !== live)
          t.equal(index.liveBlocks(7), live, `live blocks, seed ${seed} step ${step}`);
        if (step % 10 === 9) {
          const found = said(index, 7, 0, volumeBlocks);
          if (found.size !== model.size) t.equal(found.size, model.size, `size, seed ${seed} step ${step}`);
          for (const [key, entry] of model) {
            const other = found.get(key);
            if (
              other?.kind === entry.kind &&
              other.address === entry.address &&
              other.checksum === entry.checksum
            )
              continue;
            t.same(other, entry, `block ${key}, seed ${seed} step ${step}`);
            return;
          }
        }
      }
      for (const record of records) index.remove(7, record);
      if (index.volumeKeys().length > 0) t.same(index.volumeKeys(), [], `empty at the end, seed ${seed}`);
    }
    t.pass('all seeds agree');
  },
);

t.test('what was zeroed before does not come to light again when a newer block is drained', async (t) => {
  const index = new BlockIndex();
  index.zero(1, 0, extentBlocks, 4096);
  index.write(1, 5, 1, 8192, new Uint32Array([1]), 0);
  index.remove(1, { kind: 'journal', block: 5, count: 1, address: 8192 });
  t.match(index.runs(1, 4, 3), [
    { kind: 'zero', block: 4, count: 1 },
    { kind: 'below', block: 5, count: 1 },
    { kind: 'zero', block: 6, count: 1 },
  ]);
});

t.test(
  'neighbouring blocks that lie one after another in the journal are one run, across writes',
  async (t) => {
    const index = new BlockIndex();
    index.write(1, 10, 2, 40960, new Uint32Array([1, 2]), 0);
    index.write(1, 12, 2, 40960 + 8192, new Uint32Array([0, 3, 4]), 1);
    index.write(1, 14, 1, 4096, new Uint32Array([5]), 0);
    const runs = index.runs(1, 9, 7);
    t.same(
      runs.map(({ kind, block, count, address, checksums }) => [kind, block, count, address, [...checksums]]),
      [
        ['below', 9, 1, 0, []],
        ['journal', 10, 4, 40960, [1, 2, 3, 4]],
        ['journal', 14, 1, 4096, [5]],
        ['below', 15, 1, 0, []],
      ],
    );
  },
);

t.test('volumes do not see each other, and a dropped one is forgotten', async (t) => {
  const index = new BlockIndex();
  index.write(1, 0, 1, 4096, new Uint32Array([1]), 0);
  index.write(2 ** 40, 0, 1, 8192, new Uint32Array([1]), 0);
  t.same(index.volumeKeys(), [1, 2 ** 40]);
  index.dropVolume(1);
  t.match(index.runs(1, 0, 1), [{ kind: 'below' }]);
  t.match(index.runs(2 ** 40, 0, 1), [{ kind: 'journal', address: 8192 }]);
});

t.test('blocks at the end of the largest volume have their own entries', async (t) => {
  const index = new BlockIndex();
  const last = 2 ** 34 - 1;
  index.write(1, last, 1, 4096, new Uint32Array([1]), 0);
  index.write(1, last - 2 ** 32, 1, 8192, new Uint32Array([2]), 0);
  t.match(index.runs(1, last, 1), [{ kind: 'journal', address: 4096 }]);
  t.match(index.runs(1, last - 2 ** 32, 1), [{ kind: 'journal', address: 8192 }]);
  t.match(index.runs(1, last - 2 ** 33, 1), [{ kind: 'below' }]);
});
