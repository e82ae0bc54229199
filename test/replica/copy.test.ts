/** Copies that share chunks, on a simulated node: what must hold whatever happens in the middle of one. */
import t from 'tap';
import { blockSizeBytes, KiB, MiB } from '../../daemon/base/limits.ts';
import { SimulatedNode } from '../simulation/simulated-node.ts';

type Done = (error: Error | null) => void;
const rangeBytes = 2 * MiB;

async function twoVolumes(seed: number, durability: 'flush' | 'sync' = 'sync') {
  const node = new SimulatedNode({ seed, durability, volumes: 2 });
  await node.start();
  const settle = (start: (done: Done) => void) =>
    node.clock.settle(new Promise<Error | null>((resolve) => start(resolve)));
  const device = (volume: number) => node.volumes[volume]!.device;
  return {
    node,
    device,
    settle,
    write: async (volume: number, offsetBytes: number, lengthBytes: number, fill: number) => {
      // Longer ones do not fit into a journal file of the simulation.
      for (let at = 0; at < lengthBytes; at += 256 * KiB) {
        const data = Buffer.alloc(Math.min(256 * KiB, lengthBytes - at), fill);
        const error = await settle((done) => device(volume).write(offsetBytes + at, data, false, done));
        if (error !== null) throw error;
      }
    },
    /** Of each block the byte it is full of; the error's code when the range cannot be read. */
    read: async (volume: number, offsetBytes: number, lengthBytes: number) => {
      const bytes = Buffer.alloc(lengthBytes, 0xee);
      const error = await settle((done) => device(volume).read(offsetBytes, bytes, done));
      if (error !== null) return (error as { code?: string }).code;
      return Array.from({ length: lengthBytes / blockSizeBytes }, (_, index) => {
        const block = bytes.subarray(index * blockSizeBytes, (index + 1) * blockSizeBytes);
        return block.equals(Buffer.alloc(blockSizeBytes, block[0])) ? block[0] : 'torn';
      });
    },
    share: (done: Done) => device(1).shareFrom(device(0), 0, 0, rangeBytes, false, done),
    drain: () => node.clock.settle(node.replica.drain()),
  };
}

const blocks = (fill: number, count = rangeBytes / blockSizeBytes) => new Array(count).fill(fill);

t.test(
  'a crash at any event of a copy leaves each block as before or copied, and answered it is kept',
  async (t) => {
    let crashes = 0;
    const cases = [1, 3].flatMap((seed) => (['power', 'process'] as const).map((loss) => ({ seed, loss })));
    for (const { seed, loss } of cases) {
      for (let after = 1, isAnswered = false; !isAnswered; after += 1) {
        const { node, write, read, share } = await twoVolumes(seed);
        await write(0, 0, rangeBytes / 2, 1);
        await node.clock.settle(node.replica.drain());
        await write(0, rangeBytes / 2, rangeBytes / 2, 1);
        // Part of the destination is stored, part is in the journal only, and some of it lies over what is stored.
        await write(1, 0, rangeBytes / 2, 2);
        await node.clock.settle(node.replica.drain());
        await write(1, 0, 64 * KiB, 3);
        await write(1, rangeBytes - 256 * KiB, 256 * KiB, 3);
        const before = (await read(1, 0, rangeBytes)) as number[];
        share((error) => {
          isAnswered = error === null;
        });
        const crashAt = node.clock.eventCount + after;
        await node.clock.run(() => node.clock.eventCount >= crashAt || isAnswered);
        node.crash(loss);
        await node.start();
        crashes += 1;
        const found = (await read(1, 0, rangeBytes)) as number[];
        const wrong = found.findIndex((fill, index) => fill !== 1 && (isAnswered || fill !== before[index]));
        if (wrong !== -1)
          t.equal(found[wrong], before[wrong], `seed ${seed}, ${loss}, event ${after}, block ${wrong}`);
        const source = await read(0, 0, rangeBytes);
        if (String(source) !== String(blocks(1))) t.same(source, blocks(1), 'the source is as it was');
        node.verifyCounts();
        if (node.faults.length > 0) t.same(node.faults, []);
      }
    }
    t.ok(crashes > 15, `${crashes} crash points`);
  },
);

t.test('a copy takes no room, and either side may be written or deleted then', async (t) => {
  const { node, write, read, share, settle, drain } = await twoVolumes(3);
  await write(0, 0, rangeBytes, 1);
  await drain();
  const { liveBytes } = node.replica.state();
  t.equal(await settle(share), null);
  await drain();
  t.equal(node.replica.state().liveBytes, liveBytes, 'nothing more is stored');
  t.equal(node.replica.usedBytes(node.volumes[1]!.identity), rangeBytes, 'the copy counts for its volume');
  await write(0, 0, 4 * KiB, 7);
  await write(1, rangeBytes - 4 * KiB, 4 * KiB, 8);
  await drain();
  t.same(await read(0, 0, rangeBytes), [7, ...blocks(1).slice(1)]);
  t.same(await read(1, 0, rangeBytes), [...blocks(1).slice(1), 8]);
  const source = node.volumes[0]!;
  node.deleteVolume(source);
  await node.clock.run(() => !node.volumes.includes(source));
  t.same(await read(0, 0, rangeBytes), [...blocks(1).slice(1), 8], 'the copy outlives its source');
  node.verifyCounts();
  t.same(node.faults, []);
});

