/** Attaches the fake fabric's sparse files as real loop devices: everything above the attach is then the real thing. */
import { basename, join } from 'node:path';
import { WeftError } from '../../daemon/base/errors.ts';
import type { AttachEngine, AttachedDevice, AttachTarget } from '../../plugin/attach.ts';
import { attachLoop, detachLoop, type LoopDevice, loopsOver } from '../../plugin/loop-device.ts';

export class LoopEngine implements AttachEngine {
  readonly name = 'loop';
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async probe(): Promise<void> {}

  async initiator(): Promise<string> {
    return 'iqn.2026-11.test:host';
  }

  async find(volume: { volumeId: string }): Promise<AttachedDevice | null> {
    const loop = (await this.#loops(volume.volumeId)).find((candidate) => !candidate.isLeaving);
    return loop === undefined ? null : { path: loop.path, key: basename(loop.path) };
  }

  async attach(target: AttachTarget): Promise<AttachedDevice> {
    const file = join(this.#directory, `${target.volumeId}.lun`);
    const path = await attachLoop(file);
    return { path, key: basename(path) };
  }

  async detach(volume: { volumeId: string }): Promise<void> {
    for (const loop of await this.#loops(volume.volumeId)) {
      if (!loop.isLeaving) await detachLoop(loop.path);
    }
    const left = (await this.#loops(volume.volumeId)).filter((loop) => !loop.isLeaving);
    if (left.length > 0) throw new WeftError('IN_USE', 'the loop device is still there');
  }

  async devices(volume: { volumeId: string }): Promise<string[]> {
    return (await this.#loops(volume.volumeId)).map((loop) => loop.path);
  }

  async leftovers(): Promise<{ volumeId: string; iqn: string }[]> {
    return [];
  }

  async grow(): Promise<boolean> {
    return false;
  }

  #loops(volumeId: string): Promise<LoopDevice[]> {
    return loopsOver(`${volumeId}.lun`);
  }
}
