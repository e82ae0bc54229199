import t from 'tap';
import { JournalRig } from './journal-rig.ts';

/** Files of 32 pages: a few batches fill one, so that every crash point meets rolling, draining and reuse. */
const seeds = Number(process.env['JOURNAL_SEEDS'] ?? 4);
const rounds = 4;

function ignore(promise: Promise<unknown>): void {
  promise.catch(() => {});
}

/** Writes, zeros, flushes and drains, many at once, until so many disk steps are done. */
async function work(rig: JournalRig, steps: number, durableShare: number): Promise<void> {
  const { random } = rig;
  const end = rig.disk.operationCount + steps;
  let draining = false;
  while (rig.disk.operationCount < end) {
    const volumeKey = random.between(1, 2);
    const choice = random.next();
    if (choice < 0.7) {
      const block = random.chance(0.5) ? random.below(24) : 1010 + random.below(24);
      ignore(rig.write(volumeKey, block, random.between(1, 6), random.chance(durableShare)));
    } else if (choice < 0.8) {
      const whole = random.chance(0.1);
      const [block, count] = whole ? [1020, 1024 + 20] : [random.below(30), random.between(1, 8)];
      ignore(rig.zero(volumeKey, block, count, random.chance(durableShare)));
    } else if (choice < 0.87) {
      ignore(rig.flush());
    } else if (choice < 0.9) {
      ignore(rig.journal.sealActive());
    }
    if (!draining && rig.journal.usedBytes > rig.journal.capacityBytes * 0.4) {
      draining = true;
      const done = () => {
        draining = false;
      };
      rig.drainOldest().then(done, done);
    }
    const pause = rig.disk.operationCount + random.below(12);
    await rig.clock.run(() => rig.disk.operationCount >= pause);
  }
}

async function crashes(
  seed: number,
  kind: 'process' | 'power',
  durableShare: number,
): Promise<string | null> {
  const rig = await JournalRig.open(seed);
  for (let round = 0; round < rounds; round += 1) {
    await work(rig, rig.random.between(20, 400), durableShare);
    rig.crash(kind);
    // Now and then the recovery is cut off too.
    while (rig.random.chance(0.4)) {
      const cut = rig.random.below(120);
      ignore(rig.opening());
      await rig.clock.run(() => rig.disk.operationCount >= cut);
      rig.crash(kind);
    }
    await rig.open();
    const wrong = await rig.verify(kind);
    if (wrong !== null) return `seed ${seed} round ${round}: ${wrong}`;
  }
  return null;
}

for (const [name, durableShare] of [
  ['flushed at times', 0],
  ['durable one by one', 1],
  ['of both kinds', 0.5],
] as const) {
  t.test(`power loss takes nothing that was promised and tears no block: writes ${name}`, async (t) => {
    for (let seed = 1; seed <= seeds; seed += 1) {
      const wrong = await crashes(seed, 'power', durableShare);
      if (wrong !== null) t.fail(wrong);
    }
    t.pass(`${seeds} seeds of ${rounds} crashes`);
  });
}

t.test('a killed process loses nothing that was acknowledged', async (t) => {
  for (let seed = 1001; seed <= 1000 + seeds; seed += 1) {
    const wrong = await crashes(seed, 'process', 0.2);
    if (wrong !== null) t.fail(wrong);
  }
  t.pass(`${seeds} seeds of ${rounds} crashes`);
});

t.test(
  'without a crash every block reads as it was last written, while files are drained and reused',
  async (t) => {
    for (let seed = 1; seed <= 4; seed += 1) {
      const rig = await JournalRig.open(seed);
      await work(rig, 1500, 0.2);
      await rig.clock.idle();
      while (rig.journal.sealedFiles().length > 0) await rig.clock.settle(rig.drainOldest());
      await rig.clock.idle();
      t.equal(await rig.verify('none'), null, `seed ${seed}`);
      await rig.clock.settle(rig.journal.close());
      await rig.open();
      t.equal(await rig.verify('none'), null, `seed ${seed}, opened again`);
    }
  },
);

t.test('what was recovered after a kill survives the power loss that follows', async (t) => {
  for (let seed = 1; seed <= 25; seed += 1) {
    const rig = await JournalRig.open(seed);
    await rig.clock.settle(Promise.all([0, 1, 2, 3].map((block) => rig.write(1, block, 1))));
    await rig.clock.settle(rig.write(1, 2, 4));
    rig.crash('process');
    await rig.open();
    t.equal(await rig.verify('process'), null, `seed ${seed}, killed`);
    await rig.clock.settle(rig.write(1, 5, 1, true));
    rig.crash('power');
    await rig.open();
    t.equal(await rig.verify('power'), null, `seed ${seed}, power lost`);
  }
});

t.test('what a failed sync gave up is on the disk once a restart has recovered it', async (t) => {
  for (let seed = 1; seed <= 10; seed += 1) {
    const rig = await JournalRig.open(seed);
    await rig.clock.settle(rig.write(1, 0, 3, true));
    await rig.clock.settle(Promise.all([3, 4, 5].map((block) => rig.write(1, block, 1))));
    rig.disk.fail('sync');
    await t.rejects(rig.clock.settle(rig.flush()), { code: 'IO_ERROR' });
    rig.crash('process');
    await rig.open();
    await rig.clock.settle(rig.flush());
    rig.crash('power');
    await rig.open();
    t.equal(await rig.verify('power'), null, `seed ${seed}`);
  }
});
