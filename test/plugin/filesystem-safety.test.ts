import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { readMounts } from '../../plugin/mount-table.ts';
import { runTool } from '../../plugin/run-tool.ts';
import { pluginFor } from './plugin-fixture.ts';

t.test('what is on a device is never formatted over', async (t) => {
  const plugin = await pluginFor(t);
  const { docker, fabric } = plugin;
  const writeAt = async (name: string, position: number) => {
    const file = await open(fabric.file(fabric.get(name)), 'r+');
    await file.write(Buffer.from('precious'), 0, 8, position);
    await file.close();
  };
  const refused = async (name: string, code: string) => {
    const before = readFileSync(fabric.file(fabric.get(name)));
    t.match((await docker.call('Mount', { Name: name, ID: 'a' })).Err, new RegExp(`\\[${code}\\]$`), name);
    t.ok(before.equals(readFileSync(fabric.file(fabric.get(name)))), `${name}: not a byte of it has changed`);
    t.same(await plugin.left(), []);
    t.equal(fabric.get(name).claim, null);
  };
  for (const [name, position] of [
    ['first', 4096],
    ['last', 32 * MiB - 8],
    ['middle', 16 * MiB],
  ] as const) {
    await docker.must('Create', { Name: name, Opts: { size: '32m' } });
    await writeAt(name, position);
    await refused(name, 'NOT_BLANK');
  }
  await docker.must('Create', { Name: 'swap', Opts: { size: '32m' } });
  await runTool('mkswap', [fabric.file(fabric.get('swap'))]);
  await refused('swap', 'NOT_BLANK');
  await docker.must('Create', { Name: 'ready', Opts: { size: '32m' } });
  const uuid = 'a0e81a5c-8de7-4c5b-9d0a-1f2e3d4c5b6a';
  fabric.get('ready').filesystem = { type: 'ext4', uuid, state: 'ready' };
  await refused('ready', 'CORRUPT');
  await docker.must('Create', { Name: 'making', Opts: { size: '32m' } });
  fabric.get('making').filesystem = { type: 'ext4', uuid, state: 'making' };
  await runTool('mkswap', [fabric.file(fabric.get('making'))]);
  await refused('making', 'NOT_BLANK');

  await docker.must('Create', { Name: 'half', Opts: { size: '32m' } });
  fabric.get('half').filesystem = { type: 'ext4', uuid, state: 'making' };
  await writeAt('half', 4096);
  const { Mountpoint } = await docker.must('Mount', { Name: 'half', ID: 'a' });
  t.same(readdirSync(Mountpoint), [], 'a half-made filesystem is made again');
  t.match(fabric.get('half').filesystem, { uuid, state: 'ready' });
  await docker.must('Unmount', { Name: 'half', ID: 'a' });
});

for (const [fs, size] of [
  ['xfs', 320],
  ['ext4', 64],
] as const) {
  t.test(`${fs} is made, mounted, grown with its volume and keeps its data`, async (t) => {
    const plugin = await pluginFor(t);
    const { docker, fabric } = plugin;
    await docker.must('Create', { Name: 'big', Opts: { size: `${size}m`, fs } });
    const first = await docker.must('Mount', { Name: 'big', ID: 'a' });
    writeFileSync(join(first.Mountpoint, 'row'), 'committed');
    await docker.must('Unmount', { Name: 'big', ID: 'a' });
    const volume = fabric.get('big');
    volume.sizeBytes = 2 * size * MiB;
    truncateSync(fabric.file(volume), volume.sizeBytes);
    const second = await docker.must('Mount', { Name: 'big', ID: 'a' });
    t.equal(readFileSync(join(second.Mountpoint, 'row'), 'utf8'), 'committed');
    const mount = (await readMounts()).find(({ path }) => path === dirname(second.Mountpoint));
    t.equal(mount?.fsType, fs);
    const { stdout } = await runTool('df', ['--output=size', '-B1', second.Mountpoint]);
    t.ok(Number(stdout.split('\n')[1]) > 1.5 * size * MiB, stdout);
    await docker.must('Unmount', { Name: 'big', ID: 'a' });
    const check = fs === 'xfs' ? ['xfs_repair', '-n'] : ['e2fsck', '-fn'];
    await runTool(check[0]!, [check[1]!, fabric.file(volume)]);
  });
}
