/**
 * qemu-storage-daemon showing one block node as a file through FUSE: starting, finding and ending it.
 *
 *   DIRECTORY/NAME.blk   the file the FUSE export lies over
 *   DIRECTORY/NAME.loop  its loop device's path and sequence number: when the plugin's container goes, and its mount
 *                        namespace with it, the kernel forgets by which name the file was opened
 *   DIRECTORY/NAME.qmp   the socket it takes commands on
 *   DIRECTORY/NAME.pid   its pid; its command line, which has NAME in it, proves that it is still it
 */
import { readdir, readFile, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { WeftError } from '../daemon/base/errors.ts';
import { attachLoop, detachLoop, type LoopDevice, listLoops } from './loop-device.ts';
import { mountsBelow, readMounts } from './mount-table.ts';
import { qmpCommand } from './qmp.ts';
import { runTool } from './run-tool.ts';

export const storageDaemonTool = 'qemu-storage-daemon';
/** Connecting to a portal and logging in. A portal that is away refuses or stays silent. */
const startTimeoutMs = 10_000;
/** How long it may take to end by itself before it is killed. */
const endTimeoutMs = 5_000;
const pollMs = 20;
const resizeTimeoutMs = 5_000;

export class StorageDaemon {
  readonly #directory: string;
  readonly name: string;

  constructor(directory: string, name: string) {
    this.#directory = directory;
    this.name = name;
  }

  /** What a loop device goes over. */
  get file(): string {
    return join(this.#directory, `${this.name}.blk`);
  }

  /**
   * Its process outlives this one.
   * @param blockdev as in QEMU's --blockdev, without a node-name.
   * @param secret of the id `chap`; handed over in a file, because everybody on the host can read a command line.
   */
  async start(blockdev: Record<string, unknown>, secret: string | null): Promise<void> {
    const [pidFile, secretFile] = [this.#with('pid'), this.#with('secret')];
    await writeFile(this.file, '', { mode: 0o600 });
    if (secret !== null) await writeFile(secretFile, secret, { mode: 0o600 });
    const args = [
      '--daemonize',
      ...['--pidfile', pidFile],
      ...(secret === null ? [] : ['--object', `secret,id=chap,file=${comma(secretFile)}`]),
      ...(this.#hasMonitor
        ? ['--chardev', `socket,id=qmp,path=${comma(this.#with('qmp'))},server=on,wait=off`]
        : []),
      ...(this.#hasMonitor ? ['--monitor', 'chardev=qmp'] : []),
      ...['--blockdev', JSON.stringify({ 'node-name': 'lun', ...blockdev })],
      ...['--export', `type=fuse,id=file,node-name=lun,mountpoint=${comma(this.file)},writable=on`],
    ];
    try {
      await runTool(storageDaemonTool, args, { timeoutMs: startTimeoutMs });
    } finally {
      await rm(secretFile, { force: true });
    }
  }

  async attachLoop(): Promise<string> {
    const path = await attachLoop(this.file);
    const loop = (await listLoops()).find((candidate) => candidate.path === path);
    await writeFile(this.#with('loop'), `${path} ${loop?.sequence ?? ''}`, { mode: 0o600 });
    return path;
  }

  async loops(): Promise<LoopDevice[]> {
    const noted = await readFile(this.#with('loop'), 'utf8').catch(() => null);
    return (await listLoops()).filter(
      (loop) =>
        basename(loop.backingFile) === basename(this.file) ||
        (loop.sequence !== '' && `${loop.path} ${loop.sequence}` === noted),
    );
  }

  /** Shows the file in the size its block node has now. False when it cannot be told to. */
  async resize(sizeBytes: number): Promise<boolean> {
    if (!this.#hasMonitor) return false;
    await qmpCommand(this.#with('qmp'), 'block_resize', { 'node-name': 'lun', size: sizeBytes });
    // The kernel believes what it heard about a FUSE file for a second.
    for (let waitedMs = 0; waitedMs < resizeTimeoutMs; waitedMs += pollMs) {
      if ((await stat(this.file)).size >= sizeBytes) return true;
      await delay(pollMs);
    }
    return false;
  }

  /** A path longer than this is no address of a unix socket (unix(7)). */
  get #hasMonitor(): boolean {
    return Buffer.byteLength(this.#with('qmp')) < 108;
  }

  /** From the process list, not from the pid file: one killed while starting has not written it yet. */
  async pid(): Promise<number | null> {
    for (const entry of await readdir('/proc')) {
      if (!/^\d+$/.test(entry)) continue;
      const commandLine = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '');
      if (commandLine.startsWith(storageDaemonTool) && commandLine.includes(`${this.name}.blk`))
        return Number(entry);
    }
    return null;
  }

  /**
   * Takes away its loop devices, itself, its mount and its files. Nothing there is success.
   * @throws WeftError when something of it stays.
   */
  async end(): Promise<void> {
    // Loop devices first: what was written is flushed on the way.
    for (const loop of await this.loops()) {
      if (!loop.isLeaving) await detachLoop(loop.path).catch(() => {});
    }
    await this.#endProcess();
    for (const mount of mountsBelow(await readMounts(), this.#directory)) {
      if (mount.path === this.file) await runTool('umount', ['--lazy', this.file]);
    }
    const left = (await this.loops()).filter((loop) => !loop.isLeaving);
    if (left.length > 0) {
      throw new WeftError('IN_USE', `${left.map((loop) => loop.path).join(', ')} cannot be detached`);
    }
    // The .blk file last: it is what this is found by.
    for (const suffix of ['secret', 'pid', 'qmp', 'loop', 'blk'])
      await unlink(this.#with(suffix)).catch(ignoreMissing);
  }

  async #endProcess(): Promise<void> {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const pid = await this.pid();
      if (pid === null) return;
      process.kill(pid, signal);
      for (let waitedMs = 0; waitedMs < endTimeoutMs; waitedMs += pollMs) {
        if ((await this.pid()) === null) return;
        await delay(pollMs);
      }
    }
    throw new WeftError('TIMEOUT', `the storage daemon of ${this.name} does not end`);
  }

  #with(suffix: string): string {
    return join(this.#directory, `${this.name}.${suffix}`);
  }
}

/** In QEMU's option lists a comma is written twice. */
function comma(text: string): string {
  return text.replaceAll(',', ',,');
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
