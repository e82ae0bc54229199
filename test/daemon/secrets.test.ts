/** Secrets are on disk only sealed, and the file with their key is asked for. */
import { randomBytes } from 'node:crypto';
import { chmod, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { filesWith, startAndFail } from './secret-files.ts';
import { startWeftd, temporaryDirectory } from './volume-rig.ts';

const chap = { user: 'host-a', secret: 'cHaP-sEcReT-in-clear' };
const smallJournal = ['--journal-capacity', '64m', '--journal-file-size', '16m'];

t.test('without the right key file weftd does not start, and says what to do', async (t) => {
  const elsewhere = await temporaryDirectory(t);
  const weftd = await startWeftd(t, { flags: smallJournal });
  const client = await weftd.client();
  await client.createVolume({ name: 'db', sizeBytes: 8 * MiB, chap });
  const keyFile = join(weftd.data, 'secrets.key');
  t.equal((await stat(keyFile)).mode & 0o777, 0o600);
  await chmod(keyFile, 0o644);
  t.match(await startAndFail(weftd), /CONFIG_INVALID: .*secrets\.key may be read .* by others .*chmod 600/);
  await chmod(keyFile, 0o600);
  const right = join(elsewhere, 'right.key');
  await rename(keyFile, right);
  t.match(
    await startAndFail(weftd),
    /CONFIG_INVALID: there is no key file .*--secrets-key-file.*--secrets-lost renew/,
  );
  t.notOk((await readdir(weftd.data)).includes('secrets.key'), 'none is made in its place');
  const wrong = `weft-secret-keys 1\n${randomBytes(32).toString('hex')}\n`;
  await writeFile(keyFile, wrong, { mode: 0o600 });
  t.match(await startAndFail(weftd), /CONFIG_INVALID: .*secrets\.key has not the key .*1 volumes \(db\)/);
  await writeFile(keyFile, (await readFile(right, 'utf8')).replace(/.$/m, 'x'));
  t.match(await startAndFail(weftd), /CORRUPT: .*secrets\.key is no key file/);

  // In front: what was sealed is sealed anew, and the old key is needed no more.
  const both = wrong + (await readFile(right, 'utf8')).split('\n')[1];
  await writeFile(keyFile, both);
  await weftd.startAgain();
  t.match(await client.attachment('db'), { chap });
  await weftd.shutDown();
  await writeFile(keyFile, wrong);
  await weftd.startAgain();
  t.match(await client.attachment('db'), { chap });
});

t.test('a key that is lost costs the secrets and nothing else', async (t) => {
  const elsewhere = await temporaryDirectory(t);
  const keyFile = join(elsewhere, 'weft.key');
  const weftd = await startWeftd(t, {
    flags: [...smallJournal, '--secrets-key-file', keyFile, '--secrets-lost', 'renew'],
  });
  const client = await weftd.client();
  await client.createVolume({ name: 'db', sizeBytes: 8 * MiB, chap });
  t.notOk((await readdir(weftd.data)).includes('secrets.key'), 'a copy of the data is no copy of the key');
  await weftd.shutDown();
  await rm(keyFile);
  await weftd.startAgain();
  const renewed = (await client.attachment('db')).chap;
  t.equal(renewed?.user, chap.user);
  t.not(renewed?.secret, chap.secret);
  t.match(await weftd.log(), /secrets were lost and are new/);
});

t.test(
  'secrets that an older version left in the clear are gone from every file after a start',
  async (t) => {
    const weftd = await startWeftd(t, { flags: smallJournal });
    const client = await weftd.client();
    const { id } = await client.createVolume({ name: 'db', sizeBytes: 8 * MiB, chap: 'none' });
    await weftd.shutDown();
    const database = new Database(join(weftd.data, 'control.db'));
    database.pragma('secure_delete = OFF');
    const read = database.prepare('SELECT json FROM documents WHERE key = ?').pluck();
    const write = database.prepare('UPDATE documents SET json = ? WHERE key = ?');
    const {
      mutualChap: _,
      allowedInitiators: __,
      ...record
    } = JSON.parse(read.get(`volume/${id}`) as string);
    // Written several times, at several lengths: old copies stay in pages that were given up.
    for (let length = 0; length < 60_000; length += 7_000) {
      const labels = { filler: 'x'.repeat(length) };
      write.run(JSON.stringify({ ...record, schemaVersion: 1, labels, chap }), `volume/${id}`);
    }
    write.run(JSON.stringify({ ...record, schemaVersion: 1, chap }), `volume/${id}`);
    database.prepare("DELETE FROM documents WHERE key = 'secrets/purged'").run();
    database.close();
    t.strictSame(await filesWith(weftd, chap.secret), ['control.db'], 'the test can fail');
    await weftd.startAgain();
    t.strictSame(await filesWith(weftd, chap.secret), []);
    t.match(await client.attachment('db'), { chap });
    t.match(await weftd.log(), /CHAP secrets were sealed that were in the clear/);
  },
);
