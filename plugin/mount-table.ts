/** The kernel's own list of mounts, /proc/self/mountinfo (proc(5)): the only proof that a path is what it seems. */
import { readFile } from 'node:fs/promises';

export interface MountEntry {
  mountId: number;
  parentId: number;
  /** "major:minor" of what is mounted. */
  device: string;
  /** Where, as this process sees it. */
  path: string;
  fsType: string;
  source: string;
  /** Of the mount and of the filesystem: both can say "ro". */
  options: string[];
  superOptions: string[];
  /** Number of the peer group it passes mounts on to; null: private. */
  sharedGroup: number | null;
}

/** In the order of the kernel: of two mounts at one path, the later lies on top. */
export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6);
    if (separator < 0 || fields.length < separator + 3) continue;
    const optional = fields.slice(6, separator);
    const shared = optional.find((field) => field.startsWith('shared:'));
    entries.push({
      mountId: Number(fields[0]),
      parentId: Number(fields[1]),
      device: fields[2]!,
      path: plainText(fields[4]!),
      options: fields[5]!.split(','),
      fsType: fields[separator + 1]!,
      source: plainText(fields[separator + 2]!),
      superOptions: (fields[separator + 3] ?? '').split(','),
      sharedGroup: shared === undefined ? null : Number(shared.slice('shared:'.length)),
    });
  }
  return entries;
}

/** The kernel writes space, tab, newline and backslash as \ooo. */
function plainText(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

export async function readMounts(): Promise<MountEntry[]> {
  return parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
}

/** What a path that is itself a mountpoint shows: the topmost of the mounts there. */
export function topMount(mounts: readonly MountEntry[], path: string): MountEntry | null {
  return mounts.findLast((mount) => mount.path === path) ?? null;
}

/** Those below a directory, deepest and topmost first: the order to unmount them in. */
export function mountsBelow(mounts: readonly MountEntry[], directory: string): MountEntry[] {
  const below = mounts.filter((mount) => mount.path.startsWith(`${directory}/`));
  return below.reverse().sort((a, b) => b.path.length - a.path.length);
}

export function isReadOnly(mount: MountEntry): boolean {
  return mount.options.includes('ro') || mount.superOptions.includes('ro');
}

/** A filesystem that has shut itself down after an I/O error (ext4 and xfs say so in their own words). */
export function isShutDown(mount: MountEntry): boolean {
  return mount.superOptions.some((option) => option === 'shutdown' || option === 'emergency_ro');
}
