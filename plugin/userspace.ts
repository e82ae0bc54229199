/**
 * Attaches without the kernel's iSCSI: qemu-storage-daemon logs in (libiscsi) and shows the LUN as a file through
 * FUSE; a loop device makes a block device of the file. For kernels without iscsi_tcp. What is attached is found by
 * its files, STATE/attach/ID.NONCE.{blk,pid,qmp,loop} (see storage-daemon.ts).
 *
 * While weftd is away I/O waits: libiscsi reconnects for as long as it takes and repeats what was under way. That
 * needs `timeout=0` (measured: 75 s without a target, then every write went through); a target that hangs without
 * closing the connection is found by QEMU's NOPs (5 s apart, three may be lost), which start a reconnect too.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { asWeftError, WeftError } from '../daemon/base/errors.ts';
import type { AttachEngine, AttachedDevice, AttachTarget } from './attach.ts';
import { listLoops } from './loop-device.ts';
import { runTool } from './run-tool.ts';
import { StorageDaemon, storageDaemonTool } from './storage-daemon.ts';
import { testUserspacePath } from './userspace-self-test.ts';

export class UserspaceEngine implements AttachEngine {
  readonly name = 'userspace';
  readonly #directory: string;
  readonly #initiator: string;

  /** `hostId` tells hosts apart that go by the same name. */
  constructor(stateDirectory: string, node: string, hostId: string) {
    this.#directory = join(stateDirectory, 'attach');
    this.#initiator = initiatorOf(node, hostId);
  }

  /** Once a process: half a second, before the first volume is trusted to it. */
  async probe(): Promise<void> {
    try {
      await runTool(storageDaemonTool, ['--version']);
      await runTool('losetup', ['--version']);
      await (await open('/dev/fuse', 'r+')).close();
      await (await open('/dev/loop-control', 'r')).close();
      await testUserspacePath(this.#directory);
    } catch (cause) {
      const { message } = asWeftError(cause);
      throw new WeftError('UNSUPPORTED', `the userspace attach does not work here: ${message}`, { cause });
    }
  }

  async initiator(): Promise<string> {
    return this.#initiator;
  }

  async find(volume: { volumeId: string }): Promise<AttachedDevice | null> {
    for (const daemon of await this.#daemons(volume.volumeId)) {
      if ((await daemon.pid()) === null) continue;
      const loop = (await daemon.loops()).find((candidate) => !candidate.isLeaving);
      if (loop !== undefined) return { path: loop.path, key: daemon.name };
    }
    return null;
  }

  async attach(target: AttachTarget): Promise<AttachedDevice> {
    if (target.mutualChap !== null) throw cannotAskForProof(target);
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const failures: string[] = [];
    for (const portal of target.portals) {
      const daemon = new StorageDaemon(
        this.#directory,
        `${target.volumeId}.${randomBytes(6).toString('hex')}`,
      );
      try {
        await daemon.start(this.#blockdev(portal, target), target.chap?.secret ?? null);
        return { path: await daemon.attachLoop(), key: daemon.name };
      } catch (error) {
        failures.push(`${portal}: ${asWeftError(error).message}`);
        await daemon.end();
      }
    }
    throw new WeftError(
      'UNAVAILABLE',
      `no portal lets this host log in to ${target.iqn}: ${failures.join('; ')}`,
    );
  }

  async detach(volume: { volumeId: string }): Promise<void> {
    for (const daemon of await this.#daemons(volume.volumeId)) await daemon.end();
  }

  async devices(volume: { volumeId: string }): Promise<string[]> {
    const loops = (await listLoops()).filter((loop) =>
      basename(loop.backingFile).startsWith(`${volume.volumeId}.`),
    );
    for (const daemon of await this.#daemons(volume.volumeId)) loops.push(...(await daemon.loops()));
    return [...new Set(loops.map((loop) => loop.path))];
  }

  async leftovers(): Promise<{ volumeId: string; iqn: string }[]> {
    const ids = new Set((await this.#daemons(null)).map(({ name }) => name.slice(0, name.lastIndexOf('.'))));
    return [...ids].map((volumeId) => ({ volumeId, iqn: '' }));
  }

  async grow(volume: { volumeId: string }, sizeBytes: number): Promise<boolean> {
    const device = await this.find(volume);
    if (device === null) return false;
    if (!(await new StorageDaemon(this.#directory, device.key).resize(sizeBytes))) return false;
    await runTool('losetup', ['--set-capacity', device.path]);
    return true;
  }

  #blockdev(portal: string, target: AttachTarget): Record<string, unknown> {
    return {
      driver: 'iscsi',
      transport: 'tcp',
      portal,
      target: target.iqn,
      lun: target.lun,
      'initiator-name': this.#initiator,
      timeout: 0,
      discard: 'unmap',
      cache: { direct: true, 'no-flush': false },
      ...(target.chap === null ? {} : { user: target.chap.user, 'password-secret': 'chap' }),
    };
  }

  async #daemons(volumeId: string | null): Promise<StorageDaemon[]> {
    const names = new Set<string>();
    for (const file of await readdir(this.#directory).catch(() => [])) {
      const parts = /^([A-Za-z0-9_-]+)(\.[0-9a-f]{12})\.(?:blk|pid|qmp|loop|secret)$/.exec(file);
      if (parts !== null && (volumeId === null || parts[1] === volumeId)) names.add(parts[1]! + parts[2]!);
    }
    return [...names].map((name) => new StorageDaemon(this.#directory, name));
  }
}

/** QEMU has no option for it. Logging in without the proof would give away what the administrator asked for. */
function cannotAskForProof({ iqn }: AttachTarget): WeftError {
  return new WeftError(
    'UNSUPPORTED',
    `${iqn} is to prove itself (mutual CHAP), and the userspace attach cannot ask it to: use the kernel's initiator ` +
      '(WEFT_ATTACH=open-iscsi), or take it off with "weft volume access NAME --mutual-chap none"',
  );
}

/** An iSCSI name of this host (RFC 7143 §4.2.7.1): lower case letters, digits, '.', '-' and ':'. */
export function initiatorOf(node: string, hostId: string): string {
  const name = node
    .toLowerCase()
    .replace(/[^a-z0-9.-]/g, '-')
    .slice(0, 180);
  return `iqn.2026-11.io.weft.host:${name}-${hostId}`;
}
