/**
 * The filesystem on a volume: made once, checked before every mount, grown with the volume.
 *
 * Whether to make one is decided from the fabric's record and from what the device holds, by one table:
 *
 *   record   device                        decision
 *   none     blank, never written          make
 *   none     a filesystem of the kind      use it as it is
 *   none     anything else                 refuse NOT_BLANK
 *   making   blank, or unknown data        make: 'making' was written when the device was blank, and nothing is
 *                                          mounted before 'ready': only a half-made filesystem can be there
 *   making   a filesystem with its uuid    make, for the same reason
 *   making   anything else                 refuse NOT_BLANK
 *   ready    that filesystem               use it
 *   ready    anything else                 refuse CORRUPT
 *
 * A device that cannot be read never comes this far.
 */
import { randomUUID } from 'node:crypto';
import type { FilesystemRecord } from '../daemon/api/schema.ts';
import { asWeftError, WeftError } from '../daemon/base/errors.ts';
import { MiB } from '../daemon/base/limits.ts';
import { formatSize } from '../daemon/base/size.ts';
import { type DeviceContent, deviceSize } from './block-device.ts';
import type { FilesystemType } from './options.ts';
import { runTool } from './run-tool.ts';

const mkfsTimeoutMs = 300_000;
const fsckTimeoutMs = 3_600_000;
const growTimeoutMs = 300_000;
const leastGrowthBytes = MiB;

export type FormatDecision =
  | { kind: 'use'; type: FilesystemType }
  /** `again`: over what is left of an unfinished one. */
  | { kind: 'make'; type: FilesystemType; uuid: string; again: boolean };

/** @throws WeftError NOT_BLANK or CORRUPT when the device is neither to be used nor to be formatted. */
export function decideFormat(
  volume: { name: string; filesystem: FilesystemRecord | null; usedBytes: number },
  wanted: FilesystemType,
  content: DeviceContent,
): FormatDecision {
  const record = volume.filesystem;
  const found = describe(content);
  if (record === null) {
    if (content.kind === 'filesystem' && content.type === wanted) return { kind: 'use', type: wanted };
    if (content.kind === 'blank' && volume.usedBytes === 0) {
      return { kind: 'make', type: wanted, uuid: randomUUID(), again: false };
    }
    const what = content.kind === 'blank' ? `${formatSize(volume.usedBytes)} of data in its middle` : found;
    throw new WeftError(
      'NOT_BLANK',
      `volume ${volume.name} was never formatted by Weft and holds ${what}; it is left as it is. ` +
        'Save what is on it, remove the volume and create it anew',
      { details: { found: what } },
    );
  }
  const isIts = content.kind === 'filesystem' && content.type === record.type && content.uuid === record.uuid;
  if (record.state === 'making') {
    if (isIts || content.kind === 'blank' || content.kind === 'unknown-data') {
      return { kind: 'make', type: record.type, uuid: record.uuid, again: true };
    }
    throw new WeftError(
      'NOT_BLANK',
      `volume ${volume.name} was to be formatted ${record.type} ${record.uuid} and now holds ${found}; it is left as it is`,
      { details: { found } },
    );
  }
  if (isIts) return { kind: 'use', type: record.type };
  throw new WeftError(
    'CORRUPT',
    `volume ${volume.name} should hold ${record.type} ${record.uuid} and holds ${found}; it is neither mounted nor ` +
      'formatted. Look at it with blkid and a copy of it, or restore a backup',
    { details: { found } },
  );
}

function describe(content: DeviceContent): string {
  if (content.kind === 'blank') return 'nothing but zeros at both ends';
  if (content.kind === 'unknown-data') return 'data nobody recognises';
  if (content.kind === 'foreign') return content.what;
  return `${content.type} ${content.uuid}`;
}

