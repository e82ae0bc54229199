/** The Docker plugin with the kernel's initiator: real iscsiadm, iscsid, disks and mounts in a virtual machine. */
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { execa } from 'execa';
import t, { type Test } from 'tap';
import { GiB, MiB } from '../../daemon/base/limits.ts';
import { eventually } from '../system/eventually.ts';
import { InitiatorRig } from './initiator-rig.ts';
import { guestPollMs, hostSeenFromGuest } from './virtual-machine.ts';

const root = resolve(import.meta.dirname, '../..');
const limit = { timeout: 600_000 };
/** Node starts on an emulated processor. */
const startLimitMs = 120_000;
const callLimitSeconds = 60;
const mountLimitMs = 180_000;
/** The plugin looks at sizes when it renews its claims. */
const growLimitMs = 120_000;
/** iscsiadm(8). */
const noRecords = 21;

const rig = await InitiatorRig.start(t, { name: 'plugin', disks: [await pluginDisk(t)] });
const { client, initiator, machine, weftd } = rig;
const { token } = await client.createToken({ name: 'plugin', role: 'plugin' });

interface PluginAnswer {
  Err: string;
  Mountpoint?: string;
  Volumes?: { Name: string; Mountpoint: string }[];
}

/** As dockerd calls it. */
async function call(operation: string, body: object = {}): Promise<PluginAnswer> {
  const output = await machine.run(
    `curl --silent --show-error --max-time ${callLimitSeconds} --unix-socket /run/weft.sock \
      --data '${JSON.stringify(body)}' http://plugin/VolumeDriver.${operation}`,
  );
  return JSON.parse(output) as PluginAnswer;
}

/** Where it is mounted. The plugin answers within 25 s, whatever it has done by then: dockerd's user tries again. */
async function mount(Name: string, ID: string): Promise<string> {
  return await eventually(`${Name} is mounted`, mountLimitMs, async () => {
    const { Err, Mountpoint } = await call('Mount', { Name, ID });
    if (Err.includes('[TIMEOUT]')) return null;
    if (Err !== '' || Mountpoint === undefined) throw new Error(Err);
    return Mountpoint;
  });
}

async function startPlugin(): Promise<void> {
  const environment = {
    WEFT_URL: `http://${hostSeenFromGuest}:${new URL(weftd.url).port}`,
    WEFT_TOKEN: token,
    WEFT_SOCKET: '/run/weft.sock',
    WEFT_ATTACH: 'open-iscsi',
    WEFT_LOG_LEVEL: 'debug',
  };
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  await machine.run(`
    cd /opt/weft
    env ${variables.join(' ')} setsid ./node plugin/main.ts >>/run/plugin.log 2>&1 &
    echo $! >/run/plugin.pid`);
  await eventually(
    'the plugin answers',
    startLimitMs,
    async () => (await call('List')).Err === '',
    guestPollMs,
  );
}

async function killPlugin(): Promise<void> {
  await machine.run('kill -9 $(cat /run/plugin.pid); rm -f /run/weft.sock');
}

t.teardown(async () => {
  if (!t.passing()) t.comment((await machine.attempt('tail -n 60 /run/plugin.log')).output);
});

t.test('the plugin makes, mounts and unmounts volumes with the kernel initiator', limit, async (t) => {
  await rig.run('mkdir -p /opt/weft; mount -o ro /dev/vdb /opt/weft');
  await startPlugin();
  for (const fs of ['ext4', 'xfs']) {
    const Name = `db-${fs}`;
    t.strictSame(await call('Create', { Name, Opts: { size: '1g', fs } }), { Err: '' });
    const path = await mount(Name, 'first');
    await rig.run(`dd if=/dev/urandom of=${path}/data bs=1M count=8 conv=fsync status=none
      md5sum ${path}/data >/run/${Name}.md5`);
    t.match(await rig.run(`findmnt -no FSTYPE,SOURCE -T ${path}`), new RegExp(`^${fs}\\s+/dev/sd`));
  }
  t.equal(await initiator.sessionCount(), 2);
  t.equal((await client.volume('db-ext4')).sessions.length, 1);
  t.strictSame(await call('Unmount', { Name: 'db-ext4', ID: 'first' }), { Err: '' });
  t.equal(await initiator.sessionCount(), 1, 'logged out with its last use');
  t.equal((await client.volume('db-ext4')).claim, null);
  const again = await mount('db-ext4', 'second');
  await rig.run(`[ "$(md5sum <${again}/data)" = "$(sed 's/ .*/  -/' /run/db-ext4.md5)" ]`);
  t.pass('the data is there at the next mount');
});

