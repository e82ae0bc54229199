import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { post } from './fake-dockerd.ts';
import { PluginFixture, pluginFor } from './plugin-fixture.ts';

t.test('Create is idempotent with the same options, and names what differs with others', async (t) => {
  const plugin = await pluginFor(t, { WEFT_DEFAULTS: 'size=48m,uid=5', WEFT_OVERRIDES: 'mode=0700' });
  const { docker, fabric } = plugin;
  await docker.must('Create', { Name: 'db', Opts: { sizeMb: '64', fs: 'ext4' } });
  await docker.must('Create', { Name: 'db', Opts: { size: '64m' } });
  await docker.must('Create', { Name: 'db', Opts: null });
  t.match(fabric.get('db').labels, { 'weft.uid': '5', 'weft.mode': '0700' });
  t.match(
    (await docker.call('Create', { Name: 'db', Opts: { size: '65m', uid: '6' } })).Err,
    /size is 64 MiB, not 65 MiB; uid is 5, not 6.*CONFLICT/,
  );
  fabric.get('db').sizeBytes = 128 * MiB;
  await docker.must('Create', { Name: 'db', Opts: { size: '64m' } });
  await docker.must('Create', { Name: 'other' });
  t.equal(fabric.get('other').sizeBytes, 48 * MiB);
  await fabric.add('foreign', 32 * MiB, { createdBy: 'somebody' });
  t.match((await docker.call('Create', { Name: 'foreign' })).Err, /taken.*somebody else.*ALREADY_EXISTS/);
  t.match((await docker.call('Create', { Name: 'x', Opts: { container: 'missing' } })).Err, /NOT_FOUND/);
  const help = (await docker.call('Create', { Name: 'x', Opts: { help: '' } })).Err;
  for (const option of ['size', 'sizeMb', 'container', 'fs', 'durability', 'uid', 'gid', 'mode']) {
    t.match(help, `-o ${option}=`);
  }
  t.match(help, /-o mode=.*always 0700 on this host/);
  t.match(help, /-o size=.*default: 48m/);
  t.equal(fabric.volumes.size, 3);
});

