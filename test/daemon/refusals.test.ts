/** When weftd must not start it says why, ends with the exit code for it, and leaves the data as it is. */
import { createHash } from 'node:crypto';
import { open, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { eventually } from '../system/eventually.ts';
import type { WeftdProcess } from '../system/weftd-process.ts';
import { BlockLedger, compileLedger } from './block-ledger.ts';
import { createVolume, drained, startWeftd, temporaryDirectory } from './volume-rig.ts';

const main = join(import.meta.dirname, '../../daemon/main.ts');
const tryLimitMs = 30_000;
const smallJournal = ['--journal-capacity', '64m', '--journal-file-size', '16m'];

/** Starts weftd where it should refuse to run. */
async function tryToStart(data: string): Promise<{ exitCode: number | undefined; stderr: string }> {
  const args = [main, '--data', data, '--api', '127.0.0.1:0', '--iscsi', '127.0.0.1:0', ...smallJournal];
  const result = await execa(process.execPath, args, { reject: false, timeout: tryLimitMs, stdin: 'ignore' });
  return { exitCode: result.exitCode, stderr: result.stderr };
}

/** What users' data consists of, file by file. */
async function fingerprints(data: string, names: RegExp): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of (await readdir(data, { recursive: true, withFileTypes: true })).sort()) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || !names.test(path.slice(data.length + 1))) continue;
    found[path.slice(data.length + 1)] = createHash('sha256')
      .update(await readFile(path))
      .digest('hex');
  }
  return found;
}

async function overwrite(path: string, position: number, bytes: Buffer): Promise<Buffer> {
  const file = await open(path, 'r+');
  const before = Buffer.alloc(bytes.length);
  await file.read(before, 0, bytes.length, position);
  await file.write(bytes, 0, bytes.length, position);
  await file.close();
  return before;
}

async function filledVolume(t: Parameters<typeof startWeftd>[0], directory: string) {
  const program = await compileLedger(directory);
  const weftd = await startWeftd(t, { flags: smallJournal });
  const url = await createVolume(weftd, { name: 'data', sizeBytes: 24 * MiB });
  const ledger = await BlockLedger.create(t, program, join(directory, 'ledger'), (24 * MiB) / 4096);
  t.equal((await ledger.fill(url)).outcome, 'done');
  return { weftd, url, ledger };
}

async function refusesUntilRestored(
  t: Parameters<typeof startWeftd>[0],
  weftd: WeftdProcess,
  damage: { file: string; position: number; says: RegExp; untouched: RegExp },
): Promise<void> {
  const path = join(weftd.data, damage.file);
  const good = await overwrite(path, damage.position, Buffer.alloc(64, 0xa5));
  const before = await fingerprints(weftd.data, damage.untouched);
  t.ok(Object.keys(before).length > 0);
  const { exitCode, stderr } = await tryToStart(weftd.data);
  t.equal(exitCode, 65, `${damage.file}: ${stderr}`);
  t.match(stderr, damage.says);
  t.notMatch(stderr, /\n {4}at /, 'no stack trace');
  t.same(await fingerprints(weftd.data, damage.untouched), before, 'nothing was changed');
  await overwrite(path, damage.position, good);
}

t.test('a second daemon on a data directory is refused, and the first goes on', async (t) => {
  const directory = await temporaryDirectory(t);
  const { weftd, url, ledger } = await filledVolume(t, directory);
  const before = await readFile(join(weftd.data, 'label.json'), 'utf8');
  const { exitCode, stderr } = await tryToStart(weftd.data);
  t.equal(exitCode, 75);
  t.match(stderr, /LOCKED: another weftd runs on .*: stop it, or give this one another --data/);
  t.equal(await readFile(join(weftd.data, 'label.json'), 'utf8'), before);
  t.equal((await ledger.random(url, { seconds: 0.5 })).outcome, 'done');
  t.equal((await ledger.verify(url)).outcome, 'done');
  await weftd.kill9();
  await weftd.startAgain();
  t.equal((await ledger.verify(url)).outcome, 'done', 'the lock went with the process that was killed');
});

