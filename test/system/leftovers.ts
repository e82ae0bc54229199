/** What is on this machine, to prove that nothing of a test is left: mounts, loop devices, processes. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface Process {
  pid: number;
  commandLine: string;
  environment: string;
}

/** Zombies left out: they are gone as soon as somebody asks. */
export async function processes(): Promise<Process[]> {
  const found: Process[] = [];
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const read = (name: string) => readFile(join('/proc', entry, name), 'utf8').catch(() => '');
    const [commandLine, environment] = await Promise.all([read('cmdline'), read('environ')]);
    if (commandLine === '') continue;
    found.push({ pid: Number(entry), commandLine: commandLine.replaceAll('\0', ' ').trim(), environment });
  }
  return found;
}

export async function processesWith(text: string): Promise<Process[]> {
  return (await processes()).filter(({ commandLine }) => commandLine.includes(text));
}

/** Mount points below a directory, as this process sees them, deepest first. */
export async function mountsBelow(directory: string): Promise<string[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  const points = lines.map((line) => (line.split(' ')[4] ?? '').replaceAll('\\040', ' '));
  return points.filter((point) => point.startsWith(`${directory}/`)).reverse();
}

export interface LoopDevice {
  device: string;
  /** "/" when the mount namespace it was named in is gone. */
  backingFile: string;
  /** The kernel's number of this attachment, never given twice. */
  sequence: string;
}

/** A deleted backing file still counts. */
export async function loopDevices(): Promise<LoopDevice[]> {
  const found: LoopDevice[] = [];
  for (const device of await readdir('/sys/block')) {
    if (!device.startsWith('loop')) continue;
    const read = async (name: string) => {
      return (await readFile(`/sys/block/${device}/${name}`, 'utf8').catch(() => '')).trim();
    };
    const backingFile = await read('loop/backing_file');
    if (backingFile !== '') found.push({ device, backingFile, sequence: await read('diskseq') });
  }
  return found;
}
