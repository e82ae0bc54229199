/** A volume as a block device of this machine: the plugin's engine for kernels without iSCSI. */
import { basename } from 'node:path';
import { execa } from 'execa';
import type { Test } from 'tap';
import { UserspaceEngine } from '../../plugin/userspace.ts';
import { eventually } from '../system/eventually.ts';
import { loopDevices, mountsBelow, processesWith } from '../system/leftovers.ts';
import type { WeftdProcess } from '../system/weftd-process.ts';

export interface AttachedVolume {
  /** /dev/... while it is attached; another one after every attach. */
  readonly device: string;
  attach(): Promise<void>;
  detach(): Promise<void>;
  /** Ends the process behind the device, as if the host had lost its network for good: I/O fails from now on. */
  cutOff(): Promise<void>;
}

/** Attached until the test ends; then nothing of it may be left: no process, mount or loop device. */
export async function attachVolume(
  t: Test,
  weftd: WeftdProcess,
  name: string,
  directory: string,
): Promise<AttachedVolume> {
  const engine = new UserspaceEngine(directory, `test-${process.pid}`, '00000000');
  const client = await weftd.client();
  const { id } = await client.volume(name);
  const target = { volumeId: id, ...(await client.attachment(name)) };
  let device = '';
  const attach = async () => {
    device = (await engine.attach(target)).path;
  };
  const detach = () => engine.detach(target);
  t.teardown(async () => {
    await unmountBelow(directory);
    await detach();
    await eventually('nothing of the attachment is left', 10_000, async () => {
      const left = {
        loops: (await loopDevices()).filter(({ backingFile }) => backingFile.includes(id)),
        mounts: await mountsBelow(directory),
        processes: await processesWith(id),
      };
      const isClean = Object.values(left).every((found) => found.length === 0);
      if (!isClean) throw new Error(JSON.stringify(left));
      return true;
    });
  });
  await attach();
  return {
    get device() {
      return device;
    },
    attach,
    detach,
    async cutOff() {
      const isThere = async () =>
        (await processesWith(id)).filter(({ commandLine }) => isStorageDaemon(commandLine));
      for (const { pid } of await isThere()) process.kill(pid, 'SIGKILL');
      await eventually('the storage daemon is gone', 10_000, async () => (await isThere()).length === 0);
    },
  };
}

/** A test that failed leaves its file systems mounted, over devices that may never answer again. */
async function unmountBelow(directory: string): Promise<void> {
  for (const point of await mountsBelow(directory)) {
    if (basename(point).endsWith('.blk')) continue;
    await execa('umount', ['--lazy', point], { reject: false, timeout: 10_000 });
  }
}

function isStorageDaemon(commandLine: string): boolean {
  return commandLine.startsWith('qemu-storage-daemon');
}
