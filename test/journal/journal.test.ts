import t from 'tap';
import type { WeftError } from '../../daemon/base/errors.ts';
import { blockSizeBytes } from '../../daemon/base/limits.ts';
import { decodeJournalFileHeader, notBegun } from '../../daemon/format/journal-file.ts';
import type { AppendDone } from '../../daemon/journal/journal.ts';
import { JournalRig } from './journal-rig.ts';

/** Catches now, so that a refusal meanwhile is no unhandled one. */
function outcome(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'done',
    (error: WeftError) => error.code,
  );
}

function zeroRecord(sequence: number) {
  return {
    kind: 'zero' as const,
    volumeKey: 1,
    offsetBytes: 0,
    lengthBytes: 4096,
    epoch: 1,
    sequence,
    data: null,
  };
}

t.test('what arrives in one tick, or during a write, goes into one batch', async (t) => {
  const rig = await JournalRig.open();
  const before = rig.journal.usedBytes;
  const writes = [0, 1, 2, 3, 4].map((block) => rig.write(1, block, 1));
  await rig.clock.settle(Promise.all(writes));
  t.equal(rig.journal.usedBytes - before, 4096 * 6, 'one header, five payloads');
});

t.test('an append calls back once, later, in order; durable ones only after an fdatasync', async (t) => {
  const rig = await JournalRig.open();
  const told: string[] = [];
  const note =
    (name: string): AppendDone =>
    () =>
      told.push(name);
  for (let at = 1; at <= 3; at += 1) {
    rig.journal.append(zeroRecord(at), true, note(`durable ${at}`));
    rig.journal.append(zeroRecord(at), false, note(`written ${at}`));
  }
  t.same(told, [], 'not from within');
  await rig.clock.idle();
  t.same(told, ['written 1', 'written 2', 'written 3', 'durable 1', 'durable 2', 'durable 3']);
});

t.test('appends made while an fdatasync is under way are served by the next one', async (t) => {
  const rig = await JournalRig.open(3);
  const durable = Array.from({ length: 200 }, (_, at) => rig.write(1, at % 16, 1, true));
  t.equal(await rig.clock.settle(outcome(Promise.all(durable))), 'done');
  rig.crash('power');
  await rig.open();
  t.equal(await rig.verify('power'), null);
});

t.test('a full journal makes writers wait, and lets them go when a file is released', async (t) => {
  const levels: number[] = [];
  const onPressure = (fraction: number) => levels.push(fraction);
  const rig = await JournalRig.open(1, { onPressure });
  let acknowledged = 0;
  for (let at = 0; at < 300; at += 1) {
    void rig.write(1, at % 50, 1).then(() => {
      acknowledged += 1;
    });
  }
  t.notOk(await rig.clock.run(() => acknowledged === 300), 'not all are taken');
  const waiting = acknowledged;
  t.ok(waiting < 300 && waiting > 200, `${waiting} were taken`);
  t.ok(rig.journal.usedBytes <= rig.journal.capacityBytes);
  t.ok(levels[0]! < 0.5 && levels.at(-1)! === 1, 'its filling was told');
  t.same(
    levels,
    levels.toSorted((a, b) => a - b),
  );
  await rig.clock.settle(rig.drainOldest());
  t.ok(await rig.clock.run(() => acknowledged > waiting), 'released space is used');
  while (acknowledged < 300) await rig.clock.settle(rig.drainOldest());
  await rig.clock.idle();
  t.equal(await rig.verify('none'), null);
});

t.test('a journal that fills slows its writers down more and more', async (t) => {
  const rig = await JournalRig.open(1, { fileSizeBytes: 128 * 1024, capacityBytes: 4 * 1024 * 1024 });
  const timeOf = async (writes: number) => {
    const start = rig.clock.monotonicMs();
    for (let at = 0; at < writes; at += 1) await rig.clock.settle(rig.write(1, at, 1));
    return rig.clock.monotonicMs() - start;
  };
  const used = () => rig.journal.usedBytes / rig.journal.capacityBytes;
  const easy = (await timeOf(30)) / 30;
  while (used() < 0.85) await timeOf(5);
  const slower = (await timeOf(10)) / 10;
  while (used() < 0.94) await timeOf(5);
  const slowest = (await timeOf(10)) / 10;
  t.ok(slower > easy * 2 && slowest > slower * 1.5, `${easy} < ${slower} < ${slowest} ms`);
  t.ok(slowest < 100, 'and is never stopped before it is full');
});