export async function makeFilesystem(
  device: string,
  decision: FormatDecision & { kind: 'make' },
): Promise<void> {
  // A new volume is all holes, which read as zeros: neither discarding nor zeroing anything first changes it. What a
  // first, unfinished try left behind is zeroed.
  const zeros = decision.again ? 'lazy_itable_init=0,lazy_journal_init=0' : 'assume_storage_prezeroed=1';
  const args =
    decision.type === 'ext4'
      ? ['-q', '-F', '-m', '0', '-U', decision.uuid, '-E', `nodiscard,${zeros}`, device]
      : ['-q', '-K', '-m', `uuid=${decision.uuid}`, ...(decision.again ? ['-f'] : []), device];
  await runTool(`mkfs.${decision.type}`, args, { timeoutMs: mkfsTimeoutMs });
}

/**
 * Replays the journal and repairs what needs no decision. xfs replays its log when it is mounted.
 * @throws WeftError CORRUPT when a person has to decide.
 */
export async function checkFilesystem(device: string, type: FilesystemType): Promise<void> {
  if (type === 'xfs') return;
  // e2fsck(8): 1 repaired, 2 repaired and the machine should reboot, which is for mounted root filesystems.
  const result = await runTool('e2fsck', ['-p', device], { accept: [0, 1, 2, 4], timeoutMs: fsckTimeoutMs });
  if (result.exitCode !== 4) return;
  throw new WeftError(
    'CORRUPT',
    `ext4 on ${device} has damage that must be repaired by hand (e2fsck ${device}): ${result.stdout.slice(-400)}`,
  );
}

/** What a failed mount of xfs means: xfs_repair's words help more than mount's. */
export async function explainMountFailure(
  device: string,
  type: FilesystemType,
  thrown: unknown,
): Promise<WeftError> {
  const error = asWeftError(thrown);
  if (type !== 'xfs') return error;
  const check = await runTool('xfs_repair', ['-n', device], {
    accept: [0, 1, 2],
    timeoutMs: fsckTimeoutMs,
  }).catch(asWeftError);
  if (check instanceof WeftError || check.exitCode === 0) return error;
  return new WeftError(
    'CORRUPT',
    `xfs on ${device} cannot be mounted and must be repaired by hand (xfs_repair ${device}): ${check.stderr.slice(-400)}`,
    { cause: error },
  );
}

/** Space that is freed is given back at once; an I/O error ends writing instead of going on over it. */
export function mountOptions(type: FilesystemType): string {
  // A dead device's xfs may linger in a Docker container's namespace: nouuid lets the live one be mounted beside it.
  return type === 'ext4' ? 'noatime,discard,errors=remount-ro' : 'noatime,discard,nouuid';
}

/**
 * Fills the device before it is mounted: for ext4, because the kernel asks for CAP_SYS_RESOURCE, which a plugin's
 * container may not have, to do it later. xfs grows only while it is mounted.
 */
export async function growUnmounted(device: string, type: FilesystemType): Promise<void> {
  if (type === 'xfs') return;
  const { stdout } = await runTool('dumpe2fs', ['-h', device]);
  const field = (name: string) => Number(new RegExp(`^${name}: +(\\d+)$`, 'm').exec(stdout)?.[1]);
  const [blocks, blockBytes] = [field('Block count'), field('Block size')];
  // Less than a block group cannot always be used.
  if (!((await deviceSize(device)) - blocks * blockBytes > leastGrowthBytes)) return;
  // resize2fs asks for a full check first.
  await runTool('e2fsck', ['-f', '-p', device], { accept: [0, 1, 2], timeoutMs: fsckTimeoutMs });
  await runTool('resize2fs', [device], { timeoutMs: growTimeoutMs });
}

/** Fills the device of a mounted filesystem. Quick when there is nothing to do. */
export async function growMounted(device: string, mountpoint: string, type: FilesystemType): Promise<void> {
  if (type === 'ext4') await runTool('resize2fs', [device], { timeoutMs: growTimeoutMs });
  else await runTool('xfs_growfs', ['-d', mountpoint], { timeoutMs: growTimeoutMs });
}
