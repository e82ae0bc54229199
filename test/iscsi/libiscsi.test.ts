/** The initiators people use, on libiscsi, against the target with its real device server: discovery, CHAP, qemu-img. */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { DeviceServer } from '../../daemon/scsi/device-server.ts';
import { LogicalUnit } from '../../daemon/scsi/logical-unit.ts';
import { MemoryDevice as MemoryVolume } from '../scsi/memory-device.ts';
import { iqn, openPortal, until } from './fixture.ts';

const chap = { user: 'weft-volume-1', secret: 'a-secret-of-16-bytes' };

function volume() {
  const device = new MemoryVolume({ sizeBytes: 64 * MiB });
  const identity = { uuid: '6b0c8b6e-8a3e-4b8e-9c43-0d6a5d0a7c11' };
  return new DeviceServer({ units: new Map([[0, new LogicalUnit({ device, identity })]]) });
}

t.test('iscsi-ls finds the target and its LUN, iscsi-inq asks who it is', async (t) => {
  const { portal, port } = await openPortal(t, { device: volume() });
  const list = await execa('iscsi-ls', [`iscsi://127.0.0.1:${port}/`]);
  t.match(list.stdout, new RegExp(`Target:${iqn} Portal:127.0.0.1:${port},1`));
  const inquiry = await execa('iscsi-inq', [`iscsi://127.0.0.1:${port}/${iqn}/0`]);
  t.match(inquiry.stdout, /Vendor:WEFT/);
  await until(() => portal.connectionCount === 0, 'the initiators to be gone');
});

t.test('iscsi-ls is told of every portal with its tag, and each takes logins', async (t) => {
  const { portal } = await openPortal(t, { device: volume() }, { told: 'all' }, 2);
  const [first, second] = portal.listensAt.map(({ port }) => port);
  for (const port of [first, second]) {
    const list = await execa('iscsi-ls', [`iscsi://127.0.0.1:${port}/`]);
    t.match(list.stdout, `Target:${iqn} Portal:127.0.0.1:${first},1`);
    t.match(list.stdout, `Target:${iqn} Portal:127.0.0.1:${second},2`);
    const inquiry = await execa('iscsi-inq', [`iscsi://127.0.0.1:${port}/${iqn}/0`]);
    t.match(inquiry.stdout, /Vendor:WEFT/);
  }
});

t.test('libiscsi takes the proof of a target (mutual CHAP), and no wrong one', async (t) => {
  const mutualChap = { user: 'weft-target-1', secret: 'the-target-s-own-secret' };
  const { port } = await openPortal(t, { device: volume(), chap, mutualChap });
  const inquire = (target: string) =>
    execa('iscsi-inq', [`iscsi://${chap.user}%${chap.secret}@127.0.0.1:${port}/${iqn}/0?${target}`], {
      reject: false,
    });
  const good = await inquire(`target_user=${mutualChap.user}&target_password=${mutualChap.secret}`);
  t.match(good.stdout, /Vendor:WEFT/, good.stderr);
  const wrong = await inquire(`target_user=${mutualChap.user}&target_password=not-the-targets-secret`);
  t.not(wrong.exitCode, 0);
  t.equal(wrong.stdout, '', 'the initiator does not talk to a target that cannot prove itself');
  t.match((await inquire('')).stdout, /Vendor:WEFT/, 'who does not ask gets no proof');
});

t.test('a stranger does not see in iscsi-ls what it may not use, and is refused there', async (t) => {
  const listed = 'iqn.2026-11.test:listed';
  const target = { iqn, device: volume(), chap: null, lists: (name: string) => name === listed };
  const entry = { ...target, admit: (name: string) => (name === listed ? null : 'not on the list') };
  const directory = {
    find: (name: string) => (name === iqn ? entry : null),
    list: (name: string) => (entry.lists(name) ? [{ iqn, portals: [] }] : []),
  };
  const { port } = await openPortal(t, {}, { directory });
  const run = (tool: string, initiator: string, path: string) =>
    execa(tool, ['-i', initiator, `iscsi://127.0.0.1:${port}/${path}`], { reject: false });
  t.match((await run('iscsi-ls', listed, '')).stdout, iqn);
  t.notMatch((await run('iscsi-ls', 'iqn.2026-11.test:stranger', '')).stdout, /Target:/);
  t.match((await run('iscsi-inq', listed, `${iqn}/0`)).stdout, /Vendor:WEFT/);
  const refused = await run('iscsi-inq', 'iqn.2026-11.test:stranger', `${iqn}/0`);
  t.not(refused.exitCode, 0);
  t.match(refused.stderr, /Target not found/i);
});

t.test('qemu-img writes an image through CHAP and reads it back identical', async (t) => {
  const { portal, port } = await openPortal(t, { device: volume(), chap });
  const directory = t.testdir();
  const image = join(directory, 'image.raw');
  const copy = join(directory, 'copy.raw');
  // Random, empty and repetitive stretches.
  const parts = Array.from({ length: 32 }, (_, n) =>
    n % 3 === 0 ? randomBytes(2 * MiB) : Buffer.alloc(2 * MiB, n % 3 === 1 ? 0 : `part ${n} `),
  );
  await writeFile(image, Buffer.concat(parts));
  const url = `iscsi://${chap.user}%${chap.secret}@127.0.0.1:${port}/${iqn}/0`;
  const raw = ['-f', 'raw', '-O', 'raw'];
  await execa('qemu-img', ['convert', '-n', ...raw, image, url]);
  await execa('qemu-img', ['convert', ...raw, url, copy]);
  t.ok((await readFile(copy)).equals(await readFile(image)));
  t.equal(portal.transferMemoryBytes, 0);
  const wrong = url.replace(chap.secret, 'not-the-secret-at-all');
  const refused = await execa('iscsi-inq', [wrong], { reject: false });
  t.not(refused.exitCode, 0);
  t.match(refused.stderr, /Authentication failure/);
});
