import t from 'tap';
import { BlockIndex } from '../../daemon/journal/block-index.ts';
import { chunksCostBytes, drainCostBytes } from '../../daemon/replica/drain-cost.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';

const chunkSizeBytes = 16_384;
const chunkBlocks = 4;
const exactly = Number.NEGATIVE_INFINITY;

t.test('each chunk the journal touches costs a whole one, however little of it was written', async (t) => {
  const random = new SeededRandom(1);
  const index = new BlockIndex();
  const chunks = new Set<number>();
  for (let write = 0; write < 3000; write++) {
    const [first, count] = [random.below(100_000), random.between(1, 9)];
    index.write(7, first, count, 4096 * (write + 1), new Uint32Array(count), 0);
    for (let block = first; block < first + count; block++) chunks.add(Math.floor(block / chunkBlocks));
  }
  const sizes = new Map([[7, chunkSizeBytes]]);
  const costBytes = chunksCostBytes(chunks.size, chunkSizeBytes);
  t.equal(drainCostBytes(index, sizes, exactly), costBytes);
  t.ok(costBytes >= chunks.size * chunkSizeBytes);
  const quickBytes = drainCostBytes(index, sizes, Number.POSITIVE_INFINITY);
  t.ok(quickBytes >= costBytes, 'with room to spare an upper bound will do');
  t.equal(drainCostBytes(index, sizes, quickBytes), costBytes, 'without, the figure is exact');
});

t.test('what is rewritten, unmapped or of a deleted volume costs nothing more', async (t) => {
  const index = new BlockIndex();
  const sizes = new Map([[7, chunkSizeBytes]]);
  index.write(7, 0, 1, 4096, new Uint32Array(1), 0);
  index.write(7, 0, 2, 8192, new Uint32Array(2), 0);
  index.write(8, 0, 1, 16_384, new Uint32Array(1), 0);
  t.equal(drainCostBytes(index, sizes, exactly), chunksCostBytes(1, chunkSizeBytes));
  index.zero(7, 0, 1024, 20_480);
  t.equal(drainCostBytes(index, sizes, exactly), 0, 'a whole extent of zeros is a hole');
});
