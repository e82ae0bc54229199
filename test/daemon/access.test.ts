/** Nobody gets to a volume who should not: the real daemon and real initiators. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { Initiator } from '../iscsi/initiator.ts';
import type { WeftdProcess } from '../system/weftd-process.ts';
import { filesWith, startAndFail } from './secret-files.ts';
import { startWeftd, temporaryDirectory } from './volume-rig.ts';

const chap = { user: 'host-a', secret: 'cHaP-sEcReT-in-clear' };
const mutualChap = { user: 'weft-target', secret: 'tArGeT-sEcReT-in-clear' };
const hostA = 'iqn.2026-11.test:host-a';
const smallJournal = ['--journal-capacity', '64m', '--journal-file-size', '16m'];

function inquire(
  weftd: WeftdProcess,
  iqn: string,
  options: { secret?: string; target?: string; initiator?: string },
) {
  const { secret = chap.secret, target = mutualChap.secret, initiator = hostA } = options;
  const query = `target_user=${mutualChap.user}&target_password=${target}`;
  const url = `iscsi://${chap.user}%${secret}@${weftd.portal}/${iqn}/0?${query}`;
  return execa('iscsi-inq', ['-i', initiator, url], { reject: false, timeout: 20_000 });
}

t.test('CHAP, its proof, the list and the trail of who was refused, over a restart', async (t) => {
  const weftd = await startWeftd(t, { flags: smallJournal });
  const client = await weftd.client();
  await client.createVolume({ name: 'db', sizeBytes: 8 * MiB, chap, mutualChap, allowedInitiators: [hostA] });
  const { iqn } = await client.attachment('db');
  const list = (initiator: string) => execa('iscsi-ls', ['-i', initiator, `iscsi://${weftd.portal}/`]);
  const check = async () => {
    t.match((await inquire(weftd, iqn, {})).stdout, /Vendor:WEFT/);
    t.equal((await inquire(weftd, iqn, { target: 'not-the-targets-secret' })).stdout, '');
    t.match((await inquire(weftd, iqn, { secret: 'not-the-right-secret' })).stderr, /Authentication failure/);
    t.match((await inquire(weftd, iqn, { initiator: `${hostA}b` })).stderr, /Target not found/);
    t.match((await list(hostA)).stdout, iqn);
    t.notMatch((await list(`${hostA}b`)).stdout, iqn);
  };
  await check();
  t.match(await client.status(), { logins: { failed: 2, throttled: 0 } });
  t.match(await client.failedLogins(), [
    { address: '127.0.0.1', initiator: `${hostA}b`, target: iqn, reason: /not on the list/ },
    { address: '127.0.0.1', initiator: hostA, target: iqn, reason: 'CHAP failed' },
  ]);
  const log = await weftd.log();
  t.match(
    log,
    /"initiator":"iqn.2026-11.test:host-a","target":"iqn\S+","status":"0201","reason":"CHAP failed"/,
  );
  for (const { secret } of [chap, mutualChap]) {
    t.strictSame(await filesWith(weftd, secret), [], 'while it runs');
    t.notOk(log.includes(secret));
  }
  await weftd.kill9();
  for (const { secret } of [chap, mutualChap]) t.strictSame(await filesWith(weftd, secret), [], 'and after');
  await weftd.startAgain();
  await check();
});

t.test(
  'a session whose secret is renewed ends before the answer, and a guess costs no other host',
  async (t) => {
    const weftd = await startWeftd(t, { flags: smallJournal });
    const client = await weftd.client();
    await client.createVolume({ name: 'db', sizeBytes: 8 * MiB, chap });
    const { iqn } = await client.attachment('db');
    const port = Number(weftd.portal.split(':')[1]);
    const log = async (name: string, secret: string) => {
      const initiator = await Initiator.connect(port);
      initiator.name = name;
      t.teardown(() => initiator.close());
      return { initiator, status: await initiator.login(iqn, { chap: { ...chap, secret } }) };
    };
    const held = await log(hostA, chap.secret);
    t.equal(held.status, 0);
    for (let n = 0; n < 12; n += 1) await log('iqn.2026-11.test:guesser', `guess-number-${n}-of-many`);
    t.equal((await log('iqn.2026-11.test:guesser', chap.secret)).status, 0x0301, 'the guesser waits');
    const other = await log('iqn.2026-11.test:host-b', chap.secret);
    t.equal(other.status, 0);
    t.equal((await client.volume('db')).sessions.length, 2);
    const renewed = 'a-new-secret-for-all';
    const { droppedSessions } = await client.updateVolume('db', { chap: { ...chap, secret: renewed } });
    t.equal(droppedSessions, 2);
    t.strictSame((await client.volume('db')).sessions, []);
    await held.initiator.drain();
    t.ok(held.initiator.isClosed, 'the connection is closed, after a word of farewell');
    t.equal((await log(hostA, chap.secret)).status, 0x0201);
    t.equal((await log(hostA, renewed)).status, 0);
  },
);

t.test('discovery asks for what its file says', async (t) => {
  const elsewhere = await temporaryDirectory(t);
  const file = join(elsewhere, 'discovery');
  await writeFile(file, 'operator discovery-secret-1\n', { mode: 0o600 });
  const weftd = await startWeftd(t, { flags: [...smallJournal, '--iscsi-discovery-chap', file] });
  await (await weftd.client()).createVolume({ name: 'db', sizeBytes: 8 * MiB, chap });
  const list = (who: string) => execa('iscsi-ls', [`iscsi://${who}${weftd.portal}/`], { reject: false });
  t.match((await list('operator%discovery-secret-1@')).stdout, /Target:iqn/);
  t.notMatch((await list('')).stdout, /Target:/);
  t.notMatch((await list('operator%discovery-secret-2@')).stdout, /Target:/);
  await writeFile(file, 'operator short\n');
  t.match(await startAndFail(weftd), /CONFIG_INVALID: iscsi\.discoveryChap: .*12 to 255/);
});
