/**
 * Attaches without the kernel's iSCSI: qemu-storage-daemon logs in (libiscsi) and shows the LUN as a file through
 * FUSE; a loop device makes a block device of the file. For kernels without iscsi_tcp.
 *
 *   STATE/attach/ID.NONCE.blk   the file QEMU's FUSE export lies over
 *   STATE/attach/ID.NONCE.pid   QEMU's pid; its command line, which has the nonce in it, proves that it is still it
 *
 * While weftd is away I/O waits: libiscsi reconnects for as long as it takes and repeats what was under way. That
 * needs `timeout=0` (measured: 75 s without a target, then every write went through); a target that hangs without
 * closing the connection is found by QEMU's NOPs (5 s apart, three may be lost), which start a reconnect too.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, rm, unlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { asWeftError, WeftError } from '../daemon/base/errors.ts';
import type { AttachEngine, AttachedDevice, AttachTarget } from './attach.ts';
import { attachLoop, detachLoop, listLoops, loopsOver } from './loop-device.ts';
import { mountsBelow, readMounts } from './mount-table.ts';
import { runTool } from './run-tool.ts';

const daemonName = 'qemu-storage-daemon';
/** Connecting to a portal and logging in. A portal that is away refuses or stays silent. */
const startTimeoutMs = 10_000;
/** How long a storage daemon may take to end by itself before it is killed. */
const endTimeoutMs = 5_000;
const pollMs = 20;

interface Attachment {
  volumeId: string;
  /** ID.NONCE */
  name: string;
}

export class UserspaceEngine implements AttachEngine {
  readonly name = 'userspace';
  readonly #directory: string;
  readonly #initiator: string;

  constructor(stateDirectory: string, node: string) {
    this.#directory = join(stateDirectory, 'attach');
    this.#initiator = initiatorOf(node);
  }

  async probe(): Promise<void> {
    try {
      await runTool(daemonName, ['--version']);
      await runTool('losetup', ['--version']);
      await (await open('/dev/fuse', 'r+')).close();
      await (await open('/dev/loop-control', 'r')).close();
    } catch (cause) {
      throw new WeftError(
        'UNSUPPORTED',
        `the userspace attach does not work here: ${asWeftError(cause).message}`,
        { cause },
      );
    }
  }

  async initiator(): Promise<string> {
    return this.#initiator;
  }

