/** Journal files that become segments, on a simulated node. */
import t from 'tap';
import { KiB, MiB } from '../../daemon/base/limits.ts';
import type { Loss } from '../simulation/sector-ledger.ts';
import { SimulatedNode } from '../simulation/simulated-node.ts';

const writeBytes = 128 * KiB;
/** Two files of the journal's four, and a little more. */
const streamBytes = 2 * MiB + 256 * KiB;

interface Stream {
  node: SimulatedNode;
  /** Writes it all, as one that streams: no flush, several in flight. */
  write: (firstByte?: number, lengthBytes?: number, untilEvent?: number) => Promise<void>;
}

async function streaming(seed: number, adoptsReadily = false): Promise<Stream> {
  const node = new SimulatedNode({
    seed,
    durability: 'flush',
    volumeBytes: 4 * MiB,
    volumes: 2,
    adoptsReadily,
  });
  await node.start();
  const volume = node.volumes[0]!;
  const write = async (firstByte = 0, lengthBytes = streamBytes, untilEvent = Infinity): Promise<void> => {
    let inFlight = 0;
    for (let at = firstByte; at < firstByte + lengthBytes; at += writeBytes) {
      const generation = volume.ledger.begin(at, writeBytes, false);
      const data = Buffer.alloc(writeBytes);
      volume.ledger.fill(data, at, generation);
      inFlight += 1;
      volume.device.write(at, data, false, (error) => {
        inFlight -= 1;
        if (error !== null) node.faults.push(`a write was refused: ${error.message}`);
        else volume.ledger.acknowledge(generation, at, writeBytes, false);
      });
    }
    await node.clock.run(() => inFlight === 0 || node.clock.eventCount >= untilEvent);
  };
  return { node, write };
}

const names = (node: SimulatedNode, directory: string) => node.clock.settle(node.disk.list(directory));

t.test('a stream of large writes is on the disk once, and read from there', async (t) => {
  const { node, write } = await streaming(1);
  await write();
  const before = node.disk.writtenBytes;
  await node.clock.settle(node.replica.drain());
  t.ok(node.disk.linkCount >= 1, 'files were kept');
  const written = node.disk.writtenBytes - before;
  const restBytes = streamBytes - node.disk.linkCount * 0.75 * MiB;
  t.ok(written <= restBytes, `the drain wrote ${written} bytes`);
  await node.verify(null);
  node.verifyCounts();
  node.crash('power');
  await node.start();
  await node.verify('power');
  t.same(node.faults, []);
});

t.test('power or the process may fail at any event of it', async (t) => {
  let crashes = 0;
  let kept = 0;
  const cases = [1, 2].flatMap((seed) => (['power', 'process'] as Loss[]).map((loss) => ({ seed, loss })));
  for (const { seed, loss } of cases) {
    for (let after = 1, isDrained = false; !isDrained; after += 2) {
      const { node, write } = await streaming(seed, seed === 2);
      const crashAt = node.clock.eventCount + after;
      // The drain begins under the writes.
      await write(0, streamBytes, crashAt);
      if (node.clock.eventCount < crashAt) {
        void node.replica.drain().then(() => {
          isDrained = true;
        });
        await node.clock.run(() => node.clock.eventCount >= crashAt || isDrained);
      }
      node.crash(loss);
      await node.start();
      await node.verify(loss);
      // What lies in kept files is written over, drained and read once more.
      await write(MiB, MiB);
      await node.clock.settle(node.replica.drain());
      await node.verify(null);
      node.verifyCounts();
      crashes += 1;
      kept += node.disk.linkCount;
      if (node.faults.length > 0) {
        t.same(node.faults, [], `${loss} fails ${after} events into the drain`);
        return;
      }
    }
  }
  t.ok(crashes > 100, `${crashes} crashes`);
  t.ok(kept > crashes, `${kept} files were kept`);
});

