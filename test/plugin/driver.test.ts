import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { eventually, pluginFor } from './plugin-fixture.ts';

t.test(
  'a volume is created, mounted, written, unmounted, mounted again with its data, and removed',
  async (t) => {
    const plugin = await pluginFor(t);
    const { docker } = plugin;
    await docker.must('Create', { Name: 'db', Opts: { size: '64m', uid: '70', gid: '71', mode: '1750' } });
    const { Mountpoint } = await docker.must('Mount', { Name: 'db', ID: 'a' });
    const root = statSync(Mountpoint);
    t.same([root.uid, root.gid, (root.mode & 0o7777).toString(8)], [70, 71, '1750']);
    t.same(
      readdirSync(Mountpoint),
      [],
      'nothing is seen in a new volume, no lost+found either: copy-up works',
    );
    writeFileSync(join(Mountpoint, 'row'), 'committed');
    const { Volume } = await docker.must('Get', { Name: 'db' });
    t.equal(Volume.Mountpoint, Mountpoint);
    t.match(Volume.Status, {
      size: '64 MiB',
      container: 'default',
      filesystem: 'ext4',
      node: 'fabric-node',
      mountedOn: 'host-1',
      mounts: 1,
    });
    t.ok(Volume.Status.usedBytes > 0);
    t.equal((await docker.must('Path', { Name: 'db' })).Mountpoint, Mountpoint);
    t.match((await docker.call('Remove', { Name: 'db' })).Err, /in use on host-1 by 1 mount.*: a/);
    await docker.must('Unmount', { Name: 'db', ID: 'a' });
    t.same(await plugin.left(), []);
    t.equal(plugin.fabric.get('db').claim, null, 'other hosts may have it');
    t.equal((await docker.must('Path', { Name: 'db' })).Mountpoint, '');

    const again = await docker.must('Mount', { Name: 'db', ID: 'b' });
    t.not(again.Mountpoint, Mountpoint, 'no mountpoint is used twice');
    t.equal(readFileSync(join(again.Mountpoint, 'row'), 'utf8'), 'committed');
    await docker.must('Unmount', { Name: 'db', ID: 'b' });
    await docker.must('Remove', { Name: 'db' });
    t.match((await docker.call('Get', { Name: 'db' })).Err, /no volume db.*NOT_FOUND/);
    t.same((await docker.must('List')).Volumes, []);
    t.same(await plugin.left(), []);
  },
);

t.test('docker cp, which sends an id twice, does not take away a mount in use', async (t) => {
  const plugin = await pluginFor(t);
  const { docker } = plugin;
  await docker.must('Create', { Name: 'db', Opts: { size: '32m' } });
  const { Mountpoint } = await docker.must('Mount', { Name: 'db', ID: 'c1' });
  t.equal((await docker.must('Mount', { Name: 'db', ID: 'c1' })).Mountpoint, Mountpoint);
  await docker.must('Unmount', { Name: 'db', ID: 'c1' });
  writeFileSync(join(Mountpoint, 'still'), 'here');
  await docker.must('Unmount', { Name: 'db', ID: 'unknown' });
  writeFileSync(join(Mountpoint, 'still'), 'here');
  await docker.must('Unmount', { Name: 'db', ID: 'c1' });
  t.same(await plugin.left(), []);
  await docker.must('Unmount', { Name: 'db', ID: 'c1' });
  await docker.must('Unmount', { Name: 'nothing', ID: 'c1' });
});

t.test('Get, List and Path of known volumes answer while the fabric is away or hangs', async (t) => {
  const plugin = await pluginFor(t);
  const { docker, fabric } = plugin;
  await docker.must('Create', { Name: 'db', Opts: { size: '32m' } });
  await docker.must('Create', { Name: 'idle', Opts: { size: '32m' } });
  const { Mountpoint } = await docker.must('Mount', { Name: 'db', ID: 'a' });
  fabric.hangs = true;
  t.equal((await docker.must('Get', { Name: 'db' })).Volume.Mountpoint, Mountpoint);
  fabric.hangs = false;
  await fabric.stop();
  for (const restart of [false, true]) {
    if (restart) {
      await plugin.kill();
      await plugin.start();
    }
    t.equal((await docker.must('Get', { Name: 'db' })).Volume.Mountpoint, Mountpoint);
    t.equal((await docker.must('Get', { Name: 'idle' })).Volume.Name, 'idle');
    t.same((await docker.must('List')).Volumes, [
      { Name: 'db', Mountpoint },
      { Name: 'idle', Mountpoint: '' },
    ]);
    t.equal((await docker.must('Path', { Name: 'db' })).Mountpoint, Mountpoint);
    t.match((await docker.call('Get', { Name: 'never-heard-of' })).Err, /cannot reach weftd.*UNAVAILABLE/);
    t.match((await docker.call('Create', { Name: 'new' })).Err, /UNAVAILABLE/);
  }
  await docker.must('Unmount', { Name: 'db', ID: 'a' });
  t.same(await plugin.left(), [], 'a fabric that is away does not keep a volume mounted');
  await fabric.start();
  await eventually(
    'the fabric is heard again',
    async () => (await docker.call('Remove', { Name: 'db' })).Err === '',
  );
});
