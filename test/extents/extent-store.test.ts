import t from 'tap';
import { WeftError } from '../../daemon/base/errors.ts';
import { extentSizeBytes, KiB, MiB } from '../../daemon/base/limits.ts';
import { groupHeaderBytes, payloadRoomBytes, segmentHeaderBytes } from '../../daemon/format/segment.ts';
import { content, readFrom, SimulatedStore, updates } from './simulated-store.ts';

const volume = { volumeKey: 3, chunkSizeBytes: 16 * KiB };
const size = volume.chunkSizeBytes;
const recordBytes = payloadRoomBytes(size);
/** Where the payloads of a segment's first group begin, in bytes. */
const firstPayload = segmentHeaderBytes + groupHeaderBytes(5);

function many(count: number, tag: number, from = 0): Record<number, Buffer> {
  const chunks: Record<number, Buffer> = {};
  for (let index = from; index < from + count; index++) chunks[index] = content(size, tag + index);
  return chunks;
}

t.test('space that was never stored reads as zeros', async (t) => {
  const fabric = await SimulatedStore.open(1);
  t.ok((await fabric.read(volume, 8 * MiB - 4 * KiB, 12 * KiB)).every((byte) => byte === 0));
  t.same(fabric.store.totals(), { segmentBytes: 0, liveBytes: 0 });
});

t.test('what was stored is read at every block and length, over extents and holes', async (t) => {
  const fabric = await SimulatedStore.open(2);
  const model = Buffer.alloc(2 * extentSizeBytes);
  const first = extentSizeBytes / size - 6;
  const chunks: Record<number, Buffer> = {};
  for (const index of [0, 1, 2, 4, 6, 7, 9, 11]) {
    chunks[first + index] = content(size, 100 + index);
    chunks[first + index]!.copy(model, (first + index) * size);
  }
  await fabric.put(volume, chunks);
  for (let from = 0; from < 48; from++) {
    for (const blocks of [1, 3, 4, 9, 20]) {
      const start = first * size + from * 4 * KiB;
      const read = await fabric.read(volume, start, blocks * 4 * KiB);
      if (!read.equals(model.subarray(start, start + blocks * 4 * KiB))) {
        t.fail(`block ${from}, ${blocks} blocks`);
      }
    }
  }
  t.same(fabric.store.usage(3), { chunkCount: 8 });
});

t.test('chunks side by side in a segment are read by one read of the disk', async (t) => {
  const fabric = await SimulatedStore.open(3, { segmentSizeBytes: 4 * MiB });
  await fabric.put(volume, many(20, 50));
  const before = fabric.disk.operationCount;
  await fabric.read(volume, 4 * KiB, 19 * size);
  t.equal(fabric.disk.operationCount - before, 2, 'one step that reads and one that answers');
});

t.test('volumes do not see one another, whatever their chunk sizes', async (t) => {
  const fabric = await SimulatedStore.open(4);
  const small = { volumeKey: 1, chunkSizeBytes: 4 * KiB };
  const large = { volumeKey: 2, chunkSizeBytes: 64 * KiB };
  await fabric.clock.settle(
    fabric.store.store([
      ...updates(small, { 0: content(4 * KiB, 1), 1023: content(4 * KiB, 2), 1024: content(4 * KiB, 3) }),
      ...updates(large, { 0: content(64 * KiB, 4), 64: content(64 * KiB, 5) }),
    ]),
  );
  t.same(await fabric.chunk(small, 1023), content(4 * KiB, 2));
  t.same(await fabric.chunk(small, 1024), content(4 * KiB, 3));
  t.same(await fabric.chunk(large, 0), content(64 * KiB, 4));
  t.same(await fabric.chunk(large, 64), content(64 * KiB, 5));
  t.ok((await fabric.chunk(volume, 0)).every((byte) => byte === 0));
});

t.test('null and zeros become holes and take no space', async (t) => {
  const fabric = await SimulatedStore.open(5);
  await fabric.put(volume, many(4, 9));
  await fabric.put(volume, { 1: null, 2: Buffer.alloc(size), 77: null, 78: Buffer.alloc(size) });
  t.ok((await fabric.read(volume, size, 2 * size)).every((byte) => byte === 0));
  t.same(await fabric.chunk(volume, 3), content(size, 12));
  t.same(fabric.store.usage(3), { chunkCount: 2 });
  t.equal(fabric.store.totals().liveBytes, 2 * recordBytes);
  await fabric.reopen();
  t.same(fabric.store.usage(3), { chunkCount: 2 });
});

