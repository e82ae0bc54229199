import t from 'tap';
import { MiB, maxTransferBytes } from '../../daemon/base/limits.ts';
import { SimulatedNode } from '../simulation/simulated-node.ts';

t.test('the longest write may begin and end within a block', async (t) => {
  const node = new SimulatedNode({ seed: 1, durability: 'flush', journalFileBytes: 16 * MiB });
  await node.start();
  const data = Buffer.alloc(maxTransferBytes, 0x5a);
  const write = new Promise<Error | null>((resolve) => node.volume.write(512, data, false, resolve));
  t.equal(await node.clock.settle(write), null);
  const back = Buffer.alloc(maxTransferBytes);
  const read = new Promise<Error | null>((resolve) => node.volume.read(512, back, resolve));
  t.equal(await node.clock.settle(read), null);
  t.ok(back.equals(data));
});

t.test('writers that all wait for a full journal do not wait for the next one to notice it', async (t) => {
  const node = new SimulatedNode({ seed: 2, durability: 'flush' });
  await node.start();
  // More than the journal holds, asked for in one tick: nobody comes by later.
  const writes = Array.from({ length: 24 }, (_, index) => {
    const data = Buffer.alloc(256 * 1024, index + 1);
    return new Promise<Error | null>((resolve) =>
      node.volume.write(index * data.length, data, false, resolve),
    );
  });
  const startMs = node.clock.monotonicMs();
  const errors = await node.clock.settle(Promise.all(writes));
  t.same(
    errors,
    errors.map(() => null),
  );
  const tookMs = node.clock.monotonicMs() - startMs;
  t.ok(tookMs < 1500, `they took ${tookMs} ms of simulated time`);
});
