/** The store's file system is full: writes are refused with the sense for it, and nothing that was acknowledged goes. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { eventually } from '../system/eventually.ts';
import { startOnSmallFileSystem } from './full-store.ts';

const limitMs = 20_000;

t.test(
  'a full store refuses writes, reads on, loses nothing, and resumes when a file is removed',
  async (t) => {
    const filler = (point: string) => join(point, 'filler');
    const store = await startOnSmallFileSystem(t, 700, async (point) => {
      await execa('fallocate', ['-l', '260M', filler(point)]);
    });
    const fittedBytes = await store.fillUp('full');
    t.ok(fittedBytes > 4 * MiB, `${fittedBytes / MiB} MiB fitted`);
    await store.weftd.kill9();
    await store.weftd.startAgain();
    await store.verify('after kill -9 and a start while full');
    t.equal(await store.tryToWrite(), false, 'still full');

    await rm(filler(store.point));
    await eventually('writes are taken again', limitMs, store.tryToWrite);
    const moreBytes = await store.fillUp('full again');
    t.ok(moreBytes > 100 * MiB, `${moreBytes / MiB} MiB more fitted`);
    await store.weftd.kill9();
    await store.weftd.startAgain();
    await store.verify('after another kill -9');
    t.equal(await store.weftd.shutDown(), true, 'it ends cleanly while it is full');
  },
);