t.test('allocation tells mapped from hole, run by run, over extents', async (t) => {
  const fabric = await SimulatedStore.open(6);
  const last = extentSizeBytes / size - 1;
  await fabric.put(volume, {
    0: content(size, 1),
    1: content(size, 2),
    [last]: content(size, 3),
    [last + 1]: content(size, 4),
  });
  const ask = (offsetBytes: number, limitBytes: number) =>
    fabric.clock.settle(
      new Promise((resolve, reject) => {
        fabric.store.allocation(volume, offsetBytes, limitBytes, (error, mapped, lengthBytes) =>
          error ? reject(error) : resolve({ mapped, lengthBytes }),
        );
      }),
    );
  t.same(await ask(0, 64 * MiB), { mapped: true, lengthBytes: 2 * size });
  t.same(await ask(4 * KiB, 64 * MiB), { mapped: true, lengthBytes: 2 * size - 4 * KiB });
  t.same(await ask(0, 4 * KiB), { mapped: true, lengthBytes: 4 * KiB });
  t.same(await ask(2 * size, 64 * MiB), { mapped: false, lengthBytes: (last - 2) * size });
  t.same(await ask(last * size, 64 * MiB), { mapped: true, lengthBytes: 2 * size });
  t.same(await ask((last + 2) * size, 8 * MiB), { mapped: false, lengthBytes: 8 * MiB });
});

t.test('one wrong bit makes that chunk CORRUPT, and only that', async (t) => {
  for (const offset of [0, 9000, size - 1]) {
    const fabric = await SimulatedStore.open(7);
    await fabric.put(volume, many(5, 20));
    const [name] = await fabric.segmentFiles();
    fabric.disk.flipBit(`segments/${name}`, firstPayload + 2 * recordBytes + offset, 3);
    const details = { volumeKey: 3, offsetBytes: 2 * size, segmentNumber: 1 };
    await t.rejects(fabric.read(volume, 2 * size + 4 * KiB, 4 * KiB), { code: 'CORRUPT', details });
    await t.rejects(fabric.read(volume, 0, 5 * size), { code: 'CORRUPT', details });
    for (const index of [0, 1, 3, 4]) t.same(await fabric.chunk(volume, index), content(size, 20 + index));
    await fabric.put(volume, { 2: content(size, 99) });
    t.same(await fabric.chunk(volume, 2), content(size, 99), 'a new version heals it');
  }
});

t.test('a segment whose header page is damaged is CORRUPT once it is opened anew', async (t) => {
  const fabric = await SimulatedStore.open(8);
  await fabric.put(volume, many(2, 20));
  const [name] = await fabric.segmentFiles();
  fabric.disk.flipBit(`segments/${name}`, 100);
  await fabric.reopen();
  await t.rejects(fabric.chunk(volume, 0), { code: 'CORRUPT', details: { segmentNumber: 1 } });
});

t.test('a store does not open when a segment with data is missing', async (t) => {
  const fabric = await SimulatedStore.open(9);
  await fabric.put(volume, many(2, 20));
  await fabric.clock.settle(fabric.store.close());
  await fabric.clock.settle(fabric.disk.remove('segments/0000000001.wfs'));
  await t.rejects(fabric.openStore(), { code: 'CORRUPT', message: /0000000001\.wfs/ });
});

t.test('segments the map does not know go when the store opens; other files stay', async (t) => {
  const fabric = await SimulatedStore.open(10);
  await fabric.put(volume, many(2, 20));
  for (const name of ['0000000009.wfs', 'README']) {
    const file = await fabric.clock.settle(fabric.disk.open(`segments/${name}`, 'create'));
    await fabric.clock.settle(file.close());
  }
  await fabric.reopen();
  t.same(await fabric.segmentFiles(), ['0000000001.wfs', 'README']);
  await fabric.put(volume, many(1, 30));
  t.same(await fabric.segmentFiles(), ['0000000001.wfs', '0000000010.wfs', 'README']);
});

t.test('a segment goes when its last chunk is dead, but not from under a read', async (t) => {
  const fabric = await SimulatedStore.open(11);
  await fabric.put(volume, many(15, 100));
  await fabric.put(volume, many(15, 200, 15));
  t.same(await fabric.segmentFiles(), ['0000000001.wfs', '0000000002.wfs']);
  const { options } = fabric.disk;
  const latencyMs = options.maxLatencyMs;
  options.minLatencyMs = 1000;
  options.maxLatencyMs = 1001;
  const slow = readFrom(fabric.store, volume, 0, 15 * size);
  options.minLatencyMs = 0;
  options.maxLatencyMs = latencyMs;
  await fabric.put(volume, many(15, 300));
  t.ok(fabric.clock.monotonicMs() < 1000, 'the read is still in flight');
  t.ok((await fabric.segmentFiles()).includes('0000000001.wfs'));
  const old = await fabric.clock.settle(slow);
  t.same(old.subarray(0, size), content(size, 100), 'it sees what was there when it began');
  await fabric.clock.idle();
  t.same(await fabric.segmentFiles(), ['0000000002.wfs', '0000000003.wfs']);
  t.same(await fabric.chunk(volume, 5), content(size, 305));
});

