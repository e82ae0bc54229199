import t from 'tap';
import { blockSizeBytes, KiB, MiB } from '../../daemon/base/limits.ts';
import { SimulatedNode } from '../simulation/simulated-node.ts';

const firstSegment = 'segments/0000000001.wfs';
const firstJournalFile = 'journal/0000000001.wfj';
/** The first page of a file and the first batch's header lie before the first payload. */
const firstPayloadBytes = 2 * blockSizeBytes;

async function running(seed: number) {
  const node = new SimulatedNode({ seed, durability: 'flush' });
  await node.start();
  const settle = (start: (done: (error: Error | null) => void) => void) =>
    node.clock.settle(new Promise<Error | null>((resolve) => start(resolve)));
  const block = (fill: number) => Buffer.alloc(blockSizeBytes, fill);
  return {
    node,
    write: (index: number, data: Buffer) =>
      settle((done) => node.volume.write(index * blockSizeBytes, data, false, done)),
    /** What the block reads as: the byte it is full of, or the error's code. */
    read: async (index: number): Promise<unknown> => {
      const data = Buffer.alloc(blockSizeBytes, 0xee);
      const error = await settle((done) => node.volume.read(index * blockSizeBytes, data, done));
      if (error !== null) return (error as { code?: string }).code;
      return data.equals(block(data[0]!)) ? data[0] : 'torn';
    },
    block,
    drain: () => node.clock.settle(node.replica.drain()),
  };
}

t.test('writes that meet the drain over a damaged chunk are not taken back', async (t) => {
  for (let seed = 1; seed <= 30; seed++) {
    const { node, write, read, block, drain } = await running(seed);
    await write(0, Buffer.alloc(64 * KiB, 1));
    await drain();
    node.disk.flipBit(firstSegment, 4096 + 3 * blockSizeBytes);
    await write(0, block(2));
    let drained = false;
    const draining = node.replica.drain().then(() => {
      drained = true;
    });
    let value = 2;
    while (!drained) {
      value = (value % 200) + 1;
      await write(0, block(value));
      const found = await read(0);
      if (found !== value) t.equal(found, value, `seed ${seed}: the last write acknowledged`);
    }
    await node.clock.settle(draining);
    const found = await read(0);
    if (found !== value) t.equal(found, value, `seed ${seed}: after the drain`);
  }
  t.pass('every read showed the last write');
});

t.test('a damaged block in the journal stays CORRUPT, and nothing else suffers', async (t) => {
  const { node, write, read, block, drain } = await running(3);
  await write(0, Buffer.alloc(64 * KiB, 1));
  await drain();
  await node.stop();
  await node.start();
  await write(5, block(7));
  await write(6, block(8));
  const [file] = (await node.clock.settle(node.disk.list('journal'))).filter((name) => /^\d/.test(name));
  node.disk.flipBit(`journal/${file}`, firstPayloadBytes + 100);
  const expected = () =>
    Promise.all([4, 5, 6, 7, 12].map((index) => read(index))).then((found) =>
      t.same(found, [1, 'CORRUPT', 8, 1, 1]),
    );
  await expected();
  await drain();
  await expected();
  await drain();
  await node.stop();
  await node.start();
  await expected();
  await drain();
  await expected();
  await write(5, block(9));
  await drain();
  t.equal(await read(5), 9, 'written again it is whole');
});

t.test('a full journal over damaged chunks goes on', async (t) => {
  const { node, write, drain } = await running(4);
  for (let at = 0; at < MiB; at += 256 * KiB) await write(at / blockSizeBytes, Buffer.alloc(256 * KiB, 1));
  await drain();
  for (let chunk = 0; chunk < 8; chunk++) node.disk.flipBit(firstSegment, 4096 + chunk * 70_000);
  let errors: (Error | null)[] = [];
  for (let round = 0; round < 4; round++) {
    const writes = Array.from({ length: 64 }, (_, index) => {
      const small = Buffer.alloc(blockSizeBytes, round + 2);
      const large = Buffer.alloc(256 * KiB, round + 2);
      const offset = index % 2 === 0 ? (index * 16 * KiB) % MiB : 2 * MiB + index * 64 * KiB;
      const data = index % 2 === 0 ? small : large;
      return new Promise<Error | null>((resolve) => node.volume.write(offset, data, false, resolve));
    });
    errors = await node.clock.settle(Promise.all(writes));
    t.same(
      errors.filter((error) => error !== null),
      [],
    );
  }
});

t.test('a damaged block in a full journal does not stop the writers', async (t) => {
  const { node, write, read, block } = await running(5);
  await write(0, block(1));
  node.disk.flipBit(firstJournalFile, firstPayloadBytes);
  for (let index = 0; index < 40; index++) {
    const offset = MiB + (index % 24) * 256 * KiB;
    t.equal(await write(offset / blockSizeBytes, Buffer.alloc(256 * KiB, 2)), null);
  }
  t.equal(await read(0), 'CORRUPT');
});
