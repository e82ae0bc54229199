import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { pluginFor } from './plugin-fixture.ts';

t.test(
  'a volume another host has is refused with its name, and cut off here when it took it over',
  async (t) => {
    const plugin = await pluginFor(t);
    const { docker, fabric } = plugin;
    await docker.must('Create', { Name: 'db', Opts: { size: '32m' } });
    fabric.get('db').claim = { holder: 'host-2', initiator: 'iqn.x', epoch: 9, expiresAt: '' };
    t.match((await docker.call('Mount', { Name: 'db', ID: 'a' })).Err, /claimed by host-2.*IN_USE/);
    t.match((await docker.call('Remove', { Name: 'db' })).Err, /claimed by host-2.*IN_USE/);
    t.same(await plugin.left(), []);
    fabric.get('db').claim = null;
    const { Mountpoint } = await docker.must('Mount', { Name: 'db', ID: 'a' });
    await plugin.kill();
    // The Docker container on it runs on.
    const held = await open(join(Mountpoint, 'held'), 'w');
    fabric.passThroughOtherHost('db');
    await plugin.start();
    t.match((await docker.call('Mount', { Name: 'db', ID: 'b' })).Err, /another host meanwhile.*FENCED/);
    t.equal(fabric.get('db').claim, null);
    await held.close();
    const again = await docker.must('Mount', { Name: 'db', ID: 'b' });
    t.ok((await stat(again.Mountpoint)).isDirectory());
    await docker.must('Unmount', { Name: 'db', ID: 'b' });
    t.same(await plugin.left(), []);
  },
);
