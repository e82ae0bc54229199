/** weftd is killed at random moments under verifying writers: what was acknowledged is there, and nothing is torn. */
import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { BlockLedger, compileLedger } from './block-ledger.ts';
import { createVolume, startWeftd, temporaryDirectory } from './volume-rig.ts';

const sizeBytes = 32 * MiB;
const crashes = 20;
/** Small, so that it is drained all the time and many of the kills fall into a drain. */
const smallJournal = ['--journal-capacity', '48m', '--journal-file-size', '16m'];

t.test('every acknowledged write outlives 20 kills, in flush and in sync mode', async (t) => {
  const directory = await temporaryDirectory(t);
  const program = await compileLedger(directory);
  const weftd = await startWeftd(t, { flags: smallJournal });
  const writers = [];
  for (const durability of ['flush', 'sync'] as const) {
    const url = await createVolume(weftd, { name: durability, sizeBytes, durability });
    const ledger = await BlockLedger.create(t, program, join(directory, durability), sizeBytes / 4096);
    writers.push({ durability, url, ledger });
  }
  let acknowledged = 0;
  for (let crash = 1; crash <= crashes; crash++) {
    const runs = writers.map(({ url, ledger }) => ledger.random(url, { seconds: 60 }));
    await delay(randomInt(20, 700));
    await weftd.kill9();
    for (const run of await Promise.all(runs)) {
      // A writer that did not get to log in before the kill has no connection to lose.
      t.ok(run.outcome === 'lost' || run.commands === 0, `the writer lost its connection: ${run.outcome}`);
      acknowledged += run.commands;
    }
    await weftd.startAgain();
    const checks = await Promise.all(writers.map(({ url, ledger }) => ledger.verify(url)));
    for (const [index, { outcome, complaint }] of checks.entries()) {
      t.equal(outcome, 'done', `after kill ${crash}, ${writers[index]!.durability} mode: ${complaint}`);
    }
    if (!t.passing()) return;
  }
  t.comment(`${acknowledged} acknowledged commands over ${crashes} kills`);
  t.ok(acknowledged > 20 * crashes, 'the kills fell into writes');
});
