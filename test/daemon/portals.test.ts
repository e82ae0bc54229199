/** One weftd at two addresses: two target ports of every volume, and two paths for who uses both. */
import { execa } from 'execa';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { freePort, WeftdProcess } from '../system/weftd-process.ts';

t.test('two portals: told everywhere, each with its tag, and used as paths to one volume', async (t) => {
  const portals = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`] as const;
  const weftd = await WeftdProcess.start({ iscsi: portals.join(',') });
  t.teardown(() => weftd.stop());
  const client = await weftd.client();
  await client.createVolume({ name: 'v', sizeBytes: 64 * MiB, chap: 'none' });
  const attachment = await client.attachment('v');
  const { iqn, lun } = attachment;
  t.same(attachment.portals, portals);

  const list = await execa('iscsi-ls', [`iscsi://${portals[1]}/`]);
  t.match(list.stdout, `Target:${iqn} Portal:${portals[0]},1`);
  t.match(list.stdout, `Target:${iqn} Portal:${portals[1]},2`);

  // Relative target port identifiers, VPD page 83h, as the port that is asked tells its own.
  const urls = portals.map((portal) => `iscsi://${portal}/${iqn}/${lun}`);
  for (const [index, url] of urls.entries()) {
    const page = await execa('iscsi-inq', ['-e', '1', '-c', '131', url]);
    t.match(page.stdout, /RELATIVE_TARGET_PORT/i, `portal ${index + 1}`);
  }

  const paths = await execa('iscsi-test-cu', ['-d', '-n', '-V', '-t', 'ALL.MultipathIO.*', ...urls], {
    all: true,
    reject: false,
    timeout: 120_000,
  });
  t.match(paths.all, /tests\s+4\s+4\s+4\s+0/, 'all four of libiscsi pass');
  t.notMatch(paths.all, /SKIPPED/);
});