t.test('a segment that was emptied while it was active goes when the next one begins', async (t) => {
  const fabric = await SimulatedStore.open(22);
  await fabric.put(volume, many(15, 100));
  const gone: Record<number, null> = {};
  for (let index = 0; index < 15; index++) gone[index] = null;
  await fabric.put(volume, gone);
  await fabric.clock.idle();
  t.same(await fabric.segmentFiles(), ['0000000001.wfs']);
  await fabric.put(volume, many(1, 500));
  await fabric.clock.idle();
  t.same(await fabric.segmentFiles(), ['0000000002.wfs']);
});

t.test('a page that is answered late does not hide what was stored meanwhile', async (t) => {
  // One page fits the cache, so a batch over two extents pushes one of them out before it is committed.
  const fabric = await SimulatedStore.open(23, { pageCacheLimitPages: 1 });
  const far = extentSizeBytes / size;
  await fabric.put(volume, { 0: content(size, 1), [far]: content(size, 2) });
  const loadPage = fabric.maps.loadPage.bind(fabric.maps);
  let letGo: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const commit = fabric.maps.commit.bind(fabric.maps);
  let reading: Promise<Buffer> | undefined;
  fabric.maps.commit = async (change) => {
    fabric.maps.loadPage = async (volumeKey, extentIndex) => {
      const page = await loadPage(volumeKey, extentIndex);
      await gate;
      return page;
    };
    reading = readFrom(fabric.store, volume, 0, size);
    await new Promise<void>((resolve) => fabric.clock.schedule(resolve, 50, 51));
    return commit(change);
  };
  await fabric.put(volume, { 0: content(size, 11), [far]: content(size, 12) });
  letGo();
  await fabric.clock.settle(reading!);
  t.same(await fabric.chunk(volume, 0), content(size, 11));
  t.same(await fabric.chunk(volume, far), content(size, 12));
});

t.test('a deleted volume frees its chunks and segments, and no other volume', async (t) => {
  const fabric = await SimulatedStore.open(12);
  const other = { volumeKey: 4, chunkSizeBytes: size };
  await fabric.put(other, many(3, 500));
  const spread: Record<number, Buffer> = {};
  for (let extent = 0; extent < 150; extent++) spread[extent * 256] = content(size, 1000 + extent);
  await fabric.put(volume, spread);
  t.same(fabric.store.usage(3), { chunkCount: 150 });
  await fabric.clock.settle(fabric.store.deleteVolume(3));
  await fabric.clock.idle();
  t.same(fabric.store.usage(3), { chunkCount: 0 });
  t.equal(fabric.store.totals().liveBytes, 3 * recordBytes);
  t.ok((await fabric.segmentFiles()).length <= 2, 'the first segment and the active one');
  t.ok((await fabric.chunk(volume, 256)).every((byte) => byte === 0));
  t.same(await fabric.chunk(other, 2), content(size, 502));
  await fabric.clock.settle(fabric.store.deleteVolume(3));
});

t.test('a full disk fails the store with NO_SPACE, keeps what was there, and leaks nothing', async (t) => {
  const fabric = await SimulatedStore.open(13);
  await fabric.put(volume, many(10, 100));
  const used = fabric.disk.usedBytes;
  fabric.disk.options.capacityBytes = used + 200 * KiB;
  for (let attempt = 0; attempt < 5; attempt++) {
    await t.rejects(fabric.put(volume, many(40, 200)), { code: 'NO_SPACE' });
    await fabric.clock.idle();
    t.ok(fabric.disk.usedBytes <= used, `room is given back after attempt ${attempt}`);
  }
  for (const index of [0, 9]) t.same(await fabric.chunk(volume, index), content(size, 100 + index));
  fabric.disk.options.capacityBytes = 2 ** 40;
  await fabric.put(volume, many(40, 200));
  await fabric.reopen();
  for (const index of [0, 9, 39]) t.same(await fabric.chunk(volume, index), content(size, 200 + index));
});

