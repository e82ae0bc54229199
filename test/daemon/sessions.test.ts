/** Several sessions and LUNs at once: nobody's data gets into another's. */
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { BlockLedger, compileLedger } from './block-ledger.ts';
import { createVolume, drained, startWeftd, temporaryDirectory } from './volume-rig.ts';

const sizeBytes = 64 * MiB;
const half = sizeBytes / 4096 / 2;

t.test('three volumes with two initiators each, all at once, keep what each wrote', async (t) => {
  const directory = await temporaryDirectory(t);
  const program = await compileLedger(directory);
  const weftd = await startWeftd(t, { flags: ['--journal-capacity', '128m', '--journal-file-size', '16m'] });
  const client = await weftd.client();
  await client.createContainer({ name: 'small-chunks', chunkSizeBytes: 4096 });
  const volumes: { name: string; url: string; ledger: BlockLedger }[] = [];
  for (const wanted of [
    { name: 'flushed' },
    { name: 'synced', durability: 'sync' as const },
    { name: 'small', container: 'small-chunks', chap: 'none' as const },
  ]) {
    const url = await createVolume(weftd, { ...wanted, sizeBytes });
    volumes.push({
      name: wanted.name,
      url,
      ledger: await BlockLedger.create(t, program, join(directory, wanted.name), half * 2),
    });
  }
  const writeAll = () =>
    Promise.all(
      volumes.flatMap(({ url, ledger }) =>
        [0, half].map((first) => ledger.random(url, { seconds: 4, first, count: half })),
      ),
    );
  const verifyAll = async (when: string) => {
    for (const { name, url, ledger } of volumes) {
      const { outcome, complaint } = await ledger.verify(url);
      t.equal(outcome, 'done', `${name} ${when}: ${complaint}`);
    }
  };

  const writing = writeAll();
  // Six sessions at once, beside those that read the status.
  let sessions = 0;
  const watch = setInterval(async () => {
    const status = await client.status().catch(() => null);
    sessions = Math.max(sessions, status?.volumes.sessions ?? 0);
  }, 200);
  t.teardown(() => clearInterval(watch));
  for (const run of await writing) t.match(run, { outcome: 'done' }, 'nothing was refused or lost');
  clearInterval(watch);
  t.equal(sessions, 6);
  await verifyAll('after the writers');

  // Everybody reads while everybody else writes: each half by one initiator, and the other half verified by a third.
  const runs = volumes.flatMap(({ url, ledger }) => [
    ledger.random(url, { seconds: 2, first: 0, count: half }),
    ledger.verify(url, half, half),
  ]);
  for (const run of await Promise.all(runs)) t.match(run, { outcome: 'done' }, run.complaint);
  await verifyAll('after writing and reading at once');
  await drained(weftd);
  await verifyAll('after the drain');
});
