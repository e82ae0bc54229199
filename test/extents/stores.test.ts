import t from 'tap';
import type { ChunkUpdate } from '../../daemon/extents/extent-store.ts';
import { ExtentStore } from '../../daemon/extents/extent-store.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';
import { SimulatedClock } from '../simulation/simulated-clock.ts';
import { SimulatedDisk } from '../simulation/simulated-disk.ts';
import { SimulatedMapStore } from '../simulation/simulated-map-store.ts';

const chunkSizeBytes = 16_384;

function chunks(from: number, count: number): ChunkUpdate[] {
  return Array.from({ length: count }, (_, index) => {
    const data = Buffer.alloc(chunkSizeBytes, `chunk ${from + index} `);
    return { volumeKey: 1, chunkSizeBytes, chunkIndex: from + index, data };
  });
}

t.test(
  'segments go to the hot store with the most room, and are found again wherever they are',
  async (t) => {
    const random = new SeededRandom(1);
    const clock = new SimulatedClock(random.fork());
    const disk = (capacityBytes: number) => new SimulatedDisk(clock, random.fork(), { capacityBytes });
    const [small, large, cold] = [disk(4 * 2 ** 20), disk(6 * 2 ** 20), disk(2 ** 30)];
    const stores = [
      { disk: small, tier: 'hot' as const },
      { disk: large, tier: 'hot' as const },
      { disk: cold, tier: 'cold' as const },
    ];
    const maps = new SimulatedMapStore({
      schedule: (fire) => clock.schedule(fire),
      random: () => random.next(),
    });
    const open = () => clock.settle(ExtentStore.open({ stores, maps, segmentSizeBytes: 2 ** 20 }));
    const store = await open();
    for (let from = 0; from < 400; from += 40) await clock.settle(store.store(chunks(from, 40)));
    t.ok(small.usedBytes > 2 ** 20, `${small.usedBytes} bytes on the small store`);
    t.ok(large.usedBytes > small.usedBytes, `${large.usedBytes} bytes on the larger one`);
    t.equal(cold.usedBytes, 0);
    await clock.settle(store.close());

    const again = await open();
    const found = Buffer.alloc(400 * chunkSizeBytes);
    await clock.settle(
      new Promise<void>((resolve, reject) =>
        again.read({ volumeKey: 1, chunkSizeBytes }, 0, found, (error) =>
          error ? reject(error) : resolve(),
        ),
      ),
    );
    t.ok(found.equals(Buffer.concat(chunks(0, 400).map(({ data }) => data!))));
    await clock.settle(again.close());
    stores.splice(1, 1);
    await t.rejects(open(), { code: 'CORRUPT' }, 'a store that is away is missed');
  },
);
