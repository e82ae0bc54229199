/**
 * A Docker engine of the test's own: its data, sockets and containerd in one directory, no bridge, no firewall rules.
 * It can be killed and started again, and it leaves nothing behind: no process, no mount, no file.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa, type Options } from 'execa';
import { eventually } from './eventually.ts';
import { mountsBelow, processesWith } from './leftovers.ts';

const startLimitMs = 60_000;
/** It gives Docker containers 10 s and plugins 10 s more, then unmounts. */
const stopLimitMs = 60_000;
const commandLimitMs = 120_000;

export interface Answer {
  exitCode: number;
  stdout: string;
  stderr: string;
}

export class PrivateDockerd {
  readonly directory: string;
  readonly host: string;
  #process: ChildProcess | null = null;

  private constructor(directory: string) {
    this.directory = directory;
    this.host = `unix://${join(directory, 'docker.sock')}`;
  }

  static async start(): Promise<PrivateDockerd> {
    // Short: a plugin's socket lies deep below it, and a socket's path has at most 107 characters.
    const dockerd = new PrivateDockerd(await mkdtemp('/tmp/wd-'));
    await dockerd.#start();
    return dockerd;
  }

  /** docker ARGS; fails when docker does. */
  async docker(...args: string[]): Promise<string> {
    const answer = await this.tryDocker(...args);
    if (answer.exitCode !== 0) {
      throw new Error(
        `docker ${args.join(' ')} (exit code ${answer.exitCode}): ${answer.stderr || answer.stdout}`,
      );
    }
    return answer.stdout;
  }

  /** docker ARGS, whatever comes of it. */
  tryDocker(...args: string[]): Promise<Answer> {
    return this.run('docker', args);
  }

  /** Any program, with this engine as its DOCKER_HOST. */
  async run(program: string, args: string[], options: Options = {}): Promise<Answer> {
    const result = await execa(program, args, {
      env: { DOCKER_HOST: this.host, DOCKER_CLI_HINTS: 'false' },
      stdin: 'ignore',
      reject: false,
      timeout: commandLimitMs,
      forceKillAfterDelay: 5000,
      ...options,
    });
    const said = String(result.stderr ?? '');
    return {
      exitCode: result.exitCode ?? -1,
      stdout: String(result.stdout ?? ''),
      stderr: result.timedOut ? `no answer within ${commandLimitMs / 1000} s; ${said}` : said,
    };
  }

  /** The engine's process is killed. Docker containers and plugins live on until the next one finds them. */
  async kill9(): Promise<void> {
    this.#process?.kill('SIGKILL');
    await this.#ended();
    // Its containerd dies with it. Where PID 1 is slow to reap, the next dockerd would take the zombie for alive.
    const containerd = join(this.directory, 'exec/containerd/containerd.toml');
    await eventually('containerd ends', 10_000, async () => (await processesWith(containerd)).length === 0);
    await rm(join(this.directory, 'exec/containerd/containerd.pid'), { force: true });
  }

  /** As `systemctl stop docker` does. */
  async shutDown(): Promise<void> {
    this.#process?.kill('SIGTERM');
    const ended = this.#ended();
    const timer = setTimeout(() => this.#process?.kill('SIGKILL'), stopLimitMs);
    await ended;
    clearTimeout(timer);
  }

  async startAgain(): Promise<void> {
    await this.#start();
  }

  async restart(): Promise<void> {
    await this.shutDown();
    await this.#start();
  }

  /** The last lines of its log, for a test that failed. */
  async log(lines = 60): Promise<string> {
    const text = await readFile(join(this.directory, 'log'), 'utf8').catch(() => '');
    return text.split('\n').slice(-lines).join('\n');
  }

  /** Ends everything and takes everything away. */
  async stop(): Promise<void> {
    if (this.#process !== null) {
      const containers = (await this.tryDocker('ps', '-aq')).stdout.split('\n').filter(Boolean);
      if (containers.length > 0) await this.tryDocker('rm', '-f', '-v', ...containers);
      const plugins = (await this.tryDocker('plugin', 'ls', '-q')).stdout.split('\n').filter(Boolean);
      for (const plugin of plugins) await this.tryDocker('plugin', 'disable', '-f', plugin);
      await this.shutDown();
    }
    // containerd and its shims name this directory on their command lines.
    for (const { pid } of await processesWith(`${this.directory}/`)) {
      if (pid !== process.pid) killIfThere(pid);
    }
    await eventually('the engine’s processes end', 20_000, async () => {
      return (await processesWith(`${this.directory}/`)).length === 0;
    });
    for (const point of await mountsBelow(this.directory)) {
      await execa('umount', ['--lazy', point], { reject: false });
    }
    await rm(this.directory, { recursive: true, force: true });
  }

  async #start(): Promise<void> {
    const at = (name: string) => join(this.directory, name);
    await rm(at('pid'), { force: true });
    const log = await open(at('log'), 'a');
    const child = spawn(
      'dockerd',
      [
        ...['--data-root', at('data'), '--exec-root', at('exec'), '-p', at('pid'), '-H', this.host],
        ...['--bridge=none', '--iptables=false', '--ip6tables=false'],
      ],
      { stdio: ['ignore', log.fd, log.fd], detached: true },
    );
    this.#process = child;
    try {
      await eventually('dockerd answers', startLimitMs, async () => {
        if (hasEnded(child)) return true;
        return (await this.run('docker', ['version'], { timeout: 10_000 })).exitCode === 0;
      });
    } finally {
      await log.close();
    }
    if (hasEnded(child)) throw new Error(`dockerd ended: ${await this.log()}`);
  }

  async #ended(): Promise<void> {
    const child = this.#process;
    if (child !== null && !hasEnded(child)) await once(child, 'exit');
    this.#process = null;
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
