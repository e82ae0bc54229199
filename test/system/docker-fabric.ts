/** weftd, a Docker engine and the plugin between them; and the proof, at the end, that nothing of it is left. */
import type { Test } from 'tap';
import type { WeftClient } from '../../daemon/api/client.ts';
import { busyboxImage, importBusybox } from './docker-image.ts';
import { eventually } from './eventually.ts';
import { loopDevices, mountsBelow } from './leftovers.ts';
import { PrivateDockerd } from './private-dockerd.ts';
import { installPlugin, type SettingNames, type WeftPlugin } from './weft-plugin.ts';
import { WeftdProcess } from './weftd-process.ts';

/** What is unmounted and detached is so when docker has answered, or a moment later. */
const settleLimitMs = 30_000;

export class DockerFabric {
  readonly weftd: WeftdProcess;
  readonly dockerd: PrivateDockerd;
  readonly plugin: WeftPlugin;
  readonly client: WeftClient;

  /** Attachments of our volumes that were seen: one whose storage daemon was killed cannot be told by its file. */
  readonly #loops = new Set<string>();

  private constructor(weftd: WeftdProcess, dockerd: PrivateDockerd, plugin: WeftPlugin, client: WeftClient) {
    this.weftd = weftd;
    this.dockerd = dockerd;
    this.plugin = plugin;
    this.client = client;
  }

  /** All of it is taken away when the test ends; of a failed test the logs are shown. */
  static async start(t: Test, names: SettingNames = 'weft'): Promise<DockerFabric> {
    const weftd = await WeftdProcess.start();
    t.teardown(() => weftd.stop());
    const dockerd = await PrivateDockerd.start();
    t.teardown(async () => {
      if (!t.passing()) {
        t.comment(
          `dockerd's log:\n${(await dockerd.log(2000)).split('\n').filter(isTelling).slice(-80).join('\n')}`,
        );
        t.comment(`weftd's log:\n${await weftd.log()}`);
      }
      await dockerd.stop();
    });
    const [, plugin] = await Promise.all([importBusybox(dockerd), installPlugin(dockerd, weftd, names)]);
    return new DockerFabric(weftd, dockerd, plugin, await weftd.client());
  }

  /** docker ARGS; fails when docker does. */
  docker(...args: string[]): Promise<string> {
    return this.dockerd.docker(...args);
  }

  /** A shell command in a Docker container of its own; `mount` as in docker run -v. */
  sh(mount: string, command: string): Promise<string> {
    return this.docker('run', '--rm', '--network=none', `-v=${mount}`, busyboxImage, 'sh', '-c', command);
  }

  /** A Docker container that holds the volume until it is removed. */
  async hold(name: string, mount: string): Promise<void> {
    // As PID 1 a shell ignores SIGTERM: not worth waiting for.
    const options = ['--network=none', '--stop-timeout=0', `--name=${name}`, `-v=${mount}`];
    await this.docker('run', '-d', ...options, busyboxImage, 'sleep', '100000');
  }

  /** Remembers the loop devices of now, so that none of them is forgotten when what lies under it is killed. */
  async noteLoopDevices(): Promise<number> {
    const ids = (await this.client.volumes()).map(({ id }) => id);
    for (const { backingFile, sequence } of await loopDevices()) {
      if (ids.some((id) => backingFile.includes(id))) this.#loops.add(sequence);
    }
    return this.#loops.size;
  }

  /** Nothing of any volume is mounted, attached or logged in; what still is, is told. */
  async expectNothingAttached(t: Test): Promise<void> {
    await eventually('nothing is attached', settleLimitMs, async () => {
      const left = await this.#attached();
      if (left.length > 0) throw new Error(left.join('; '));
      return true;
    }).then(
      () => t.pass('no session, loop device, mount or process of a volume is left'),
      (error) => t.fail((error as Error).message),
    );
  }

  /** Removed volumes are destroyed, and what they used is free again. */
  async expectNoUsedSpace(t: Test): Promise<void> {
    t.same(await this.client.volumes(), [], 'no volume is left');
    await this.client.emptyTrash();
    t.same(await this.client.trash(), [], 'the trash is empty');
    await eventually('no space is used', settleLimitMs, async () => {
      const { capacity } = await this.client.status();
      if (capacity.usedBytes > 0) throw new Error(`${capacity.usedBytes} bytes are used`);
      return true;
    }).then(
      () => t.pass('no space is used'),
      (error) => t.fail((error as Error).message),
    );
  }

  async #attached(): Promise<string[]> {
    const volumes = await this.client.volumes();
    const sessions = volumes.flatMap(({ name, sessions }) => sessions.map(() => `a session of ${name}`));
    const claims = volumes.filter(({ claim }) => claim !== null).map(({ name }) => `a claim on ${name}`);
    // The engine's own mount of the plugin's directory on itself lies at its root, not below it.
    const mounts = (await mountsBelow(this.plugin.mountDirectory)).map((point) => `mount ${point}`);
    await this.noteLoopDevices();
    const loops = (await loopDevices())
      .filter(({ sequence }) => this.#loops.has(sequence))
      .map(({ device, backingFile }) => `${device} over ${backingFile}`);
    const daemons = (await this.plugin.processes())
      .filter(({ commandLine }) => commandLine.startsWith('qemu-storage-daemon'))
      .map(({ pid }) => `storage daemon ${pid}`);
    return [...sessions, ...claims, ...mounts, ...loops, ...daemons];
  }
}

/** Without containerd's talk of connections. */
function isTelling(line: string): boolean {
  return !line.includes('module=grpc') && !line.includes('loading plugin');
}
