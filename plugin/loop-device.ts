/** Loop devices over files that only this plugin names: found by the backing file's name, which is never used twice. */
import { readdir, readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { runTool } from './run-tool.ts';

export interface LoopDevice {
  path: string;
  /** "/" once the mount namespace it was named in is gone. */
  backingFile: string;
  /** The kernel's number of this very attachment; the next one on the same path has another. */
  sequence: string;
  /** Goes away by itself when its last user does: already detached as far as anybody can. */
  isLeaving: boolean;
}

/** From sysfs, not from losetup: this must not touch a backing file whose server is dead. */
export async function listLoops(): Promise<LoopDevice[]> {
  const loops: LoopDevice[] = [];
  for (const name of await readdir('/sys/block')) {
    if (!name.startsWith('loop')) continue;
    const read = (file: string) => readFile(`/sys/block/${name}/loop/${file}`, 'utf8').catch(() => null);
    const backing = await read('backing_file');
    if (backing === null) continue;
    const backingFile = backing.trimEnd().replace(/ \(deleted\)$/, '');
    const sequence = (await readFile(`/sys/block/${name}/diskseq`, 'utf8').catch(() => '')).trim();
    loops.push({
      path: `/dev/${name}`,
      backingFile,
      sequence,
      isLeaving: (await read('autoclear'))?.trim() === '1',
    });
  }
  return loops;
}

/** The loop devices over any file of this name, in whichever mount namespace it was. */
export async function loopsOver(fileName: string): Promise<LoopDevice[]> {
  return (await listLoops()).filter((loop) => basename(loop.backingFile) === fileName);
}

/**
 * Buffered on purpose: with --direct-io=on over QEMU's FUSE export data lands in the wrong place as soon as two
 * requests are under way at once.
 */
export async function attachLoop(file: string): Promise<string> {
  const { stdout } = await runTool('losetup', ['--find', '--show', '--direct-io=off', file]);
  return stdout.trim();
}

/** One in use becomes a leaving one. */
export async function detachLoop(path: string): Promise<void> {
  await runTool('losetup', ['--detach', path]);
}