t.test(
  'a drain that cannot store refuses the appends that wait, and later ones are tried again',
  async (t) => {
    const { WeftError } = await import('../../daemon/base/errors.ts');
    const rig = await JournalRig.open();
    const outcomes: string[] = [];
    for (let at = 0; at < 300; at += 1)
      void outcome(rig.write(1, at % 50, 1)).then((each) => outcomes.push(each));
    await rig.clock.run(() => false);
    const taken = outcomes.length;
    rig.journal.refuseWaiting(new WeftError('NO_SPACE', 'the store is full'));
    await rig.clock.idle();
    t.equal(outcomes.length, 300);
    t.ok(outcomes.slice(taken).every((each) => each === 'NO_SPACE'));
    const later = outcome(rig.write(1, 0, 1));
    await rig.clock.settle(rig.drainOldest());
    t.equal(await rig.clock.settle(later), 'done');
  },
);

t.test(
  'without room for a new file the waiting appends fail with NO_SPACE, until there is room',
  async (t) => {
    const rig = await JournalRig.open(1, {}, { capacityBytes: 300 * 1024 });
    const outcomes: string[] = [];
    for (let at = 0; at < 100; at += 1) {
      outcomes.push(await rig.clock.settle(outcome(rig.write(1, at, 1))));
    }
    t.same([...new Set(outcomes)], ['done', 'NO_SPACE']);
    t.equal(await rig.clock.settle(outcome(rig.flush())), 'done', 'what was taken can be flushed');
    rig.disk.options.capacityBytes = 2 ** 30;
    t.equal(await rig.clock.settle(outcome(rig.write(1, 0, 1))), 'done');
    await rig.clock.idle();
    rig.disk.options.capacityBytes = rig.disk.usedBytes;
    rig.crash('process');
    await rig.open();
    t.equal(await rig.verify('process'), null, 'a full disk is opened and read');
    while (await rig.clock.settle(rig.drainOldest()));
    t.equal(await rig.clock.settle(outcome(rig.write(1, 0, 2))), 'done', 'a released file needs no room');
  },
);

t.test('a full disk at the first start is no error: appends report it', async (t) => {
  const rig = await JournalRig.open(1, {}, { capacityBytes: 0 });
  t.equal(await rig.clock.settle(outcome(rig.write(1, 0, 1))), 'NO_SPACE');
  rig.disk.options.capacityBytes = 2 ** 30;
  t.equal(await rig.clock.settle(outcome(rig.write(1, 0, 1, true))), 'done');
});

t.test(
  'after a failed fdatasync nothing is promised any more, and a restart recovers what was',
  async (t) => {
    const rig = await JournalRig.open();
    await rig.clock.settle(rig.write(1, 0, 2, true));
    rig.disk.fail('sync');
    t.equal(await rig.clock.settle(outcome(rig.write(1, 1, 2, true))), 'IO_ERROR');
    t.equal(await rig.clock.settle(outcome(rig.write(1, 3, 1))), 'IO_ERROR');
    t.equal(await rig.clock.settle(outcome(rig.flush())), 'IO_ERROR', 'a second try does not claim success');
    t.equal((await rig.clock.settle(rig.read(1, 0))).length, 4096, 'reading goes on');
    await rig.clock.settle(rig.journal.close());
    rig.crash('power');
    await rig.open();
    t.equal(await rig.verify('power'), null);
  },
);

t.test('after a failed write all appends are refused with a word on what to do', async (t) => {
  const rig = await JournalRig.open();
  rig.disk.fail('write');
  const first = outcome(rig.write(1, 0, 1));
  const second = outcome(rig.write(1, 1, 1, true));
  t.same([await rig.clock.settle(first), await rig.clock.settle(second)], ['IO_ERROR', 'IO_ERROR']);
  await t.rejects(rig.clock.settle(rig.write(1, 0, 1)), { code: 'IO_ERROR', message: /restart weftd/ });
  t.equal(await rig.clock.settle(outcome(rig.flush())), 'IO_ERROR');
});

t.test('a file is kept until those who read it are done', async (t) => {
  const rig = await JournalRig.open();
  await rig.clock.settle(rig.write(1, 0, 4));
  await rig.clock.settle(rig.journal.sealActive());
  const file = rig.journal.sealedFiles()[0]!;
  const run = rig.journal.index.runs(1, 0, 4)[0]!;
  const order: string[] = [];
  const target = Buffer.alloc(4 * 4096);
  rig.disk.options.minLatencyMs = 50;
  rig.disk.options.maxLatencyMs = 60;
  const read = new Promise<void>((resolve, reject) => {
    rig.journal.read(1, run, target, (error) => (error ? reject(error) : resolve()));
  }).then(() => order.push('read'));
  rig.disk.options.minLatencyMs = 0;
  rig.disk.options.maxLatencyMs = 0.1;
  rig.journal.index.remove(1, run);
  const released = rig.journal.release(file.fileNumber).then(() => order.push('released'));
  await rig.clock.settle(Promise.all([read, released]));
  t.same(order, ['read', 'released']);
});

