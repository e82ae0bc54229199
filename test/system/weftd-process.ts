/** weftd as a process of its own, on fixed ports, to be killed and started again on the same data. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { WeftClient } from '../../daemon/api/client.ts';
import { eventually } from './eventually.ts';

const root = resolve(import.meta.dirname, '../..');
const startLimitMs = 60_000;
const stopLimitMs = 60_000;

export interface WeftdOptions {
  /** Its data directory, when that shall not be in its own temporary directory. */
  data?: string;
  /** Where its target listens, several separated by commas; a free port of 127.0.0.1 when not given. */
  iscsi?: string;
  /** Further flags of weftd. */
  flags?: readonly string[];
}

export class WeftdProcess {
  readonly directory: string;
  readonly data: string;
  readonly url: string;
  readonly portal: string;
  readonly #flags: readonly string[];
  #process: ChildProcess | null = null;

  private constructor(directory: string, apiPort: number, iscsi: string, options: WeftdOptions) {
    this.directory = directory;
    this.data = options.data ?? join(directory, 'data');
    this.#flags = options.flags ?? [];
    this.url = `http://127.0.0.1:${apiPort}`;
    this.portal = iscsi;
  }

  static async start(options: WeftdOptions = {}): Promise<WeftdProcess> {
    const directory = await mkdtemp(join(tmpdir(), 'weft-system-'));
    const iscsi = options.iscsi ?? `127.0.0.1:${await freePort()}`;
    const weftd = new WeftdProcess(directory, await freePort(), iscsi, options);
    await weftd.startAgain();
    return weftd;
  }

  /** With the first administrator's token. */
  async client(): Promise<WeftClient> {
    const token = (await readFile(join(this.data, 'admin.token'), 'utf8')).trim();
    return new WeftClient({ url: this.url, token, timeoutMs: 10_000 });
  }

  async startAgain(): Promise<void> {
    const log = await open(join(this.directory, 'log'), 'a');
    const child = spawn(
      process.execPath,
      [
        join(root, 'daemon/main.ts'),
        ...['--data', this.data, ...this.#flags],
        ...['--api', new URL(this.url).host, '--iscsi', this.portal],
      ],
      { stdio: ['ignore', log.fd, log.fd], detached: true, env: plainEnvironment() },
    );
    this.#process = child;
    await log.close();
    await eventually('weftd answers', startLimitMs, async () => {
      if (hasEnded(child)) return true;
      await (await this.client()).health();
      return true;
    });
    if (hasEnded(child)) throw new Error(`weftd ended: ${await this.log()}`);
  }

  /** Null while it does not run. */
  get pid(): number | null {
    return this.#process === null || hasEnded(this.#process) ? null : (this.#process.pid ?? null);
  }

  async kill9(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** Asks it to drain and end; says whether it did so by itself and without an error. */
  async shutDown(): Promise<boolean> {
    const child = this.#process;
    await this.#end('SIGTERM');
    return child?.exitCode === 0;
  }

  async log(lines = 60): Promise<string> {
    const text = await readFile(join(this.directory, 'log'), 'utf8').catch(() => '');
    return text.split('\n').slice(-lines).join('\n');
  }

  async stop(): Promise<void> {
    await this.#end('SIGTERM');
    await rm(this.directory, { recursive: true, force: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (child === null || hasEnded(child)) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), stopLimitMs);
    await ended;
    clearTimeout(timer);
  }
}

/** Without what tap tells the processes of its tests. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _, ...environment } = process.env;
  return environment;
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** Nobody else listens on it now. Fixed from here on: a restarted weftd must be found where it was. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port was given');
  return address.port;
}
