import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { DockerFabric } from './docker-fabric.ts';
import { busyboxImage } from './docker-image.ts';
import { eventually } from './eventually.ts';

t.test('volumes of a real Docker engine', async (t) => {
  const fabric = await DockerFabric.start(t);
  const { dockerd, docker } = { dockerd: fabric.dockerd, docker: fabric.docker.bind(fabric) };
  const sum = 'md5sum < /data/file';

  await t.test('what one Docker container writes the next one reads', async (t) => {
    await docker('volume', 'create', '-d', 'weft', '-o', 'size=256m', 'first');
    const written = await fabric.sh(
      'first:/data',
      `dd if=/dev/urandom of=/data/file bs=1M count=20 2>/dev/null; ${sum}`,
    );
    t.match(written, /^[0-9a-f]{32}/);
    t.equal(await fabric.sh('first:/data', sum), written);
    await fabric.expectNothingAttached(t);
  });

  await t.test(
    'creating it again changes nothing, and a name that somebody else has is refused',
    async (t) => {
      const before = await fabric.sh('first:/data', sum);
      await docker('volume', 'create', '-d', 'weft', '-o', 'size=256m', 'first');
      t.equal(await fabric.sh('first:/data', sum), before);
      await fabric.client.createVolume({ name: 'somebody-elses', sizeBytes: 64 * 1024 * 1024 });
      const refused = await dockerd.tryDocker(
        'volume',
        'create',
        '-d',
        'weft',
        '-o',
        'size=1g',
        'somebody-elses',
      );
      t.not(refused.exitCode, 0);
      t.notMatch(await docker('volume', 'ls', '-q'), /somebody-elses/);
      await fabric.client.removeVolume('somebody-elses', { purge: true });
    },
  );

  await t.test('bad options are refused with the allowed ones, and help names them all', async (t) => {
    for (const [option, allowed] of [
      ['size=huge', /10g/],
      ['fs=ntfs', /ext4 or xfs/],
      ['sized=1g', /size/],
    ] as const) {
      const answer = await dockerd.tryDocker('volume', 'create', '-d', 'weft', '-o', option, 'bad');
      t.not(answer.exitCode, 0);
      t.match(answer.stderr, allowed, option);
    }
    const help = await dockerd.tryDocker('volume', 'create', '-d', 'weft', '-o', 'help', 'bad');
    for (const name of ['size', 'sizeMb', 'container', 'fs', 'durability', 'uid', 'gid', 'mode']) {
      t.match(help.stderr, `-o ${name}=`);
    }
    t.notMatch(await docker('volume', 'ls', '-q'), /bad/);
  });

  await t.test('two Docker containers share one volume, and the last one to go detaches it', async (t) => {
    await fabric.hold('one', 'first:/data');
    await fabric.hold('two', 'first:/data');
    await docker('exec', 'one', 'sh', '-c', 'echo shared > /data/note');
    t.equal(await docker('exec', 'two', 'cat', '/data/note'), 'shared');
    await docker('rm', '-f', 'one');
    await docker('exec', 'two', 'sh', '-c', 'echo still > /data/note && sync');
    t.equal(await docker('exec', 'two', 'cat', '/data/note'), 'still');
    await docker('rm', '-f', 'two');
    await fabric.expectNothingAttached(t);
  });

  await t.test('docker cp in and out leaves a running Docker container its volume', async (t) => {
    const directory = t.testdir({ in: 'copied' });
    await fabric.hold('holder', 'first:/data');
    await docker('cp', join(directory, 'in'), 'holder:/data/in');
    await docker('cp', 'holder:/data/in', join(directory, 'out'));
    t.equal(await readFile(join(directory, 'out'), 'utf8'), 'copied');
    t.equal(await docker('exec', 'holder', 'sh', '-c', 'echo alive > /data/x && cat /data/in'), 'copied');
    await docker('rm', '-f', 'holder');
    await docker('create', '--name=stopped', '--network=none', '-v=first:/data', busyboxImage);
    await docker('cp', 'stopped:/data/in', join(directory, 'again'));
    t.equal(await readFile(join(directory, 'again'), 'utf8'), 'copied');
    await docker('rm', 'stopped');
    await fabric.expectNothingAttached(t);
  });

  await t.test('a restarted Docker container has its data, and docker kill detaches', async (t) => {
    await fabric.hold('holder', 'first:/data');
    await docker('exec', 'holder', 'sh', '-c', 'echo before > /data/restart');
    await docker('restart', 'holder');
    t.equal(await docker('exec', 'holder', 'cat', '/data/restart'), 'before');
    await docker('kill', 'holder');
    await fabric.expectNothingAttached(t);
    await docker('start', 'holder');
    t.equal(await docker('exec', 'holder', 'cat', '/data/restart'), 'before');
    await docker('rm', '-f', 'holder');
  });

  await t.test('a new volume takes what the image has in its place, and shows no lost+found', async (t) => {
    for (const fs of ['ext4', 'xfs']) {
      const name = `copy-${fs}`;
      // The smallest xfs that mkfs makes without complaint.
      await docker('volume', 'create', '-d', 'weft', '-o', 'size=512m', '-o', `fs=${fs}`, name);
      t.equal(
        await fabric.sh(`${name}:/content`, 'ls -A /content; cat /content/sub/file > /dev/null'),
        'sub',
        fs,
      );
      const type = await fabric.sh(
        `${name}:/content`,
        `mount | while read d o p t f r; do [ $p = /content ] && echo $f; done; true`,
      );
      t.equal(type, fs);
      await docker('volume', 'rm', name);
    }
  });

  await t.test('owner and permissions of the root directory are as asked', async (t) => {
    await docker(
      'volume',
      'create',
      '-d',
      'weft',
      '-o',
      'size=64m',
      '-o',
      'uid=999',
      '-o',
      'gid=998',
      '-o',
      'mode=0750',
      'owned',
    );
    t.equal(await fabric.sh('owned:/data', 'stat -c "%u %g %a" /data'), '999 998 750');
    await docker('volume', 'rm', 'owned');
  });

  await t.test('inspect tells size, use, container, filesystem, node and where it is mounted', async (t) => {
    await fabric.hold('holder', 'first:/data');
    const inspect = async () => JSON.parse(await docker('volume', 'inspect', 'first'))[0];
    t.match(await inspect(), {
      Driver: 'weft:latest',
      Scope: 'global',
      Status: { size: '256 MiB', container: 'default', filesystem: 'ext4', durability: 'flush', mounts: 1 },
    });
    const { Status, Mountpoint } = await inspect();
    t.ok(Status.usedBytes > 20 * 1024 * 1024, 'what was written is counted');
    t.equal(Status.mountedOn, Status.node);
    t.match(Mountpoint, /^\//);
    await docker('rm', '-f', 'holder');
    t.equal((await inspect()).Status.mounts, 0);
  });

  await t.test('rm of a volume in use is refused and names the user', async (t) => {
    await fabric.hold('holder', 'first:/data');
    const byDocker = await dockerd.tryDocker('volume', 'rm', 'first');
    t.not(byDocker.exitCode, 0);
    t.match(byDocker.stderr, /in use/);
    await t.rejects(fabric.client.removeVolume('first'), { code: 'IN_USE' });
    await docker('exec', 'holder', 'sh', '-c', 'echo unharmed > /data/x && sync');
    await docker('rm', '-f', 'holder');
  });

  await t.test(
    'while weftd is away, ls and inspect answer from memory and nothing hangs or is forgotten',
    async (t) => {
      await fabric.weftd.kill9();
      const startedMs = performance.now();
      t.match(await docker('volume', 'ls', '-q'), /^first$/m);
      t.match(await docker('volume', 'inspect', 'first'), /"size": "256 MiB"/);
      t.ok(performance.now() - startedMs < 30_000, 'within 30 s');
      const failed = await dockerd.tryDocker(
        'run',
        '--rm',
        '--network=none',
        '-v=first:/data',
        busyboxImage,
        'true',
      );
      t.not(failed.exitCode, 0, 'a mount says that it cannot be');
      await fabric.weftd.startAgain();
      t.equal(
        await eventually('the volume is there again', 60_000, () =>
          fabric.sh('first:/data', 'cat /data/restart'),
        ),
        'before',
      );
    },
  );

  await t.test('a removed volume can be restored until the trash is emptied', async (t) => {
    const before = await fabric.sh('first:/data', sum);
    await docker('volume', 'rm', 'first');
    t.notMatch(await docker('volume', 'ls', '-q'), /first/);
    await fabric.client.restoreVolume('first');
    await eventually('docker knows it again', 60_000, async () =>
      /^first$/m.test(await docker('volume', 'ls', '-q')),
    );
    t.equal(await fabric.sh('first:/data', sum), before);
    await docker('volume', 'rm', 'first');
  });

  await t.test('nothing is left', async (t) => {
    await fabric.expectNothingAttached(t);
    await fabric.expectNoUsedSpace(t);
  });
});
