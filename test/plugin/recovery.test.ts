import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { loopsOver } from '../../plugin/loop-device.ts';
import { readMounts, topMount } from '../../plugin/mount-table.ts';
import { runTool } from '../../plugin/run-tool.ts';
import { eventually, PluginFixture, pluginFor } from './plugin-fixture.ts';

/** Like a Docker container: a process with a mount namespace of its own, in which the volume is bind-mounted. */
async function container(test: { teardown(end: () => Promise<void>): void }, path: string) {
  const script = 'mount --bind "$0" /mnt && echo up && exec sleep 600';
  const args = ['--mount', '--propagation', 'private', 'sh', '-c', script, path];
  const child = spawn('unshare', args, { stdio: ['ignore', 'pipe', 'ignore'] });
  await once(child.stdout, 'data');
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  test.teardown(stop);
  return { stop };
}

async function mounted(plugin: PluginFixture, id: string): Promise<string> {
  const { Mountpoint } = await plugin.docker.must('Mount', { Name: 'db', ID: id });
  const mount = topMount(await readMounts(), dirname(Mountpoint));
  const [loop] = await loopsOver(`${plugin.fabric.get('db').id}.lun`);
  t.equal(mount?.source, loop?.path, 'the path is on the volume');
  return Mountpoint;
}

t.test('a plugin killed under a running Docker container goes on with its counts', async (t) => {
  const plugin = await pluginFor(t);
  const { docker } = plugin;
  await docker.must('Create', { Name: 'db', Opts: { size: '16m' } });
  const path = await mounted(plugin, 'c1');
  writeFileSync(join(path, 'row'), 'committed');
  const running = await container(t, path);
  await plugin.kill();
  await plugin.start();
  t.equal(
    (await docker.must('Get', { Name: 'db' })).Volume.Mountpoint,
    path,
    'a good mount is left as it is',
  );
  // docker cp: the last count of this process goes, the Docker container stays.
  await mounted(plugin, 'c1');
  await docker.must('Unmount', { Name: 'db', ID: 'c1' });
  const still = (await docker.must('Path', { Name: 'db' })).Mountpoint;
  t.equal(readFileSync(join(still, 'row'), 'utf8'), 'committed', 'it is mounted for the next one');
  t.match((await docker.call('Remove', { Name: 'db' })).Err, /in use on host-1/);
  await running.stop();
  await docker.must('Unmount', { Name: 'db', ID: 'c1' });
  t.same(await plugin.left(), []);
  await docker.must('Remove', { Name: 'db' });
});

t.test('counts that dockerd forgot when it was killed too do not keep a volume mounted', async (t) => {
  const plugin = await pluginFor(t);
  const { docker, fabric } = plugin;
  await docker.must('Create', { Name: 'db', Opts: { size: '16m' } });
  await mounted(plugin, 'c1');
  await mounted(plugin, 'c2');
  await plugin.kill();
  await plugin.start();
  // The Docker container with a restart policy comes back under its old id; the other one is gone.
  await mounted(plugin, 'c1');
  await docker.must('Unmount', { Name: 'db', ID: 'c1' });
  t.same(await plugin.left(), []);
  t.equal(fabric.get('db').claim, null);
});

t.test('a mount taken away from under the plugin is never answered with an empty directory', async (t) => {
  const plugin = await pluginFor(t);
  const { docker } = plugin;
  await docker.must('Create', { Name: 'db', Opts: { size: '16m' } });
  const first = await mounted(plugin, 'c1');
  writeFileSync(join(first, 'row'), 'committed');
  // What dockerd does when it stops.
  await runTool('umount', ['--lazy', dirname(first)]);
  t.throws(
    () => readdirSync(first),
    { code: 'ENOENT' },
    'no directory is left that a database could start on',
  );
  const second = await mounted(plugin, 'c2');
  t.equal(readFileSync(join(second, 'row'), 'utf8'), 'committed');

  await plugin.kill();
  await runTool('umount', ['--lazy', dirname(second)]);
  await plugin.start();
  const third = await mounted(plugin, 'c2');
  t.equal(readFileSync(join(third, 'row'), 'utf8'), 'committed');
  await docker.must('Unmount', { Name: 'db', ID: 'c2' });
  t.same(await plugin.left(), []);
});