t.test('the content of a reused file is not replayed', async (t) => {
  const rig = await JournalRig.open();
  for (let round = 0; round < 40; round += 1) {
    await rig.clock.settle(Promise.all([0, 8, 16].map((block) => rig.write(1, block + (round % 5), 8))));
    await rig.clock.settle(rig.journal.sealActive());
    await rig.clock.settle(rig.drainOldest());
  }
  t.ok((await rig.clock.settle(rig.disk.list('journal'))).length <= 8, 'files are used again');
  await rig.clock.settle(rig.write(1, 100, 1, true));
  rig.crash('power');
  await rig.open();
  t.same(rig.journal.index.liveBlocks(1), 1, 'only what was not drained is in the journal');
  t.equal(await rig.verify('power'), null);
});

t.test('starts without writes use up no files', async (t) => {
  const rig = await JournalRig.open();
  await rig.clock.settle(rig.write(1, 0, 1, true));
  for (let start = 0; start < 20; start += 1) {
    if (start % 2 === 0) await rig.clock.settle(rig.journal.close());
    rig.crash('process');
    await rig.open();
  }
  t.equal(rig.journal.sealedFiles().length, 1);
  t.equal(await rig.verify('process'), null);
});

t.test('records of a volume that is gone are not taken in', async (t) => {
  const rig = await JournalRig.open();
  await rig.clock.settle(Promise.all([rig.write(1, 0, 2), rig.write(2, 0, 3)]));
  rig.journal.dropVolume(2);
  t.match(rig.journal.index.runs(2, 0, 3), [{ kind: 'below', count: 3 }]);
  rig.crash('process');
  const journal = await rig.clock.settle(rig.opening({ keepVolume: (volumeKey) => volumeKey !== 2 }));
  t.same(journal.index.volumeKeys(), [1]);
  t.same(
    [...journal.sealedFiles()[0]!.records].map((record) => record.volumeKey),
    [1],
  );
});

t.test('a closed journal refuses appends, and has everything after power loss', async (t) => {
  const rig = await JournalRig.open();
  const writes = Array.from({ length: 60 }, (_, at) => outcome(rig.write(1, at, 1)));
  const closed = rig.journal.close();
  const late = outcome(rig.write(2, 0, 1));
  await rig.clock.settle(closed);
  t.same(new Set(await Promise.all(writes)), new Set(['done']));
  t.equal(await late, 'SHUTTING_DOWN');
  rig.crash('power');
  await rig.open();
  t.equal(rig.journal.index.liveBlocks(1), 60);
});

t.test('a journal opened with another file size serves what it has', async (t) => {
  const rig = await JournalRig.open();
  for (let at = 0; at < 60; at += 1) await rig.clock.settle(rig.write(1, at, 1));
  rig.crash('process');
  rig.options.fileSizeBytes = 256 * 1024;
  await rig.open();
  t.equal(await rig.verify('process'), null);
  await rig.clock.settle(rig.write(1, 10, 20, true));
  while (await rig.clock.settle(rig.drainOldest()));
  t.equal(await rig.verify('none'), null);
});

t.test('the next file is ready, and says that it is not begun, before the one in use is full', async (t) => {
  const rig = await JournalRig.open();
  await rig.clock.settle(rig.write(1, 0, 20));
  await rig.clock.run(() => false);
  t.same(await rig.clock.settle(rig.disk.list('journal')), ['0000000001.wfj', '0000000002.wfj']);
  const next = await rig.clock.settle(rig.disk.open('journal/0000000002.wfj', 'read'));
  const page = Buffer.alloc(blockSizeBytes);
  await rig.clock.settle(new Promise((resolve) => next.read(page, 0, resolve)));
  t.equal(decodeJournalFileHeader(page, 'the next file').firstBatch, notBegun);
  await rig.clock.settle(rig.write(1, 20, 20));
  await rig.clock.settle(new Promise((resolve) => next.read(page, 0, resolve)));
  t.equal(decodeJournalFileHeader(page, 'the next file').firstBatch, 2);
  rig.crash('process');
  await rig.open();
  t.equal(await rig.verify('process'), null);
});

t.test('a file that was ready and never begun is nobody’s after a crash', async (t) => {
  const rig = await JournalRig.open();
  await rig.clock.settle(rig.write(1, 0, 20, true));
  await rig.clock.run(() => false);
  rig.crash('power');
  await rig.open();
  t.equal(await rig.verify('power'), null);
  t.same(rig.logged, []);
  t.same(
    rig.journal.sealedFiles().map(({ fileNumber }) => fileNumber),
    [1],
  );
});
