/** A full store has room again when its users give space back: by UNMAP, or by removing a volume for good. */
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { eventually } from '../system/eventually.ts';
import { startOnSmallFileSystem } from './full-store.ts';
import { drained } from './volume-rig.ts';

/** Freed space is seen after a drain, which begins some seconds after the last write, and after compaction. */
const limitMs = 30_000;

t.test(
  'UNMAP makes room in a full store, and so does removing a volume and emptying the trash',
  async (t) => {
    const store = await startOnSmallFileSystem(t, 480);
    await store.fillUp('full');
    await drained(store.weftd);
    await store.fillUp('full, with nothing left to drain');

    const client = await store.weftd.client();
    const freeBytes = async () => (await client.status()).capacity.freeBytes;
    const fullBytes = await freeBytes();
    const unmappedBytes = await store.unmapHalf();
    const wantedBytes = unmappedBytes / 2;
    await eventually(
      'UNMAP gives room back',
      limitMs,
      async () => (await freeBytes()) > fullBytes + wantedBytes,
    );
    const fittedBytes = await store.fillUp('full again');
    t.ok(fittedBytes > wantedBytes, `${fittedBytes / MiB} of ${unmappedBytes / MiB} MiB fitted again`);

    await client.removeVolume('other');
    t.equal(await store.tryToWrite(), false, 'what is in the trash keeps its space');
    t.equal(await client.emptyTrash(), 1);
    await eventually('writes are taken again after the trash was emptied', limitMs, store.tryToWrite);
    await store.verify('after all that');
  },
);
