import t from 'tap';
import type { DiskFile } from '../../daemon/env/disk.ts';
import { diskConformance, read, sync, write } from '../env/disk-conformance.ts';
import { SeededRandom } from './seeded-random.ts';
import { SimulatedClock } from './simulated-clock.ts';
import { type DiskOptions, SimulatedDisk } from './simulated-disk.ts';

function simulation(seed = 1, options: Partial<DiskOptions> = {}) {
  const random = new SeededRandom(seed);
  const clock = new SimulatedClock(random.fork());
  return { random, clock, disk: new SimulatedDisk(clock, random.fork(), options) };
}

/** Contents of the file's pages, by their first byte, after the scenario and a crash; over many seeds. */
async function outcomes(
  kind: 'process' | 'power',
  scenario: (file: DiskFile, disk: SimulatedDisk) => Promise<unknown>,
  seeds = 60,
): Promise<Set<string>> {
  const found = new Set<string>();
  for (let seed = 1; seed <= seeds; seed++) {
    const { clock, disk } = simulation(seed);
    const file = await clock.settle(disk.open('data', 'create'));
    await clock.settle(disk.syncDirectory(''));
    await clock.settle(scenario(file, disk));
    const after = disk.crash(kind);
    const survivor = await clock.settle(after.open('data', 'read'));
    const size = await clock.settle(survivor.size());
    const { bytes } = await clock.settle(read(survivor, size, 0));
    let text = '';
    for (let page = 0; page < size; page += 4096) {
      const content = bytes.subarray(page, page + 4096);
      text += content.every((byte) => byte === content[0]) ? String(content[0]) : 't';
    }
    found.add(text);
  }
  return found;
}

const page = (fill: number) => [Buffer.alloc(4096, fill)];

diskConformance(t, () => {
  const { clock, disk } = simulation();
  return { disk, settle: (promise) => clock.settle(promise) };
});

t.test('a killed process loses nothing that was written', async (t) => {
  const found = await outcomes('process', (file) => write(file, [Buffer.alloc(8192, 1)], 0));
  t.same([...found], ['11']);
});

t.test('a synced write survives power loss, whatever is written after it', async (t) => {
  const found = await outcomes('power', async (file) => {
    await write(file, [Buffer.alloc(8192, 1)], 0);
    await sync(file);
    await write(file, page(2), 4096);
  });
  for (const text of found) t.match(text, /^1[12t]$/);
  t.ok(found.has('11') && found.has('12') && found.has('1t'), 'kept, lost and torn all happen');
});

t.test('pages of an unsynced write survive power loss independently', async (t) => {
  const found = await outcomes('power', async (file) => {
    await file.truncate(8192);
    await sync(file);
    await write(file, [Buffer.alloc(8192, 1)], 0);
  });
  for (const text of ['00', '01', '10', '11']) t.ok(found.has(text), text);
});

t.test('a page may keep any of the contents it had since the last sync', async (t) => {
  const found = await outcomes('power', async (file) => {
    for (const fill of [1, 2, 3]) await write(file, page(fill), 0);
  });
  for (const text of ['', '0', '1', '2', '3']) t.ok(found.has(text), text);
});

t.test('a sync covers what was written before it was asked, not what came meanwhile', async (t) => {
  const found = await outcomes('power', async (file) => {
    await write(file, page(1), 0);
    const synced = sync(file);
    const late = write(file, page(2), 0);
    await synced;
    await late;
  });
  t.notOk(found.has('0') || found.has(''), 'the first is never lost');
  t.ok(found.has('1') && found.has('2'), 'the second may be');
});

t.test('a failed sync makes nothing durable, and a later one does not mend it', async (t) => {
  const found = await outcomes('power', async (file, disk) => {
    await write(file, page(1), 0);
    disk.fail('sync');
    await t.rejects(sync(file), { code: 'IO_ERROR' });
    await write(file, page(2), 4096);
    await sync(file);
  });
  for (const text of found) t.match(text, /^[01t]2$/);
  t.ok(found.has('02'), 'the write before the failure may be lost');
});

t.test(
  'a shortened file is the old or the short one after power loss, never the old with holes',
  async (t) => {
    const found = await outcomes('power', async (file) => {
      await write(file, [Buffer.alloc(12_288, 1)], 0);
      await sync(file);
      await file.truncate(4096);
    });
    t.same([...found].sort(), ['1', '111']);
  },
);

t.test('a write that was cut off by the kill may be there in part', async (t) => {
  const seen = new Set<string>();
  for (let seed = 1; seed <= 40; seed++) {
    const { clock, disk } = simulation(seed);
    const file = await clock.settle(disk.open('data', 'create'));
    let called = false;
    file.write([Buffer.alloc(12_288, 1)], 0, () => {
      called = true;
    });
    const after = disk.crash('process');
    await clock.idle();
    t.equal(called, false, 'no callback after the crash');
    seen.add(String(await clock.settle((await clock.settle(after.open('data', 'read'))).size())));
  }
  t.same([...seen].sort(), ['0', '12288', '4096', '8192']);
});

