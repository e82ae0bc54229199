/** What a block device is and holds, found out without trusting any answer that may only mean "I could not look". */
import { constants } from 'node:fs';
import { open, readFile, stat } from 'node:fs/promises';
import { asWeftError, WeftError } from '../daemon/base/errors.ts';
import { MiB } from '../daemon/base/limits.ts';
import type { FilesystemType } from './options.ts';
import { runTool } from './run-tool.ts';

/** How much of the device's beginning and end must be zeros for it to count as blank, in bytes. */
const blankSpanBytes = MiB;
const probeTimeoutMs = 20_000;

export type DeviceContent =
  | { kind: 'blank' }
  /** Nothing known, and not only zeros. */
  | { kind: 'unknown-data' }
  | { kind: 'filesystem'; type: FilesystemType; uuid: string }
  /** Something that blkid or wipefs knows and that is not one filesystem of ours. */
  | { kind: 'foreign'; what: string };

/** "major:minor", as /proc/self/mountinfo writes it. */
export async function deviceNumber(path: string): Promise<string> {
  const { rdev } = await stat(path);
  // The encoding of makedev(3).
  const major = ((rdev >>> 8) & 0xfff) | (Math.floor(rdev / 2 ** 32) & ~0xfff);
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  return `${major}:${minor}`;
}

/**
 * Whether anything holds the device: a filesystem mounted from it in any mount namespace, a running mkfs or fsck.
 * open(2): O_EXCL without O_CREAT fails with EBUSY on a block device in use.
 */
export async function isBusy(path: string): Promise<boolean> {
  try {
    const handle = await open(path, constants.O_RDONLY | constants.O_EXCL);
    await handle.close();
    return false;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EBUSY') return true;
    if (['ENOENT', 'ENXIO', 'ENODEV', 'ENOMEDIUM'].includes((error as NodeJS.ErrnoException).code ?? ''))
      return false;
    throw asWeftError(error);
  }
}

/** @throws WeftError IO_ERROR, TIMEOUT or TOOL_FAILED when it cannot be read: it is then never to be taken for blank. */
export async function readContent(device: string): Promise<DeviceContent> {
  const blkid = parseBlkid(await blkidProbe(device));
  const signatures = await wipefsSignatures(device);
  if (blkid !== null) {
    const others = signatures.filter((type) => type !== blkid.type);
    const ours = blkid.type === 'ext4' || blkid.type === 'xfs';
    if (ours && blkid.uuid !== null && others.length === 0) {
      return { kind: 'filesystem', type: blkid.type as FilesystemType, uuid: blkid.uuid };
    }
    return { kind: 'foreign', what: [blkid.type, ...others].join(', ') };
  }
  if (signatures.length > 0) return { kind: 'foreign', what: signatures.join(', ') };
  return (await hasZeroEnds(device)) ? { kind: 'blank' } : { kind: 'unknown-data' };
}

/** Low-level probing, past blkid's cache. Exit 2: nothing found; 8: several things found that contradict each other. */
async function blkidProbe(device: string): Promise<string> {
  const args = ['--probe', '--output', 'export', device];
  const result = await runTool('blkid', args, { accept: [0, 2, 8], timeoutMs: probeTimeoutMs });
  return result.exitCode === 8 ? 'TYPE=several contradicting signatures' : result.stdout;
}

export function parseBlkid(text: string): { type: string; uuid: string | null } | null {
  const values = new Map(
    text
      .split('\n')
      .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const),
  );
  const type = values.get('TYPE') ?? values.get('PTTYPE');
  return type === undefined ? null : { type, uuid: values.get('UUID') ?? null };
}

async function wipefsSignatures(device: string): Promise<string[]> {
  const args = ['--no-act', '--noheadings', '--parsable', '--output', 'TYPE', device];
  const { stdout } = await runTool('wipefs', args, { timeoutMs: probeTimeoutMs });
  return stdout
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
}

async function hasZeroEnds(device: string): Promise<boolean> {
  const sizeBytes = await deviceSize(device);
  const handle = await open(device, constants.O_RDONLY);
  try {
    for (const start of new Set([0, Math.max(0, sizeBytes - blankSpanBytes)])) {
      const wantedBytes = Math.min(blankSpanBytes, sizeBytes - start);
      const { bytesRead, buffer } = await handle.read(Buffer.alloc(wantedBytes, 0xff), 0, wantedBytes, start);
      if (bytesRead !== wantedBytes) {
        throw new WeftError(
          'IO_ERROR',
          `${device}: only ${bytesRead} of ${wantedBytes} bytes at ${start} could be read`,
        );
      }
      if (!buffer.equals(Buffer.alloc(wantedBytes))) return false;
    }
    return true;
  } catch (error) {
    throw asWeftError(error);
  } finally {
    await handle.close();
  }
}

/** In bytes. */
export async function deviceSize(device: string): Promise<number> {
  const name = device.slice('/dev/'.length);
  const sectors = Number(await readFile(`/sys/class/block/${name}/size`, 'utf8'));
  if (!Number.isSafeInteger(sectors) || sectors <= 0) {
    throw new WeftError('IO_ERROR', `${device} says it has no size; is it attached?`);
  }
  return sectors * 512;
}
