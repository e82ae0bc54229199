import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DockerFabric } from './docker-fabric.ts';
import { busyboxImage } from './docker-image.ts';
import { eventually } from './eventually.ts';

const service = (volume: string) => `
    image: ${busyboxImage}
    network_mode: none
    stop_grace_period: 0s
    command: sh -c 'date >> /data/starts; sync; sleep 100000'
    volumes: ["${volume}:/data"]`;

t.test('compose, with the plugin set as the Nutanix one is', async (t) => {
  const fabric = await DockerFabric.start(t, 'nutanix');

  /** A project of one service with the given file; each call of it runs docker-compose there. */
  async function project(t: Test, name: string, file: string) {
    const directory = join(t.testdir(), name);
    await mkdir(directory);
    const rewrite = (content: string) => writeFile(join(directory, 'docker-compose.yml'), content);
    await rewrite(file);
    const tryCompose = (...args: string[]) => {
      return fabric.dockerd.run('docker-compose', ['--ansi', 'never', '-p', name, ...args], {
        cwd: directory,
        env: { DOCKER_HOST: fabric.dockerd.host, COMPOSE_HTTP_TIMEOUT: '120' },
      });
    };
    const compose = async (...args: string[]) => {
      const answer = await tryCompose(...args);
      if (answer.exitCode !== 0) throw new Error(`docker-compose ${args.join(' ')}: ${answer.stderr}`);
      return answer.stdout;
    };
    return { compose, tryCompose, rewrite };
  }

  async function starts(compose: (...args: string[]) => Promise<string>, count: number) {
    return eventually(`the service started ${count} times`, 30_000, async () => {
      const lines = (await compose('exec', '-T', 'db', 'cat', '/data/starts')).trim().split('\n');
      return lines.length === count;
    });
  }

  const withDriver = (driver: string) => `
version: "3"
services:
  db:${service('data')}
volumes:
  data:
    driver: ${driver}
    driver_opts:
      size: 128m
      fs: ext4
`;

  await t.test('a file with driver and driver_opts comes up, down, and up again with its data', async (t) => {
    const { compose } = await project(t, 'shop', withDriver('weft:latest'));
    await compose('up', '-d');
    t.ok(await starts(compose, 1));
    await compose('down');
    await fabric.expectNothingAttached(t);
    await compose('up', '-d');
    t.ok(await starts(compose, 2), 'what the first wrote is still there');
    await compose('restart');
    t.ok(await starts(compose, 3));
    const volume = await fabric.client.volume('shop_data');
    t.equal(volume.sizeBytes, 128 * 1024 * 1024, 'driver_opts reach the fabric');
    await compose('down', '-v');
    t.same(await fabric.client.volumes(), [], 'down -v removes it');
  });

  await t.test('without the tag too, but where compose 1 finds that the engine writes the tag', async (t) => {
    const { compose, tryCompose, rewrite } = await project(t, 'bare', withDriver('weft'));
    await compose('up', '-d');
    t.ok(await starts(compose, 1));
    await compose('down');
    const again = await tryCompose('up', '-d');
    if (again.exitCode !== 0) {
      // docker-compose 1 compares names as text, and every managed plugin's is written with its tag by the engine.
      t.match(again.stderr, /different driver \(weft:latest\)/);
      await rewrite(withDriver('weft:latest'));
      await compose('up', '-d');
    }
    t.ok(await starts(compose, 2), 'what the first wrote is still there');
    await compose('down', '-v');
  });

  await t.test('an external volume, made beforehand, is used and kept', async (t) => {
    await fabric.docker('volume', 'create', '-d', 'weft', '-o', 'size=64m', 'made-before');
    const file = `
version: "3"
services:
  db:${service('data')}
volumes:
  data:
    external: true
    name: made-before
`;
    const { compose } = await project(t, 'outside', file);
    await compose('up', '-d');
    t.ok(await starts(compose, 1));
    await compose('down', '-v');
    t.equal((await fabric.client.volume('made-before')).state, 'online');
    await fabric.docker('volume', 'rm', 'made-before');
  });

  await t.test(
    'the volume_driver key of version 1 comes up, down, and up again, where compose takes it',
    async (t) => {
      const file = `
db:${service('old_style')
        .replace('network_mode', 'net')
        .replace(/\n.*stop_grace_period.*/, '')}
    volume_driver: weft
`.replace(/^ {4}/gm, '  ');
      const { compose, tryCompose } = await project(t, 'old', file);
      const config = await tryCompose('config');
      if (config.exitCode !== 0) {
        t.match(config.stderr, /unsupported|invalid|version/i, 'this compose says that it does not take it');
        return;
      }
      await compose('up', '-d');
      t.ok(await starts(compose, 1));
      await compose('stop', '-t', '0');
      await compose('rm', '-f');
      await compose('up', '-d');
      t.ok(await starts(compose, 2), 'what the first wrote is still there');
      t.equal(
        (await fabric.client.volume('old_style')).sizeBytes,
        10 * 1024 ** 3,
        'ten GiB when no size is given',
      );
      await compose('stop', '-t', '0');
      await compose('rm', '-f');
      await fabric.docker('volume', 'rm', 'old_style');
    },
  );

  await t.test('nothing is left', async (t) => {
    await fabric.expectNothingAttached(t);
    await fabric.expectNoUsedSpace(t);
  });
});
