import { access } from 'node:fs/promises';
import t from 'tap';
import { busyboxImage, importBusybox } from './docker-image.ts';
import { eventually } from './eventually.ts';
import { mountsBelow, processesWith } from './leftovers.ts';
import { PrivateDockerd } from './private-dockerd.ts';

t.test('a private dockerd runs, comes back after kill -9 and after a stop, and leaves nothing', async (t) => {
  const dockerd = await PrivateDockerd.start();
  t.teardown(() => dockerd.stop());
  await importBusybox(dockerd);
  await dockerd.docker('volume', 'create', 'data');
  const write = ['sh', '-c', 'echo kept > /data/file; sleep 1000'];
  await dockerd.docker(
    'run',
    '-d',
    '--name=writer',
    '--restart=always',
    '--stop-timeout=1',
    '--network=none',
    '-v=data:/data',
    busyboxImage,
    ...write,
  );
  const isRunning = async () =>
    (await dockerd.docker('inspect', '-f', '{{.State.Running}}', 'writer')) === 'true';
  const read = () =>
    dockerd.docker('run', '--rm', '--network=none', '-v=data:/data', busyboxImage, 'cat', '/data/file');

  await dockerd.kill9();
  await t.rejects(dockerd.docker('ps'));
  await dockerd.startAgain();
  await eventually('the Docker container runs again', 30_000, isRunning);
  t.equal(await read(), 'kept');

  await dockerd.restart();
  await eventually('the Docker container runs again', 30_000, isRunning);
  t.equal(await read(), 'kept');

  await dockerd.stop();
  t.same(await mountsBelow(dockerd.directory), []);
  t.same(await processesWith(`${dockerd.directory}/`), []);
  await t.rejects(access(dockerd.directory));
});