t.test('writes and syncs that fail change nothing and may be repeated', async (t) => {
  for (const kind of ['write', 'sync'] as const) {
    const fabric = await SimulatedStore.open(14);
    await fabric.put(volume, many(10, 100));
    fabric.disk.fail(kind);
    await t.rejects(fabric.put(volume, many(10, 200)), { code: 'IO_ERROR' }, kind);
    t.same(await fabric.chunk(volume, 3), content(size, 103));
    await fabric.put(volume, many(10, 300));
    await fabric.crash('power');
    t.same(await fabric.chunk(volume, 3), content(size, 303));
    t.equal(fabric.store.totals().liveBytes, 10 * recordBytes);
  }
});

t.test('a commit that fails changes nothing and may be repeated', async (t) => {
  for (const code of ['NO_SPACE', 'IO_ERROR'] as const) {
    const fabric = await SimulatedStore.open(15);
    await fabric.put(volume, many(10, 100));
    fabric.maps.failNextCommit = new WeftError(code, 'as the test asked');
    await t.rejects(fabric.put(volume, many(10, 200)), { code });
    t.same(await fabric.chunk(volume, 3), content(size, 103));
    await fabric.clock.idle();
    const files = (await fabric.segmentFiles()).length;
    t.equal(files, code === 'NO_SPACE' ? 1 : 2, 'what may be committed stays until the map is read again');
    await fabric.put(volume, many(10, 300));
    await fabric.clock.idle();
    t.equal(
      (await fabric.segmentFiles()).length,
      code === 'NO_SPACE' ? 1 : 3,
      'also when its chunks are dead',
    );
    t.same(await fabric.chunk(volume, 3), content(size, 303));
    await fabric.reopen();
    t.same(await fabric.chunk(volume, 3), content(size, 303));
    t.equal((await fabric.segmentFiles()).length, 1, 'and goes then');
  }
});

t.test('compaction keeps every chunk and gives the room of dead ones back', async (t) => {
  const fabric = await SimulatedStore.open(16, { segmentSizeBytes: MiB });
  await fabric.put(volume, many(200, 1000));
  for (let index = 0; index < 200; index++) {
    if (index % 5 !== 0)
      await fabric.put(volume, { [index]: index % 5 < 3 ? null : content(size, 5000 + index) });
  }
  const before = fabric.store.totals();
  let compacted = 0;
  while (await fabric.compact()) compacted++;
  await fabric.clock.idle();
  const after = fabric.store.totals();
  t.ok(compacted >= 3, `${compacted} segments were compacted`);
  t.equal(after.liveBytes, before.liveBytes);
  t.ok(after.segmentBytes < after.liveBytes * 2 + 2 * MiB, 'at most half is dead, active segments aside');
  const expected = (index: number) => {
    if (index % 5 === 0) return content(size, 1000 + index);
    return index % 5 < 3 ? Buffer.alloc(size) : content(size, 5000 + index);
  };
  for (let index = 0; index < 200; index++) t.same(await fabric.chunk(volume, index), expected(index));
  await fabric.crash('power');
  for (let index = 0; index < 200; index++) t.same(await fabric.chunk(volume, index), expected(index));
});

t.test('reads and stores go on under compaction', async (t) => {
  const fabric = await SimulatedStore.open(17, { segmentSizeBytes: MiB });
  await fabric.put(volume, many(66, 1000));
  const thin: Record<number, null> = {};
  for (let index = 0; index < 66; index++) if (index % 3 > 0) thin[index] = null;
  await fabric.put(volume, thin);
  const compacting = fabric.store.compactOnce();
  const storing = fabric.store.store(updates(volume, { 0: content(size, 7), 3: null }));
  const reads: Promise<void>[] = [];
  for (let round = 0; round < 300; round++) {
    const index = 6 + 3 * (round % 17);
    reads.push(
      readFrom(fabric.store, volume, index * size, size).then((chunk) => {
        if (!chunk.equals(content(size, 1000 + index))) throw new Error(`chunk ${index} reads wrong`);
      }),
    );
    if (round % 10 === 0) await fabric.clock.run(() => fabric.random.chance(0.3));
  }
  t.same(await fabric.clock.settle(compacting), true);
  await fabric.clock.settle(Promise.all([...reads, storing]));
  await fabric.clock.idle();
  t.notOk((await fabric.segmentFiles()).includes('0000000001.wfs'));
  t.same(await fabric.chunk(volume, 0), content(size, 7));
  t.same(await fabric.chunk(volume, 3), Buffer.alloc(size));
  t.same(await fabric.chunk(volume, 6), content(size, 1006));
});