t.test('what others share of a kept file outlives a crash, and its journal file', async (t) => {
  let shared = 0;
  for (let after = 0; after < 40; after += 1) {
    const { node, write } = await streaming(5);
    const [first, second] = node.volumes;
    // A block that is no whole chunk is left to the drain: it comes after the copy, and the file stays until then.
    const generationOfBlock = first!.ledger.begin(3 * MiB, 4 * KiB, false);
    const block = Buffer.alloc(4 * KiB);
    first!.ledger.fill(block, 3 * MiB, generationOfBlock);
    first!.device.write(3 * MiB, block, false, () =>
      first!.ledger.acknowledge(generationOfBlock, 3 * MiB, 4 * KiB, false),
    );
    await write(0, 2 * MiB);
    const firstFile = (await names(node, 'journal'))[0]!;
    let isShared = false;
    void node.replica.drain();
    await node.clock.run(() => node.disk.linkCount > 0);
    const generation = second!.ledger.beginCopy(0, MiB, first!.ledger, 0);
    second!.device.shareFrom(first!.device, 0, 0, MiB, true, (error) => {
      if (error !== null) node.faults.push(error.message);
      else second!.ledger.acknowledge(generation, 0, MiB, true);
      isShared = true;
    });
    const crashAt = node.clock.eventCount + 2 * after;
    await node.clock.run(() => node.clock.eventCount >= crashAt);
    node.crash('power');
    if (isShared && (await names(node, 'journal')).includes(firstFile)) shared += 1;
    await node.start();
    await node.verify('power');
    // The source is written over before its recovered file is drained, and again, so that files are used again.
    for (let round = 0; round < 3; round += 1) {
      await write(0, 2 * MiB);
      await node.clock.settle(node.replica.drain());
    }
    await node.verify(null);
    if (node.faults.length > 0) {
      t.same(node.faults, [], `power fails ${2 * after} events after the file was kept`);
      return;
    }
  }
  t.ok(shared > 0, `${shared} times the copy had been answered, and the file was to be replayed`);
});

t.test(
  'a kept file goes when all in it has been written over, and never back into the journal',
  async (t) => {
    const { node, write } = await streaming(2);
    for (let round = 0; round < 6; round += 1) {
      await write();
      await node.clock.settle(node.replica.drain());
      await node.clock.idle();
      t.ok((await names(node, 'segments')).length <= 4, 'segments do not pile up');
      await node.verify(null);
    }
    t.ok(node.disk.linkCount >= 6, `${node.disk.linkCount} files were kept`);
    t.ok(node.disk.usedBytes <= 8 * MiB, `${node.disk.usedBytes} bytes are used`);
    t.same(node.faults, []);
  },
);

t.test('scattered blocks are stored as chunks: their file is used again', async (t) => {
  const { node } = await streaming(3);
  await node.work(300);
  await node.clock.settle(node.replica.drain());
  t.equal(node.disk.linkCount, 0);
  t.ok((await names(node, 'journal')).some((name) => name.startsWith('free-')));
  await node.verify(null);
  t.same(node.faults, []);
});

t.test('where files have one name only, the drain writes what it would have kept', async (t) => {
  const { node, write } = await streaming(4);
  node.disk.options.hardLinks = false;
  await write();
  await node.clock.settle(node.replica.drain());
  t.equal(node.disk.linkCount, 0);
  await node.verify(null);
  node.verifyCounts();
  t.same(node.faults, []);
});

t.test('a file that cannot be linked is drained at once, and the next one is tried again', async (t) => {
  const { node, write } = await streaming(6);
  node.disk.fail('link');
  await write();
  const before = node.clock.monotonicMs();
  await node.clock.settle(node.replica.drain());
  t.ok(node.clock.monotonicMs() - before < 1000, 'without the pause that follows a failed drain');
  await write();
  await node.clock.settle(node.replica.drain());
  t.ok(node.disk.linkCount >= 1, 'a later one is kept');
  await node.verify(null);
  node.verifyCounts();
  t.same(node.faults, []);
});