t.test('stacked mounts left behind are taken away, and the path is on the volume', async (t) => {
  const plugin = await pluginFor(t);
  const { docker } = plugin;
  await docker.must('Create', { Name: 'db', Opts: { size: '16m' } });
  const first = await mounted(plugin, 'c1');
  writeFileSync(join(first, 'row'), 'committed');
  const running = await container(t, first);
  await plugin.kill();
  await runTool('mount', ['-t', 'tmpfs', 'none', dirname(first)]);
  await plugin.start();
  const second = await mounted(plugin, 'c2');
  t.equal(readFileSync(join(second, 'row'), 'utf8'), 'committed');
  const mounts = (await readMounts()).filter((mount) => mount.path.startsWith(plugin.mountDirectory));
  t.equal(mounts.length, 1);
  await running.stop();
  await docker.must('Unmount', { Name: 'db', ID: 'c2' });
  await docker.must('Unmount', { Name: 'db', ID: 'c1' });
  t.same(await plugin.left(), []);
});

t.test('damaged records are put aside: the volume is taken down, and used anew', async (t) => {
  const plugin = await pluginFor(t);
  const { docker } = plugin;
  await docker.must('Create', { Name: 'db', Opts: { size: '16m' } });
  const first = await mounted(plugin, 'c1');
  writeFileSync(join(first, 'row'), 'committed');
  await plugin.kill();
  const records = join(plugin.directory, 'state/volumes');
  writeFileSync(join(records, 'db.json'), readFileSync(join(records, 'db.json'), 'utf8').replace('c1', 'c9'));
  await plugin.start();
  t.match(readdirSync(records).join(), /db\.json\.damaged-/);
  const second = await mounted(plugin, 'c2');
  t.equal(readFileSync(join(second, 'row'), 'utf8'), 'committed');
  await docker.must('Unmount', { Name: 'db', ID: 'c2' });
  await docker.must('Remove', { Name: 'db' });
  await eventually('nothing is left', async () => (await plugin.left()).length === 0);
});

t.test('SIGTERM ends the plugin and leaves what is mounted to those who use it', async (t) => {
  const plugin = await pluginFor(t);
  const { docker } = plugin;
  await docker.must('Create', { Name: 'db', Opts: { size: '16m' } });
  const path = await mounted(plugin, 'c1');
  await plugin.kill('SIGTERM');
  writeFileSync(join(path, 'row'), 'still here');
  await plugin.start();
  t.equal((await docker.must('Path', { Name: 'db' })).Mountpoint, path);
  await docker.must('Unmount', { Name: 'db', ID: 'c1' });
  t.same(await plugin.left(), []);
});

t.test('where Docker gives a mount of its own, one that the host does not see is refused', async (t) => {
  const plugin = await PluginFixture.make();
  t.teardown(() => plugin.end());
  const { docker, mountDirectory } = plugin;
  mkdirSync(mountDirectory);
  await runTool('mount', ['--bind', mountDirectory, mountDirectory]);
  await runTool('mount', ['--make-private', mountDirectory]);
  await plugin.start();
  await docker.must('Create', { Name: 'db', Opts: { size: '16m' } });
  t.match((await docker.call('Mount', { Name: 'db', ID: 'c1' })).Err, /not seen by the host.*rshared/);
  await runTool('mount', ['--make-rshared', mountDirectory]);
  await docker.must('Mount', { Name: 'db', ID: 'c1' });
  await docker.must('Unmount', { Name: 'db', ID: 'c1' });
  t.same(await plugin.left(), [`mount ${mountDirectory}`]);
});