t.test('a page that shares chunks finds them after compaction', async (t) => {
  const fabric = await SimulatedStore.open(24, { segmentSizeBytes: MiB });
  const clone = { volumeKey: 8, chunkSizeBytes: size };
  await fabric.put(volume, many(66, 1000));
  const page = (await fabric.clock.settle(fabric.maps.loadPage(3, 0)))!;
  const pages = [
    { volumeKey: 8, extentIndex: 0, chunkIds: Array.from(page.chunkIds).map((id) => (id < 9 ? id : 0)) },
  ];
  const none = { addedChunks: [], movedChunks: [], deletedVolumes: [] };
  await fabric.clock.settle(fabric.maps.commit({ pages, ...none }));
  await fabric.reopen();
  await fabric.chunk(clone, 0);
  await fabric.clock.settle(fabric.store.deleteVolume(3));
  t.same(await fabric.chunk(clone, 7), content(size, 1007));
  t.equal(await fabric.compact(), true);
  await fabric.clock.idle();
  t.notOk((await fabric.segmentFiles()).includes('0000000001.wfs'));
  for (let index = 0; index < 8; index++)
    t.same(await fabric.chunk(clone, index), content(size, 1000 + index));
});

t.test('a damaged chunk keeps its segment, is logged once, and the others are moved', async (t) => {
  const fabric = await SimulatedStore.open(18, { segmentSizeBytes: MiB });
  await fabric.put(volume, many(64, 1000));
  const thin: Record<number, null> = {};
  for (let index = 8; index < 63; index++) thin[index] = null;
  await fabric.put(volume, thin);
  fabric.disk.flipBit(
    'segments/0000000001.wfs',
    segmentHeaderBytes + groupHeaderBytes(62) + 2 * recordBytes + 5000,
  );
  t.equal(await fabric.compact(), true);
  t.equal(await fabric.compact(), false, 'it is not tried again and again');
  t.match(fabric.warnings, [{ segmentNumber: 1 }]);
  t.equal(fabric.warnings.length, 1);
  await t.rejects(fabric.chunk(volume, 2), { code: 'CORRUPT' });
  for (const index of [0, 1, 3, 7]) t.same(await fabric.chunk(volume, index), content(size, 1000 + index));
  t.ok((await fabric.segmentFiles()).includes('0000000001.wfs'));
});

t.test('a chunk that cannot be read keeps its segment, and the other segments are compacted', async (t) => {
  const fabric = await SimulatedStore.open(20, { segmentSizeBytes: MiB });
  await fabric.put(volume, many(64, 1000));
  const thin: Record<number, null> = {};
  for (let index = 8; index < 63; index++) thin[index] = null;
  await fabric.put(volume, thin);
  fabric.disk.fail('read', 3, 'segments/0000000001.wfs');
  t.equal(await fabric.compact(), true);
  t.equal(await fabric.compact(), false, 'it is not tried again and again');
  t.match(fabric.warnings, [{ segmentNumber: 1 }]);
  for (let index = 0; index < 8; index++)
    t.same(await fabric.chunk(volume, index), content(size, 1000 + index));
  t.ok((await fabric.segmentFiles()).includes('0000000001.wfs'));
});

t.test('a chunk of an unknown codec is refused as too new, not as damaged', async (t) => {
  const fabric = await SimulatedStore.open(19);
  await fabric.put(volume, many(1, 5));
  const [chunk] = await fabric.clock.settle(fabric.maps.listSegment(1));
  const commit = fabric.maps.commit({
    pages: [],
    addedChunks: [],
    movedChunks: [{ ...chunk!, codec: 2 }],
    deletedVolumes: [],
  });
  await fabric.clock.settle(commit);
  await fabric.reopen();
  await t.rejects(fabric.chunk(volume, 0), { code: 'FORMAT_TOO_NEW' });
});

t.test('a closed store refuses and has let go of its files', async (t) => {
  const fabric = await SimulatedStore.open(20);
  await fabric.put(volume, many(3, 5));
  const reading = fabric.chunk(volume, 1);
  await fabric.clock.settle(fabric.store.close());
  t.same(await reading, content(size, 6), 'a read in flight ends first');
  await t.rejects(fabric.chunk(volume, 0), { code: 'SHUTTING_DOWN' });
  await t.rejects(fabric.put(volume, many(1, 1)), { code: 'SHUTTING_DOWN' });
  await t.rejects(fabric.store.compactOnce(), { code: 'SHUTTING_DOWN' });
});

t.test('a second store call before the first has ended is a fault', async (t) => {
  const fabric = await SimulatedStore.open(21);
  const first = fabric.store.store(updates(volume, many(1, 1)));
  await t.rejects(fabric.store.store(updates(volume, many(1, 2))), { name: 'AssertionFault' });
  await fabric.clock.settle(first);
});