  async find(volume: { volumeId: string }): Promise<AttachedDevice | null> {
    for (const attachment of await this.#attachments(volume.volumeId)) {
      if ((await this.#livingPid(attachment)) === null) continue;
      const loop = (await loopsOver(`${attachment.name}.blk`)).find((candidate) => !candidate.isLeaving);
      if (loop !== undefined) return { path: loop.path, key: attachment.name };
    }
    return null;
  }

  async attach(target: AttachTarget): Promise<AttachedDevice> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const failures: string[] = [];
    for (const portal of target.portals) {
      const name = `${target.volumeId}.${randomBytes(6).toString('hex')}`;
      try {
        await this.#startDaemon(name, portal, target);
        const path = await attachLoop(join(this.#directory, `${name}.blk`));
        return { path, key: name };
      } catch (error) {
        failures.push(`${portal}: ${asWeftError(error).message}`);
        await this.#detachOne({ volumeId: target.volumeId, name });
      }
    }
    throw new WeftError(
      'UNAVAILABLE',
      `no portal lets this host log in to ${target.iqn}: ${failures.join('; ')}`,
    );
  }

  async detach(volume: { volumeId: string }): Promise<void> {
    for (const attachment of await this.#attachments(volume.volumeId)) await this.#detachOne(attachment);
  }

  async devices(volume: { volumeId: string }): Promise<string[]> {
    const loops = (await listLoops()).filter((loop) =>
      basename(loop.backingFile).startsWith(`${volume.volumeId}.`),
    );
    return loops.map((loop) => loop.path);
  }

  async leftovers(): Promise<{ volumeId: string; iqn: string }[]> {
    const ids = new Set((await this.#attachments(null)).map((attachment) => attachment.volumeId));
    return [...ids].map((volumeId) => ({ volumeId, iqn: '' }));
  }

  /** QEMU 7.2 asks for the capacity once, when it logs in. */
  async grow(): Promise<boolean> {
    return false;
  }

  async #startDaemon(name: string, portal: string, target: AttachTarget): Promise<void> {
    const file = (suffix: string) => join(this.#directory, `${name}.${suffix}`);
    await writeFile(file('blk'), '', { mode: 0o600 });
    const blockdev: Record<string, unknown> = {
      driver: 'iscsi',
      'node-name': 'lun',
      transport: 'tcp',
      portal,
      target: target.iqn,
      lun: target.lun,
      'initiator-name': this.#initiator,
      timeout: 0,
      discard: 'unmap',
      cache: { direct: true, 'no-flush': false },
    };
    const secret: string[] = [];
    if (target.chap !== null) {
      // In a file: a command line can be read by everybody on the host.
      await writeFile(file('secret'), target.chap.secret, { mode: 0o600 });
      secret.push('--object', `secret,id=chap,file=${comma(file('secret'))}`);
      blockdev.user = target.chap.user;
      blockdev['password-secret'] = 'chap';
    }
    const mountpoint = file('blk');
    const args = [
      '--daemonize',
      ...['--pidfile', file('pid')],
      ...secret,
      ...['--blockdev', JSON.stringify(blockdev)],
      ...['--export', `type=fuse,id=file,node-name=lun,mountpoint=${comma(mountpoint)},writable=on`],
    ];
    try {
      await runTool(daemonName, args, { timeoutMs: startTimeoutMs });
    } finally {
      await rm(file('secret'), { force: true });
    }
  }

  /** Loop device first, then the daemon: what was written is flushed on the way. */
  async #detachOne(attachment: Attachment): Promise<void> {
    const file = join(this.#directory, `${attachment.name}.blk`);
    for (const loop of await loopsOver(basename(file))) {
      if (!loop.isLeaving) await detachLoop(loop.path).catch(() => {});
    }
    await this.#endDaemon(attachment);
    for (const mount of mountsBelow(await readMounts(), this.#directory)) {
      if (mount.path === file) await runTool('umount', ['--lazy', file]);
    }
    const left = (await loopsOver(basename(file))).filter((loop) => !loop.isLeaving);
    if (left.length > 0) {
      throw new WeftError('IN_USE', `${left.map((loop) => loop.path).join(', ')} cannot be detached`);
    }
    for (const suffix of ['secret', 'pid', 'blk']) {
      await unlink(join(this.#directory, `${attachment.name}.${suffix}`)).catch(ignoreMissing);
    }
  }

  async #endDaemon(attachment: Attachment): Promise<void> {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const pid = await this.#livingPid(attachment);
      if (pid === null) return;
      process.kill(pid, signal);
      for (let waitedMs = 0; waitedMs < endTimeoutMs; waitedMs += pollMs) {
        if ((await this.#livingPid(attachment)) === null) return;
        await delay(pollMs);
      }
    }
    throw new WeftError('TIMEOUT', `the storage daemon of ${attachment.name} does not end`);
  }

  /** From the process list, not from the pid file alone: a daemon killed while starting has not written it yet. */
  async #livingPid(attachment: Attachment): Promise<number | null> {
    const file = `${attachment.name}.blk`;
    for (const entry of await readdir('/proc')) {
      if (!/^\d+$/.test(entry)) continue;
      const commandLine = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '');
      if (commandLine.startsWith(daemonName) && commandLine.includes(file)) return Number(entry);
    }
    return null;
  }

  async #attachments(volumeId: string | null): Promise<Attachment[]> {
    const names = new Set<string>();
    for (const file of await readdir(this.#directory).catch(() => [])) {
      const parts = /^([A-Za-z0-9_-]+)(\.[0-9a-f]{12})\.(?:blk|pid|secret)$/.exec(file);
      if (parts !== null && (volumeId === null || parts[1] === volumeId)) names.add(parts[1]! + parts[2]!);
    }
    return [...names].map((name) => ({ name, volumeId: name.slice(0, name.lastIndexOf('.')) }));
  }
}

/** In QEMU's option lists a comma is written twice. */
function comma(text: string): string {
  return text.replaceAll(',', ',,');
}

/** An iSCSI name of this host (RFC 7143 §4.2.7.1): lower case letters, digits, '.', '-' and ':'. */
export function initiatorOf(node: string): string {
  const name = node
    .toLowerCase()
    .replace(/[^a-z0-9.-]/g, '-')
    .slice(0, 180);
  return `iqn.2026-11.io.weft.host:${name}`;
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