t.test('wrong requests get their error and change nothing', async (t) => {
  const plugin = await pluginFor(t);
  const { docker, fabric, socketPath } = plugin;
  await docker.must('Create', { Name: 'db', Opts: { size: '32m' } });
  const before = JSON.stringify([...fabric.volumes]);
  const create = '/VolumeDriver.Create';
  const opts = (Opts: unknown) => JSON.stringify({ Name: 'x', Opts });
  const name = (Name: unknown) => JSON.stringify({ Name });
  const wrong: [string, string, string][] = [
    [create, '', 'INVALID_ARGUMENT'],
    ['/VolumeDriver.Mount', '', 'INVALID_ARGUMENT'],
    ['/VolumeDriver.Unmount', '', 'INVALID_ARGUMENT'],
    ['/VolumeDriver.Remove', '', 'INVALID_ARGUMENT'],
    ['/VolumeDriver.Get', '', 'INVALID_ARGUMENT'],
    [create, '{"Name":', 'INVALID_ARGUMENT'],
    [create, 'null', 'INVALID_ARGUMENT'],
    [create, '[]', 'INVALID_ARGUMENT'],
    [create, '"db"', 'INVALID_ARGUMENT'],
    [create, '{}', 'INVALID_ARGUMENT'],
    [create, name(7), 'INVALID_ARGUMENT'],
    [create, name(''), 'INVALID_ARGUMENT'],
    [create, name('../../etc'), 'INVALID_ARGUMENT'],
    [create, name('a/b'), 'INVALID_ARGUMENT'],
    [create, name('..'), 'INVALID_ARGUMENT'],
    [create, name('-rf'), 'INVALID_ARGUMENT'],
    [create, name('a\0b'), 'INVALID_ARGUMENT'],
    [create, name('a\nb'), 'INVALID_ARGUMENT'],
    [create, name('x'.repeat(129)), 'INVALID_ARGUMENT'],
    ['/VolumeDriver.Remove', name('../db'), 'INVALID_ARGUMENT'],
    ['/VolumeDriver.Mount', JSON.stringify({ Name: '../db', ID: 'a' }), 'INVALID_ARGUMENT'],
    ['/VolumeDriver.Mount', JSON.stringify({ Name: 'db' }), 'INVALID_ARGUMENT'],
    ['/VolumeDriver.Mount', JSON.stringify({ Name: 'db', ID: 3 }), 'INVALID_ARGUMENT'],
    ['/VolumeDriver.Mount', JSON.stringify({ Name: 'missing', ID: 'a' }), 'NOT_FOUND'],
    ['/VolumeDriver.Get', name('missing'), 'NOT_FOUND'],
    [create, opts('size'), 'INVALID_ARGUMENT'],
    [create, opts({ size: 5 }), 'INVALID_ARGUMENT'],
    [create, opts({ size: '-5g' }), 'INVALID_ARGUMENT'],
    [create, opts({ size: '0' }), 'INVALID_ARGUMENT'],
    [create, opts({ size: '1' }), 'INVALID_ARGUMENT'],
    [create, opts({ size: '99999t' }), 'INVALID_ARGUMENT'],
    [create, opts({ size: '1e9' }), 'INVALID_ARGUMENT'],
    [create, opts({ sizeMb: '1.5' }), 'INVALID_ARGUMENT'],
    [create, opts({ size: '1g', sizeMb: '1024' }), 'INVALID_ARGUMENT'],
    [create, opts({ fs: 'ntfs' }), 'INVALID_ARGUMENT'],
    [create, opts({ fs: 'xfs', size: '100m' }), 'INVALID_ARGUMENT'],
    [create, opts({ uid: '-1' }), 'INVALID_ARGUMENT'],
    [create, opts({ gid: 'root' }), 'INVALID_ARGUMENT'],
    [create, opts({ mode: '9' }), 'INVALID_ARGUMENT'],
    [create, opts({ durability: 'never' }), 'INVALID_ARGUMENT'],
    [create, opts({ container: '../x' }), 'INVALID_ARGUMENT'],
    [create, opts({ colour: 'red' }), 'INVALID_ARGUMENT'],
    [create, opts({ __proto__x: 'red' }), 'INVALID_ARGUMENT'],
    [create, `{"Name":"x","Opts":{"size":"${'9'.repeat(70_000)}"}}`, 'PAYLOAD_TOO_LARGE'],
    [create, 'x'.repeat(3 * MiB), 'PAYLOAD_TOO_LARGE'],
    ['/VolumeDriver.Explode', '{}', 'UNSUPPORTED'],
    ['/VolumeDriver.constructor', '{}', 'UNSUPPORTED'],
    ['/', '{}', 'UNSUPPORTED'],
  ];
  for (const [path, body, code] of wrong) {
    const answer = await post(socketPath, path, body);
    t.match(answer.body.Err, new RegExp(`\\[${code}\\]$`), `${path} ${body.slice(0, 60)}`);
    t.equal(answer.type, 'application/vnd.docker.plugins.v1.2+json');
  }
  t.match(
    (await docker.call('Create', { Name: 'x', Opts: { colour: 'red' } })).Err,
    /size, sizeMb, container, fs/,
  );
  t.match((await docker.call('Create', { Name: 'x', Opts: { fs: 'ntfs' } })).Err, /ext4 or xfs/);
  t.match((await post(socketPath, '/VolumeDriver.List', '')).body, { Volumes: [{ Name: 'db' }], Err: '' });
  t.same((await post(socketPath, '/Plugin.Activate', '')).body, { Implements: ['VolumeDriver'] });
  t.same((await docker.must('Capabilities')).Capabilities, { Scope: 'global' });
  t.equal(JSON.stringify([...fabric.volumes]), before);
  t.same(await plugin.left(), []);
});

t.test('bad settings leave the socket open and are named in every answer', async (t) => {
  const made = await PluginFixture.make();
  t.teardown(() => made.end());
  made.environment = { WEFT_ATTACH: 'magic', WEFT_DEFAULTS: 'colour=red', WEFT_URL: 'ftp://x' };
  await made.start('listening');
  for (const call of ['Get', 'Create', 'Remove', 'Path']) {
    const { Err } = await made.docker.call(call, { Name: 'db' });
    t.match(Err, /WEFT_ATTACH: "magic".*one of auto, open-iscsi, userspace/);
    t.match(Err, /WEFT_DEFAULTS: unknown option "colour"/);
    t.match(Err, /WEFT_URL: "ftp:/);
  }
  t.same((await post(made.socketPath, '/Plugin.Activate', '')).body, { Implements: ['VolumeDriver'] });
});