t.test(
  'names survive power loss once their directory is synced; before, the first changes may',
  async (t) => {
    const seen = new Set<string>();
    for (let seed = 1; seed <= 80; seed++) {
      const { clock, disk } = simulation(seed);
      const scenario = async () => {
        await disk.makeDirectory('d');
        await disk.open('d/kept', 'create');
        await disk.syncDirectory('d');
        await disk.open('d/new', 'create');
        await disk.rename('d/new', 'd/renamed');
        await disk.remove('d/kept');
      };
      await clock.settle(scenario());
      seen.add((await clock.settle(disk.crash('power').list('d'))).join());
    }
    t.same([...seen].sort(), ['kept', 'kept,new', 'kept,renamed', 'renamed']);
  },
);

t.test('a rename from one directory to another happens whole or not at all', async (t) => {
  for (let seed = 1; seed <= 40; seed++) {
    const { clock, disk } = simulation(seed);
    const scenario = async () => {
      await disk.makeDirectory('a');
      await disk.makeDirectory('b');
      await disk.open('a/x', 'create');
      await disk.syncDirectory('a');
      await disk.rename('a/x', 'b/x');
      if (seed % 2 === 0) await disk.syncDirectory('b');
    };
    await clock.settle(scenario());
    const after = disk.crash('power');
    const names = [await clock.settle(after.list('a')), await clock.settle(after.list('b'))];
    t.equal(names.flat().length, 1, `seed ${seed}: there once`);
    if (seed % 2 === 0) t.same(names, [[], ['x']]);
  }
});

t.test('a crash may fall between any two steps, and the same seed replays it', async (t) => {
  const runTo = async (crashAt: number) => {
    const { clock, disk } = simulation(9);
    const done: string[] = [];
    const scenario = async () => {
      const file = await disk.open('data', 'create');
      await disk.syncDirectory('');
      for (const fill of [1, 2, 3]) {
        await write(file, page(fill), fill * 4096);
        done.push(`written ${fill}`);
        await sync(file);
        done.push(`synced ${fill}`);
      }
    };
    void scenario();
    await clock.run(() => disk.operationCount >= crashAt);
    const after = disk.crash('power');
    const names = await clock.settle(after.list(''));
    return { done, names, used: after.usedBytes };
  };
  const points = new Set<string>();
  for (let crashAt = 0; crashAt <= 16; crashAt++) {
    const first = await runTo(crashAt);
    t.same(first, await runTo(crashAt));
    points.add(first.done.join());
    const synced = first.done.filter((step) => step.startsWith('synced')).length;
    t.ok(first.used >= synced * 4096, 'nothing synced is lost');
  }
  t.equal(points.size, 7, 'every point is met');
});

t.test('a full disk refuses what does not fit, and takes it when room is made', async (t) => {
  const { clock, disk } = simulation(1, { capacityBytes: 16 * 4096 });
  const scenario = async () => {
    const big = await disk.open('big', 'create');
    await write(big, [Buffer.alloc(12 * 4096, 1)], 0);
    const file = await disk.open('data', 'create');
    await t.rejects(write(file, [Buffer.alloc(5 * 4096, 2)], 0), { code: 'NO_SPACE' });
    await write(big, page(3), 0);
    t.equal((await disk.space()).totalBytes, 16 * 4096);
    await big.close();
    await disk.remove('big');
    await write(file, [Buffer.alloc(5 * 4096, 2)], 0);
    t.equal((await disk.space()).freeBytes, 11 * 4096);
    await file.truncate(4096);
    t.equal(disk.usedBytes, 4096);
  };
  await clock.settle(scenario());
});

t.test('faults hit the operation they were set for, once', async (t) => {
  const { clock, disk } = simulation();
  const scenario = async () => {
    const file = await disk.open('data', 'create');
    disk.fail('write', 2);
    disk.fail('read', 1, 'data');
    await write(file, page(1), 0);
    await t.rejects(write(file, page(2), 4096), { code: 'IO_ERROR' });
    await write(file, page(3), 0);
    await t.rejects(read(file, 4096, 0), { code: 'IO_ERROR' });
    t.equal((await read(file, 1, 0)).bytes[0], 3);
    disk.flipBit('data', 0, 7);
    t.equal((await read(file, 1, 0)).bytes[0], 0x83);
  };
  await clock.settle(scenario());
});

t.test('a piece changed while it is being written is a fault', async (t) => {
  const { clock, disk } = simulation();
  const file = await clock.settle(disk.open('data', 'create'));
  const [piece] = page(1);
  file.write([piece!], 0, () => {});
  piece!.fill(2);
  await t.rejects(clock.idle(), { message: /changed while it was being written/ });
});