t.test('killed and started again, the plugin takes nothing from who uses a volume', limit, async (t) => {
  // As Docker binds it into a Docker container: what holds a volume is known by that, and not by an earlier count.
  const { Mountpoint: used } = await call('Path', { Name: 'db-ext4' });
  await rig.run(`mkdir -p /run/container; mount --bind ${used} /run/container`);
  await killPlugin();
  await startPlugin();
  const { Volumes = [] } = await call('List');
  t.strictSame(Volumes.map(({ Name }) => Name).sort(), ['db-ext4', 'db-xfs']);
  await mount('db-ext4', 'third');
  t.equal(await initiator.sessionCount(), 2, 'nothing was attached twice');
  await call('Unmount', { Name: 'db-ext4', ID: 'third' });
  await rig.run(`[ "$(md5sum </run/container/data)" = "$(sed 's/ .*/  -/' /run/db-ext4.md5)" ]`);
  t.equal(await initiator.sessionCount(), 2, 'still attached for who uses it');
  await rig.run('umount /run/container');
});

t.test('a volume that grew is larger soon, while it is mounted', limit, async (t) => {
  for (const Name of ['db-ext4', 'db-xfs']) {
    const path = await mount(Name, 'grown');
    await client.updateVolume(Name, { sizeBytes: 2 * GiB });
    const large = async () => {
      return Number(await rig.run(`df -B1 --output=size ${path} | tail -n 1`)) > 1800 * MiB;
    };
    await eventually(`${Name} has its new size`, growLimitMs, large, guestPollMs);
    t.equal((await call('Unmount', { Name, ID: 'grown' })).Err, '');
  }
});

t.test('weftd killed and started again under a mounted volume costs nothing', limit, async (t) => {
  const path = await mount('db-ext4', 'outage');
  await rig.disturbed(async () => {
    await weftd.kill9();
    const writing = machine.run(`dd if=/dev/urandom of=${path}/outage bs=1M count=8 conv=fsync status=none
      md5sum <${path}/outage`);
    await weftd.startAgain();
    const sum = await writing;
    await rig.run('echo 3 >/proc/sys/vm/drop_caches');
    t.equal(await rig.run(`md5sum <${path}/outage`), sum);
    await eventually('the claim is renewed', 60_000, async () => {
      return (await client.volume('db-ext4')).claim !== null;
    });
  });
  t.equal((await call('Unmount', { Name: 'db-ext4', ID: 'outage' })).Err, '');
});

t.test('given back and removed, nothing of the volumes is left on the host', limit, async (t) => {
  t.equal((await call('Unmount', { Name: 'db-ext4', ID: 'second' })).Err, '');
  t.equal((await call('Unmount', { Name: 'db-xfs', ID: 'first' })).Err, '');
  for (const Name of ['db-ext4', 'db-xfs']) t.strictSame(await call('Remove', { Name }), { Err: '' });
  t.equal(await initiator.sessionCount(), 0);
  t.equal((await machine.attempt('iscsiadm -m node')).exitCode, noRecords);
  t.strictSame(await initiator.disks(), []);
  t.notMatch(await rig.run('cat /proc/mounts'), /\/mnt\/weft/);
  t.strictSame(await rig.kernelFaults(), []);
});

/** A file system with Node and the plugin as it is in this work tree. */
async function pluginDisk(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-plugin-disk-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const files = join(directory, 'files');
  const { stdout } = await execa(process.execPath, ['scripts/plugin-modules.ts', 'plugin/main.ts'], {
    cwd: root,
  });
  for (const path of ['package.json', ...stdout.split('\n')]) {
    await mkdir(dirname(join(files, path)), { recursive: true });
    await cp(join(root, path), join(files, path), { recursive: true });
  }
  await cp(process.execPath, join(files, 'node'), { dereference: true });
  const image = join(directory, 'plugin.img');
  await execa('mkfs.ext4', ['-q', '-d', files, '-O', '^has_journal', image, '400M']);
  await rm(files, { recursive: true });
  return image;
}
