/**
 * Where a volume is mounted:
 *
 *   MOUNTS/ID.GENERATION        the filesystem's root (lost+found is here), mounted over an empty directory of mode 0
 *   MOUNTS/ID.GENERATION/data   what the Docker container sees: empty when new, so that copy-up works
 *
 * Every mount has a name of its own. So a stale mount, left by a plugin that was killed, never lies over or under the
 * current one; and `data` exists inside the volume only, so that where nothing is mounted there is no directory that a
 * Docker container could be started on.
 */
import { chmod, chown, mkdir, readdir, rename, rm, rmdir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { asWeftError, WeftError } from '../daemon/base/errors.ts';
import { deviceNumber } from './block-device.ts';
import { mountOptions } from './filesystem.ts';
import { isReadOnly, isShutDown, type MountEntry, mountsBelow, readMounts, topMount } from './mount-table.ts';
import type { VolumeOptions } from './options.ts';
import { runTool } from './run-tool.ts';

const mountTimeoutMs = 300_000;
const unmountTimeoutMs = 60_000;
const rootName = 'data';

export class MountDirectory {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  mountpoint(volumeId: string, generation: number): string {
    return join(this.path, `${volumeId}.${generation}`);
  }

  /** What Docker is told. */
  root(volumeId: string, generation: number): string {
    return join(this.mountpoint(volumeId, generation), rootName);
  }

  /** The volume's mounts, of whatever generation, in the order to unmount them. */
  async mountsOf(volumeId: string): Promise<MountEntry[]> {
    return mountsBelow(await readMounts(), this.path).filter(
      (mount) => this.#volumeOf(mount.path) === volumeId,
    );
  }

  /** Ids of all volumes something is mounted of. */
  async mountedVolumes(): Promise<Set<string>> {
    const ids = new Set<string>();
    for (const mount of mountsBelow(await readMounts(), this.path)) {
      const id = this.#volumeOf(mount.path);
      if (id !== null) ids.add(id);
    }
    return ids;
  }

  /** Mounts the device and proves it. @throws WeftError; nothing stays mounted then. */
  async mount(device: string, type: 'ext4' | 'xfs', volumeId: string, generation: number): Promise<void> {
    const mountpoint = this.mountpoint(volumeId, generation);
    await mkdir(mountpoint, { recursive: true, mode: 0o000 });
    try {
      await runTool('mount', ['-t', type, '-o', mountOptions(type), device, mountpoint], {
        timeoutMs: mountTimeoutMs,
      });
      await this.#prove(device, volumeId, generation);
    } catch (error) {
      await this.unmount(mountpoint).catch(() => {});
      throw error;
    }
  }

  /**
   * That the volume's mountpoint is what it must be: the device, on top, writable, alive, and seen by the host.
   * @throws WeftError IO_ERROR saying what it is instead.
   */
  async prove(device: string, volumeId: string, generation: number): Promise<void> {
    await this.#prove(device, volumeId, generation);
    const root = this.root(volumeId, generation);
    const seen = await stat(root).catch(asWeftError);
    if (seen instanceof WeftError || !seen.isDirectory()) {
      throw new WeftError('IO_ERROR', `${root} is not the directory it must be`);
    }
  }

  async #prove(device: string, volumeId: string, generation: number): Promise<void> {
    const mountpoint = this.mountpoint(volumeId, generation);
    const refuse = (why: string) => new WeftError('IO_ERROR', `${mountpoint} ${why}`);
    const mounts = await readMounts();
    const mount = topMount(mounts, mountpoint);
    if (mount === null) throw refuse('is not mounted');
    const expected = await deviceNumber(device);
    if (mount.device !== expected)
      throw refuse(`is mounted from ${mount.source} (${mount.device}), not ${device} (${expected})`);
    if (isShutDown(mount)) throw refuse('was shut down by its filesystem after an I/O error');
    if (isReadOnly(mount)) throw refuse('became read-only after an I/O error');
    // Only where Docker gave a directory of its own (propagatedMount) must a mount pass on to the host.
    const own = topMount(mounts, this.path);
    if (own !== null && (own.sharedGroup === null || mount.sharedGroup === null)) {
      throw refuse(
        `is not seen by the host: ${this.path} must be an rshared mount (propagatedMount in config.json)`,
      );
    }
    await statfs(mountpoint).catch((error) => {
      throw refuse(`does not answer: ${asWeftError(error).message}`);
    });
  }

  /** Makes the Docker container's directory when the volume is new: complete with owner and mode, or not at all. */
  async makeRoot(volumeId: string, generation: number, options: VolumeOptions): Promise<void> {
    const root = this.root(volumeId, generation);
    if ((await stat(root).catch(() => null)) !== null) return;
    const unfinished = join(this.mountpoint(volumeId, generation), '.data.new');
    await rm(unfinished, { recursive: true, force: true });
    await mkdir(unfinished);
    await chown(unfinished, options.uid, options.gid);
    // After chown, which clears the set-id bits.
    await chmod(unfinished, options.mode);
    await rename(unfinished, root);
  }

  /**
   * Takes one mount away, the hard way when it does not go the soft way: Docker containers keep the copies they hold.
   * Not mounted is success.
   */
  async unmount(mountpoint: string): Promise<void> {
    if (topMount(await readMounts(), mountpoint) !== null) {
      const gone = await runTool('umount', [mountpoint], { timeoutMs: unmountTimeoutMs }).catch(asWeftError);
      if (gone instanceof WeftError && topMount(await readMounts(), mountpoint) !== null) {
        await runTool('umount', ['--lazy', mountpoint], { timeoutMs: unmountTimeoutMs });
      }
    }
    await rmdir(mountpoint).catch((error: NodeJS.ErrnoException) => {
      // Whatever else it holds is not ours to delete, and a later mount has another name.
      if (!['ENOENT', 'ENOTEMPTY', 'EBUSY', 'EIO', 'ENOTCONN'].includes(error.code ?? '')) throw error;
    });
  }

  /** All of a volume's mounts, and the empty directories of earlier ones. */
  async unmountAll(volumeId: string): Promise<void> {
    for (const mount of await this.mountsOf(volumeId)) await this.unmount(mount.path);
    for (const name of await readdir(this.path)) {
      if (this.#volumeOf(join(this.path, name)) === volumeId) await this.unmount(join(this.path, name));
    }
  }

  #volumeOf(path: string): string | null {
    return /^([A-Za-z0-9_-]+)\.\d+$/.exec(path.slice(this.path.length + 1))?.[1] ?? null;
  }
}
