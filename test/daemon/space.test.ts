/** Space that nobody uses any more is given back to the file system. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { eventually } from '../system/eventually.ts';
import { BlockLedger, compileLedger } from './block-ledger.ts';
import { createVolume, drained, startWeftd, temporaryDirectory } from './volume-rig.ts';

const sizeBytes = 96 * MiB;
const limitMs = 30_000;

t.test('UNMAP, and removal with the trash emptied, give all space back', async (t) => {
  const directory = await temporaryDirectory(t);
  const program = await compileLedger(directory);
  const weftd = await startWeftd(t, { flags: ['--journal-capacity', '64m', '--journal-file-size', '16m'] });
  const client = await weftd.client();
  const blockCount = sizeBytes / 4096;
  const url = await createVolume(weftd, { name: 'a', sizeBytes });
  const ledger = await BlockLedger.create(t, program, join(directory, 'a'), blockCount);
  const segments = async () =>
    (await readdir(join(weftd.data, 'segments'))).filter((name) => name.endsWith('.wfs'));
  const used = async () => (await client.volume('a')).usedBytes;

  t.equal((await ledger.fill(url)).outcome, 'done');
  await drained(weftd);
  t.equal(await used(), sizeBytes);
  t.equal((await client.status()).capacity.usedBytes >= sizeBytes, true);
  t.ok((await segments()).length >= 2, 'it is in segments');

  t.equal((await ledger.unmap(url, 0, blockCount / 2)).outcome, 'done');
  await drained(weftd);
  t.equal(await used(), sizeBytes / 2, 'half of it was unmapped');
  t.equal((await ledger.verify(url)).outcome, 'done', 'and reads as zeros');
  t.equal((await ledger.unmap(url)).outcome, 'done');
  await drained(weftd);
  t.equal(await used(), 0, 'all of it was unmapped');
  await eventually('the segments are gone', limitMs, async () => (await segments()).length === 0);
  t.equal((await client.status()).capacity.usedBytes, 0);
  t.equal((await ledger.verify(url)).outcome, 'done');

  t.equal((await ledger.fill(url)).outcome, 'done');
  await drained(weftd);
  t.ok((await segments()).length >= 2);
  await client.removeVolume('a');
  t.ok((await segments()).length >= 2, 'what is in the trash is kept');
  t.equal((await client.container('default')).usedBytes, sizeBytes, 'and is still counted');
  t.equal(await client.emptyTrash(), 1);
  await eventually('the segments are gone', limitMs, async () => (await segments()).length === 0);
  const { capacity, volumes } = await client.status();
  t.equal(capacity.usedBytes, 0);
  t.same(volumes, { online: 0, trash: 0, faulty: 0, sessions: 0 });
});
