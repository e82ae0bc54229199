/** A fabric, and plugins started and killed on it, as one test needs them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type LoopDevice, listLoops } from '../../plugin/loop-device.ts';
import { readMounts } from '../../plugin/mount-table.ts';
import { runTool } from '../../plugin/run-tool.ts';
import { FakeDockerd } from './fake-dockerd.ts';
import { FakeFabric } from './fake-fabric.ts';

const compileCache = join(tmpdir(), `weft-plugin-test-cache-${process.pid}`);
process.once('exit', () => rmSync(compileCache, { recursive: true, force: true }));

const processFile = new URL('./plugin-process.ts', import.meta.url).pathname;

/** How long a loop device that is being let go may still be there, in ms. */
const leavingMs = 5_000;

export class PluginFixture {
  readonly directory: string;
  readonly fabric: FakeFabric;
  readonly socketPath: string;
  readonly mountDirectory: string;
  readonly docker: FakeDockerd;
  /** What the plugins of this test said. */
  log = '';
  environment: Record<string, string> = {};
  #child: ChildProcess | null = null;

  private constructor(directory: string) {
    this.directory = directory;
    this.fabric = new FakeFabric(join(directory, 'luns'));
    this.socketPath = join(directory, 'weft.sock');
    this.mountDirectory = join(directory, 'mnt');
    this.docker = new FakeDockerd(this.socketPath);
  }

  static async make(): Promise<PluginFixture> {
    const fixture = new PluginFixture(await mkdtemp(join(tmpdir(), 'weft-plugin-')));
    await mkdir(fixture.fabric.directory);
    await fixture.fabric.start();
    return fixture;
  }

  /** The plugin's process, once it has recovered (or once its socket is open). */
  async start(until: 'recovered' | 'listening' = 'recovered'): Promise<void> {
    const child = spawn(process.execPath, [processFile], {
      env: {
        PATH: process.env.PATH ?? '',
        // A hundred plugins are started: each needs not compile all anew.
        NODE_COMPILE_CACHE: compileCache,
        LOOP_DIRECTORY: this.fabric.directory,
        WEFT_SOCKET: this.socketPath,
        WEFT_URL: this.fabric.url,
        WEFT_TOKEN: 'right',
        WEFT_NODE: 'host-1',
        WEFT_MOUNT_DIR: this.mountDirectory,
        WEFT_STATE_DIR: join(this.directory, 'state'),
        ...this.environment,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    child.stderr!.on('data', (piece: Buffer) => {
      this.log += piece;
    });
    if (until === 'listening') return this.#untilListening(child);
    const ready = once(child.stdout!, 'data');
    const ended = once(child, 'exit').then(() => 'ended');
    if ((await Promise.race([ready, ended])) === 'ended') throw new Error(`the plugin ended: ${this.log}`);
  }

  async #untilListening(child: ChildProcess): Promise<void> {
    while (child.exitCode === null && child.signalCode === null) {
      if ((await this.docker.call('Capabilities').catch(() => null)) !== null) return;
      await delay(20);
    }
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  /** What of this test is mounted and attached. */
  /**
   * What is still mounted or attached. A loop device that anybody else on the machine has open for a look leaves when
   * they close it: it gets that moment.
   */
  async left(): Promise<string[]> {
    const deadlineMs = performance.now() + leavingMs;
    let loops = await this.#loops();
    while (loops.some((loop) => loop.isLeaving) && performance.now() < deadlineMs)
      loops = await this.#loops();
    const mounts = (await readMounts()).filter((mount) => mount.path.startsWith(this.directory));
    const directories = await readdir(this.mountDirectory).catch(() => []);
    return [
      ...mounts.map((mount) => `mount ${mount.path}`),
      ...loops.map((loop) => `${loop.path} over ${loop.backingFile}`),
      ...directories.map((name) => `directory ${name}`),
    ];
  }

  async #loops(): Promise<LoopDevice[]> {
    return (await listLoops()).filter((loop) => loop.backingFile.startsWith(this.directory));
  }

  async end(): Promise<void> {
    await this.kill();
    for (const mount of (await readMounts()).reverse()) {
      if (mount.path.startsWith(this.directory))
        await runTool('umount', ['--lazy', mount.path]).catch(() => {});
    }
    for (const loop of await listLoops()) {
      if (loop.backingFile.startsWith(this.directory))
        await runTool('losetup', ['-d', loop.path]).catch(() => {});
    }
    await this.fabric.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** Waits for what must become true. */
export async function eventually(what: string, isTrue: () => Promise<boolean> | boolean, limitMs = 15_000) {
  for (let waitedMs = 0; waitedMs < limitMs; waitedMs += 20) {
    if (await isTrue()) return;
    await delay(20);
  }
  throw new Error(`did not become true: ${what}`);
}

/** A running plugin on a fabric of its own, taken away at the end of the test. */
export async function pluginFor(
  test: { teardown(end: () => Promise<void>): void },
  environment: Record<string, string> = {},
): Promise<PluginFixture> {
  const made = await PluginFixture.make();
  made.environment = environment;
  test.teardown(() => made.end());
  await made.start();
  return made;
}
