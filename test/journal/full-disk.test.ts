/** Large writes stream into sparse files; a disk that is full all at once must not stop the journal. */
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { JournalRig } from './journal-rig.ts';

/** 256 KiB: three fill a file, and such batches count as a stream. */
const writeBlocks = 64;

t.test('when the disk is full under a sparse file, the journal goes on in one that has room', async (t) => {
  let sparse = 0;
  for (let writes = 6; writes <= 14; writes += 1) {
    for (const loss of ['power', 'process'] as const) {
      const rig = await JournalRig.open(writes, { fileSizeBytes: MiB, capacityBytes: 12 * MiB });
      for (let index = 0; index < writes; index += 1) {
        await rig.clock.settle(rig.write(1, index * writeBlocks, writeBlocks));
      }
      await rig.clock.idle();
      const fullFiles = 12;
      if (rig.disk.usedBytes < ((await rig.clock.settle(rig.disk.list('journal'))).length - 1) * MiB)
        sparse += 1;
      rig.disk.options.capacityBytes = rig.disk.usedBytes;
      for (let index = 0; index < 4; index += 1) {
        await rig.clock.settle(rig.write(1, index * 7, writeBlocks));
        await rig.clock.settle(rig.zero(1, 1000 + index * 7, 3));
      }
      await rig.clock.settle(rig.flush());
      t.equal(await rig.verify('none'), null, `after ${writes} writes`);
      t.ok((await rig.clock.settle(rig.disk.list('journal'))).length <= fullFiles);
      rig.crash(loss);
      await rig.open();
      t.equal(await rig.verify(loss), null, `and ${loss} loss`);
      while (await rig.clock.settle(rig.drainOldest()));
      t.equal(await rig.verify('none'), null, 'and a drain');
    }
  }
  t.ok(sparse >= 4, `the file in use was sparse ${sparse} times`);
});

t.test('a stream that nobody drains fills the journal to its capacity, and waits', async (t) => {
  const capacityBytes = 8 * MiB;
  const rig = await JournalRig.open(1, { fileSizeBytes: MiB, capacityBytes });
  let answered = 0;
  const writes = Array.from({ length: 60 }, (_, index) => {
    return rig.write(1, index * writeBlocks, writeBlocks).then(() => {
      answered += 1;
    });
  });
  await rig.clock.idle();
  t.ok(answered >= 18 && answered < 30, `${answered} of 60 writes found room`);
  t.ok(rig.journal.usedBytes <= capacityBytes, `${rig.journal.usedBytes} bytes are used`);
  t.ok(rig.disk.usedBytes <= capacityBytes, `${rig.disk.usedBytes} bytes are on the disk`);
  for (let drained = true; answered < 60 && drained; ) {
    drained = await rig.clock.settle(rig.drainOldest());
    await rig.clock.idle();
  }
  await rig.clock.settle(Promise.all(writes));
  t.equal(await rig.verify('none'), null);
});

t.test('it goes on also when power fails at any event of leaving the sparse file', async (t) => {
  for (let after = 1, isDone = false; !isDone; after += 1) {
    const rig = await JournalRig.open(3, { fileSizeBytes: MiB, capacityBytes: 12 * MiB });
    for (let index = 0; index < 9; index += 1) {
      await rig.clock.settle(rig.write(1, index * writeBlocks, writeBlocks));
    }
    await rig.clock.idle();
    rig.disk.options.capacityBytes = rig.disk.usedBytes;
    const crashAt = rig.clock.eventCount + after;
    const writing = Promise.all(
      [0, 1, 2].map((index) => rig.write(1, 2000 + index * writeBlocks, writeBlocks, true)),
    );
    void writing.then(
      () => {
        isDone = true;
      },
      () => {},
    );
    await rig.clock.run(() => isDone || rig.clock.eventCount >= crashAt);
    rig.crash('power');
    await rig.open();
    const wrong = await rig.verify('power');
    if (wrong !== null) t.fail(`after ${after} events: ${wrong}`);
    await rig.clock.settle(rig.write(1, 0, 1, true));
    if (after > 500) t.fail('it does not end');
    if (after > 500) return;
  }
  t.pass('at no event was anything lost');
});