t.test('damage is refused with what is wrong, and repaired data is served again', async (t) => {
  const directory = await temporaryDirectory(t);
  const { weftd, url, ledger } = await filledVolume(t, directory);
  await drained(weftd);
  t.equal((await ledger.fill(url, 0, 256)).outcome, 'done');
  // With flushes: what comes later in the journal vouches for what was before it. Not enough to start a drain.
  for (let round = 0; round < 3; round++) await ledger.random(url, { seconds: 0.2, count: 64, depth: 2 });
  await weftd.kill9();

  const all = /^(?!lock)/;
  const stored = /^(journal|segments)\//;
  await refusesUntilRestored(t, weftd, {
    file: 'label.json',
    position: 0,
    says: /label\.json/,
    untouched: all,
  });
  const oldest = (await readdir(join(weftd.data, 'journal'))).filter((name) => /^\d/.test(name)).sort()[0]!;
  const journal = join('journal', oldest);
  await refusesUntilRestored(t, weftd, {
    file: journal,
    position: 0,
    says: /CORRUPT: .*journal/,
    untouched: stored,
  });
  await refusesUntilRestored(t, weftd, {
    file: journal,
    position: 4096,
    says: /CORRUPT: .*journal.*offset 4096.*restore/,
    untouched: stored,
  });
  await refusesUntilRestored(t, weftd, {
    file: 'map.db',
    position: 0,
    says: /CORRUPT: .*map\.db/,
    untouched: stored,
  });
  await refusesUntilRestored(t, weftd, {
    file: 'control.db',
    position: 0,
    says: /CORRUPT: .*control\.db/,
    untouched: stored,
  });
  for (const file of ['label.json', 'control.db', 'map.db', 'segments']) {
    await rename(join(weftd.data, file), join(directory, file));
    const before = await fingerprints(weftd.data, stored);
    const { exitCode, stderr } = await tryToStart(weftd.data);
    t.equal(exitCode, 65, `without ${file}: ${stderr}`);
    t.match(stderr, new RegExp(`CORRUPT: .*${file.replace('.', '\\.')}`));
    t.same(await fingerprints(weftd.data, stored), before, 'nothing was changed');
    await rename(join(directory, file), join(weftd.data, file));
  }
  await weftd.startAgain();
  const { outcome, complaint } = await ledger.verify(url);
  t.equal(outcome, 'done', complaint);
});

t.test('a foreign directory and a newer format are refused', async (t) => {
  const directory = await temporaryDirectory(t);
  await writeFile(join(directory, 'holiday.jpg'), 'not of weftd');
  const foreign = await tryToStart(directory);
  t.equal(foreign.exitCode, 65);
  t.match(foreign.stderr, /CORRUPT: .* has no label\.json and is not empty \(holiday\.jpg\)/);

  const weftd = await startWeftd(t);
  await weftd.kill9();
  const label = join(weftd.data, 'label.json');
  const text = await readFile(label, 'utf8');
  await writeFile(label, text.replace('"version":1', '"version":99'));
  t.not(await readFile(label, 'utf8'), text);
  const newer = await tryToStart(weftd.data);
  t.equal(newer.exitCode, 65, newer.stderr);
  t.match(newer.stderr, /FORMAT_TOO_NEW/);
});

t.test('SIGTERM under load: it ends well within 15 s, and everything acknowledged is there', async (t) => {
  const directory = await temporaryDirectory(t);
  const { weftd, url, ledger } = await filledVolume(t, directory);
  const run = ledger.random(url, { seconds: 40, depth: 32 });
  const client = await weftd.client();
  const before = (await client.status()).journal.usedBytes;
  await eventually('the load is under way', 10_000, async () => {
    return (await client.status()).journal.usedBytes > before + 2 * MiB;
  });
  const startedMs = performance.now();
  t.equal(await weftd.shutDown(), true, 'exit code 0');
  const tookMs = performance.now() - startedMs;
  t.ok(tookMs < 15_000, `it took ${Math.round(tookMs)} ms`);
  const { outcome, sense, commands } = await run;
  t.ok(commands > 0);
  // Refused with NOT READY, BECOMING READY is what an initiator tries again.
  t.ok(outcome === 'lost' || (outcome === 'refused' && sense[0] === 2), `${outcome} ${sense}`);
  await weftd.startAgain();
  const check = await ledger.verify(url);
  t.equal(check.outcome, 'done', check.complaint);
});
