import t from 'tap';
import type { WeftError } from '../../daemon/base/errors.ts';
import { JournalRig } from './journal-rig.ts';

const firstFile = 'journal/0000000001.wfj';
const secondFile = 'journal/0000000002.wfj';

/** Three durable batches of two blocks each (pages 1 to 9 of the file), closed. */
async function closedJournal(): Promise<JournalRig> {
  const rig = await JournalRig.open();
  for (const block of [0, 2, 4]) await rig.clock.settle(rig.write(1, block, 2, true));
  await rig.clock.settle(rig.journal.close());
  rig.crash('process');
  return rig;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'done',
    (error: WeftError) => error.code,
  );
}

t.test(
  'one wrong bit anywhere in a closed journal is noticed: at the start, or where it is read',
  async (t) => {
    for (let page = 0; page < 10; page += 1) {
      for (const [offset, bit] of [
        [0, 0],
        [41, 3],
        [70, 7],
        [4095, 5],
      ] as const) {
        const rig = await closedJournal();
        rig.disk.flipBit(firstFile, page * 4096 + offset, bit);
        const isHeader = page % 3 === 1 || page === 0;
        const opened = await codeOf(rig.open());
        if (isHeader) {
          t.equal(opened, 'CORRUPT', `header in page ${page}, offset ${offset}`);
          continue;
        }
        t.equal(opened, 'done', `payload in page ${page}`);
        t.equal(rig.logged.length, 1, 'it is logged');
        const badBlock = Math.floor((page - 2) / 3) * 2 + ((page - 2) % 3);
        for (let block = 0; block < 6; block += 1) {
          const read = await codeOf(rig.clock.settle(rig.read(1, block)));
          t.equal(read, block === badBlock ? 'CORRUPT' : 'done', `block ${block} with page ${page} bad`);
        }
      }
    }
  },
);

t.test(
  'what is damaged is named: the file and offset at the start, the volume and offset when read',
  async (t) => {
    const header = await closedJournal();
    header.disk.flipBit(firstFile, 4 * 4096 + 100);
    await t.rejects(header.clock.settle(header.opening()), {
      code: 'CORRUPT',
      message: /restore/,
      details: { path: firstFile, offsetBytes: 4 * 4096 },
    });
    const payload = await closedJournal();
    payload.disk.flipBit(firstFile, 6 * 4096 + 100);
    await payload.open();
    await t.rejects(payload.clock.settle(payload.read(1, 3)), {
      code: 'CORRUPT',
      details: { volumeKey: 1, offsetBytes: 3 * 4096, path: firstFile, fileOffsetBytes: 6 * 4096 },
    });
  },
);

t.test('rot while the journal is open gives CORRUPT, never garbage', async (t) => {
  const rig = await JournalRig.open();
  await rig.clock.settle(rig.write(1, 0, 2, true));
  rig.disk.flipBit(firstFile, 3 * 4096 + 5);
  t.equal(await codeOf(rig.clock.settle(rig.read(1, 0))), 'done');
  t.equal(await codeOf(rig.clock.settle(rig.read(1, 1))), 'CORRUPT');
});

t.test('damage to a batch is told from a torn tail by a later file', async (t) => {
  const rig = await JournalRig.open();
  await rig.clock.settle(rig.write(1, 0, 2, true));
  await rig.clock.settle(rig.journal.sealActive());
  await rig.clock.settle(rig.write(1, 2, 2, true));
  rig.disk.flipBit(firstFile, 4096 + 100);
  rig.crash('process');
  await t.rejects(rig.clock.settle(rig.opening()), { code: 'CORRUPT', details: { path: firstFile } });
});

t.test('a damaged batch nobody was promised ends the journal, and what follows it goes too', async (t) => {
  const rig = await JournalRig.open();
  await rig.clock.settle(rig.write(1, 0, 1, true));
  await rig.clock.settle(rig.write(1, 1, 1));
  await rig.clock.settle(rig.write(1, 2, 1));
  rig.disk.flipBit(firstFile, 3 * 4096 + 100);
  rig.crash('process');
  await rig.open();
  t.same(
    rig.journal.index.runs(1, 0, 3).map((run) => [run.kind, run.count]),
    [
      ['journal', 1],
      ['below', 2],
    ],
  );
});

t.test('a missing file in the middle is refused', async (t) => {
  const rig = await JournalRig.open();
  for (let at = 0; at < 3; at += 1) {
    await rig.clock.settle(rig.write(1, at, 2, true));
    await rig.clock.settle(rig.journal.sealActive());
  }
  rig.crash('process');
  await rig.clock.settle(rig.disk.remove(secondFile));
  await t.rejects(rig.clock.settle(rig.opening()), { code: 'CORRUPT', message: /missing/ });
});

t.test('a file under the name of another is refused', async (t) => {
  const rig = await closedJournal();
  await rig.clock.settle(rig.disk.rename(firstFile, secondFile));
  await t.rejects(rig.clock.settle(rig.opening()), { code: 'CORRUPT', details: { path: secondFile } });
});

t.test('a disk that cannot be read fails the start instead of hiding what it holds', async (t) => {
  const rig = await closedJournal();
  rig.disk.fail('read', 2);
  await t.rejects(rig.clock.settle(rig.opening()), { code: 'IO_ERROR' });
  await rig.open();
  t.equal(rig.journal.index.liveBlocks(1), 6, 'and harms nothing');
});

t.test('damage to the last batch is noticed after a clean end, sealed or not', async (t) => {
  for (const sealed of [true, false]) {
    const rig = await JournalRig.open();
    await rig.clock.settle(rig.write(1, 0, 28));
    if (sealed) await rig.clock.settle(rig.journal.sealActive());
    await rig.clock.settle(rig.journal.close());
    rig.crash('power');
    rig.disk.flipBit(firstFile, 4096 + 100);
    await t.rejects(rig.clock.settle(rig.opening()), { code: 'CORRUPT', details: { path: firstFile } });
  }
});

t.test('what was cut off behind a recovered batch never comes back', async (t) => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const rig = await JournalRig.open(seed);
    await rig.clock.settle(rig.write(1, 0, 1, true));
    for (const block of [1, 2, 3]) await rig.clock.settle(rig.write(1, block, 1));
    rig.crash('power');
    for (let start = 0; start < 3; start += 1) {
      await rig.open();
      const kept = rig.journal.index.liveBlocks(1);
      await rig.clock.settle(rig.journal.sealActive());
      await rig.clock.settle(rig.journal.close());
      rig.crash('process');
      await rig.open();
      t.equal(rig.journal.index.liveBlocks(1), kept, `seed ${seed} start ${start}`);
    }
  }
});