t.test('of a damaged source nothing is copied', async (t) => {
  const { node, write, read, device, settle, drain } = await twoVolumes(5);
  await write(0, 0, rangeBytes, 1);
  await drain();
  await write(1, 0, rangeBytes, 2);
  node.disk.flipBit('segments/0000000001.wfs', 512 * KiB);
  const prepared = await settle((done) => device(0).prepareShare(0, rangeBytes, done));
  t.match(prepared, { code: 'CORRUPT' });
  t.same(await read(1, 0, rangeBytes), blocks(2));
});

t.test('changes of the destination are carried out in the order they were called in', async (t) => {
  for (let seed = 1; seed <= 12; seed += 1) {
    const { node, write, read, share, device, drain } = await twoVolumes(seed, 'flush');
    await write(0, 0, rangeBytes, 1);
    const draining = seed % 2 === 0 ? node.replica.drain() : Promise.resolve();
    const answers: string[] = [];
    const note = (name: string) => (error: Error | null) =>
      void answers.push(error === null ? name : error.message);
    device(1).write(0, Buffer.alloc(64 * KiB, 2), false, note('before'));
    share(note('copy'));
    device(1).write(32 * KiB, Buffer.alloc(64 * KiB, 3), false, note('after'));
    device(1).unmap(MiB, 64 * KiB, false, note('unmap'));
    await node.clock.run(() => answers.length === 4);
    await node.clock.settle(draining);
    const wanted = blocks(1).fill(3, 8, 24).fill(0, 256, 272);
    const found = await read(1, 0, rangeBytes);
    await drain();
    const stored = await read(1, 0, rangeBytes);
    if (JSON.stringify([found, stored]) !== JSON.stringify([wanted, wanted])) {
      t.same([found, stored], [wanted, wanted], `seed ${seed}: ${answers}`);
    }
  }
  t.pass('in all seeds');
});

t.test('a drain that has read the destination does not store it over the copy', async (t) => {
  for (let after = 0; after < 24; after += 1) {
    const { node, write, read, share, settle, drain } = await twoVolumes(after % 3, 'flush');
    await write(0, 0, rangeBytes, 1);
    await drain();
    await write(1, 0, rangeBytes, 2);
    const draining = node.replica.drain();
    const start = node.clock.eventCount;
    await node.clock.run(() => node.clock.eventCount >= start + after);
    const error = await settle(share);
    if (error !== null) t.equal(error, null);
    await node.clock.settle(draining);
    const found = await read(1, 0, rangeBytes);
    if (String(found) !== String(blocks(1)))
      t.same(found, blocks(1), `copied at event ${after} of the drain`);
  }
  t.pass('whenever it came');
});

t.test('a copy finds room in a journal that is full, and goes on when its drain goes on', async (t) => {
  const { node, write, read, share, device, settle, drain } = await twoVolumes(11, 'flush');
  await write(0, 0, rangeBytes, 1);
  let waiting = 0;
  for (let at = 0; at < 8 * MiB; at += 256 * KiB) {
    waiting += 1;
    device(0).write(4 * MiB + at, Buffer.alloc(256 * KiB, 5), false, () => {
      waiting -= 1;
    });
  }
  t.equal(await settle(share), null);
  await node.clock.run(() => waiting === 0);
  t.same(await read(1, 0, rangeBytes), blocks(1));
  await drain();
  t.same(await read(1, 0, rangeBytes), blocks(1));
});

t.test(
  'a copy from or to a volume that is deleted meanwhile is refused, and no chunk is left over',
  async (t) => {
    for (let seed = 1; seed <= 12; seed += 1) {
      const { node, write, share, drain } = await twoVolumes(seed, 'flush');
      await write(0, 0, rangeBytes, 1);
      let answer: Error | null | undefined;
      share((error) => {
        answer = error;
      });
      const start = node.clock.eventCount;
      await node.clock.run(() => node.clock.eventCount >= start + seed);
      const doomed = node.volumes[seed % 2]!;
      node.deleteVolume(doomed);
      await node.clock.run(() => answer !== undefined && !node.volumes.includes(doomed));
      await drain();
      node.verifyCounts();
      if (node.faults.length > 0) t.same(node.faults, [], `seed ${seed}`);
      const usedBytes = node.replica.usedBytes(node.volumes[0]!.identity);
      const { liveBytes } = node.replica.state();
      if (liveBytes > usedBytes * 1.01) t.equal(liveBytes, usedBytes, `seed ${seed}: what is stored`);
    }
    t.pass('in all seeds');
  },
);
