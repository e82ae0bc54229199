/** A group of volumes behind one target, as libiscsi sees it. */
import { execa } from 'execa';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { createVolume, startWeftd } from './volume-rig.ts';

const initiatorA = 'iqn.2026-11.test:a';
const initiatorB = 'iqn.2026-11.test:b';

/** `LUN: size` as iscsi-ls lists them. */
async function luns(portal: string, iqn: string, initiator: string): Promise<string[]> {
  const { stdout } = await execa('iscsi-ls', ['-s', '-i', initiator, `iscsi://${portal}/`]);
  const lines = stdout.split('\n');
  const from = lines.findIndex((line) => line.includes(iqn)) + 1;
  if (from === 0) return ['not shown'];
  const rest = lines.slice(from);
  const end = rest.findIndex((line) => line.startsWith('Target:'));
  const own = end < 0 ? rest : rest.slice(0, end);
  return own.flatMap((line) => /^Lun:(\d+) .*Size:(\w+)/.exec(line.trim())?.slice(1, 3).join(': ') ?? []);
}

t.test('four LUNs in one target; one that is claimed is there for its holder only', async (t) => {
  const weftd = await startWeftd(t);
  const client = await weftd.client();
  const sizes = [64, 65, 66, 67];
  for (const [lun, size] of sizes.entries()) {
    await createVolume(weftd, { name: `v${lun}`, sizeBytes: size * MiB, chap: 'none', group: 'four' });
  }
  const { iqn } = await client.volume('v0');
  const all = ['0: 63M', '1: 64M', '2: 65M', '3: 66M'];
  t.strictSame(await luns(weftd.portal, iqn, initiatorA), all);
  await client.claimVolume('v1', { holder: 'host-b', initiator: initiatorB, ttlSeconds: 60 });
  t.strictSame(
    await luns(weftd.portal, iqn, initiatorA),
    all.filter((line) => !line.startsWith('1')),
  );
  t.strictSame(await luns(weftd.portal, iqn, initiatorB), all);
  const refused = await execa('iscsi-inq', ['-i', initiatorA, `iscsi://${weftd.portal}/${iqn}/1`], {
    reject: false,
  });
  t.match(refused.stderr, /LOGICAL_UNIT_NOT_SUPPORTED/, 'as if it were not there');
  await client.removeVolume('v2', { purge: true });
  t.strictSame(await luns(weftd.portal, iqn, initiatorB), [all[0], all[1], all[3]]);
  for (const name of ['v0', 'v1', 'v3']) await client.removeVolume(name, { purge: true, force: true });
  t.strictSame(await luns(weftd.portal, iqn, initiatorB), ['not shown']);
});

t.test('data of the LUNs of a target stays apart, and outlives weftd', async (t) => {
  const weftd = await startWeftd(t);
  const urls: string[] = [];
  for (let lun = 0; lun < 4; lun += 1) {
    urls.push(await createVolume(weftd, { name: `v${lun}`, sizeBytes: 4 * MiB, group: 'four' }));
  }
  const io = (url: string, ...commands: string[]) =>
    execa('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), url]);
  for (const [lun, url] of urls.entries()) await io(url, `write -P ${lun + 1} 0 4M`, 'flush');
  await weftd.kill9();
  await weftd.startAgain();
  for (const [lun, url] of urls.entries()) {
    const { stdout } = await io(url, `read -P ${lun + 1} 0 4M`);
    t.notMatch(stdout, /verification failed/i);
    t.match(stdout, /read 4194304\/4194304/);
  }
});
