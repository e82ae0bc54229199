/** weftd on a file system of its own that is soon full, with two volumes on it and all that was acknowledged known. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Test } from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { eventually } from '../system/eventually.ts';
import type { WeftdProcess } from '../system/weftd-process.ts';
import { BlockLedger, compileLedger } from './block-ledger.ts';
import { createVolume, startWeftd, temporaryDirectory } from './volume-rig.ts';

const volumeBytes = 512 * MiB;
const otherBytes = 48 * MiB;
const blockCount = volumeBytes / 4096;
/** Of one write of `fill`. */
const fillBlocks = 64;
/** Longer than weftd's own interval. */
const lookAgainMs = 600;
const fillLimitMs = 30_000;
const smallJournal = ['--journal-capacity', '64m', '--journal-file-size', '16m'];
/** DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT (SPC-4 table F.2). */
const spaceAllocationFailed = [0x7, 0x27, 0x07];

export interface FullStore {
  weftd: WeftdProcess;
  /** The mount point of the small file system. */
  point: string;
  /** Everything that was acknowledged is read, on both volumes. */
  verify(when: string): Promise<void>;
  /** Writes until nothing more is taken, which has to be told by the right sense, and verifies. Answers with how much fitted, in bytes. */
  fillUp(when: string): Promise<number>;
  /** One write of 256 KiB, behind what has been written. Answers whether it was taken. */
  tryToWrite(): Promise<boolean>;
  /** Unmaps the first half of what has been written; answers with its size in bytes. */
  unmapHalf(): Promise<number>;
}

/** @param room what is made of a new file system before weftd starts on it. */
export async function startOnSmallFileSystem(
  t: Test,
  sizeMiB: number,
  room: (point: string) => Promise<void> = async () => {},
): Promise<FullStore> {
  const directory = await temporaryDirectory(t);
  const point = await smallFileSystem(t, directory, sizeMiB);
  await room(point);
  const program = await compileLedger(directory);
  const weftd = await startWeftd(t, { data: join(point, 'data'), flags: smallJournal });
  const url = await createVolume(weftd, { name: 'full', sizeBytes: volumeBytes });
  const ledger = await BlockLedger.create(t, program, join(directory, 'full'), blockCount);
  const otherUrl = await createVolume(weftd, { name: 'other', sizeBytes: otherBytes });
  const other = await BlockLedger.create(t, program, join(directory, 'other'), otherBytes / 4096);
  t.equal((await other.fill(otherUrl)).outcome, 'done');
  const otherRemoved = async () =>
    (await (await weftd.client()).volumes()).every(({ name }) => name !== 'other');
  let next = 0;

  const verify = async (when: string) => {
    const checks = [await ledger.verify(url, 0, Math.min(next + 4096, blockCount))];
    if (!(await otherRemoved())) checks.push(await other.verify(otherUrl));
    for (const { outcome, complaint } of checks) {
      t.equal(outcome, 'done', `${when}: all that was acknowledged is read: ${complaint}`);
    }
  };
  let lastSense: number[] = [];
  const fillOnce = async () => {
    const from = next;
    const run = await ledger.fill(url, next, blockCount - next);
    if (run.outcome !== 'refused') throw new Error(`${run.outcome} ${run.complaint}`);
    lastSense = run.sense;
    next += run.commands * fillBlocks;
    // Settles what became of the writes that were refused.
    const check = await ledger.verify(url, from, Math.min(next - from + 4096, blockCount - from));
    if (check.outcome !== 'done') throw new Error(check.complaint);
    return run.commands === 0;
  };
  return {
    weftd,
    point,
    verify,
    async fillUp(when) {
      const from = next;
      // The free space is looked at now and then: a refusal may come a little early, and a little more fits later.
      await eventually(`${when}: nothing more fits`, fillLimitMs, fillOnce, lookAgainMs);
      t.same(lastSense, spaceAllocationFailed, `${when}: SPACE ALLOCATION FAILED WRITE PROTECT`);
      await verify(when);
      return (next - from) * 4096;
    },
    async tryToWrite() {
      const run = await ledger.fill(url, next, fillBlocks);
      // Settles what became of it when it was refused.
      t.match(await ledger.verify(url, next, fillBlocks), { outcome: 'done' });
      return run.outcome === 'done';
    },
    async unmapHalf() {
      const half = Math.floor(next / 2);
      t.match(await ledger.unmap(url, 0, half), { outcome: 'done' }, 'UNMAP works while it is full');
      return half * 4096;
    },
  };
}

async function smallFileSystem(t: Test, directory: string, sizeMiB: number): Promise<string> {
  const image = join(directory, 'store.img');
  const point = join(directory, 'store');
  await mkdir(point);
  await execa('truncate', ['-s', `${sizeMiB}M`, image]);
  await execa('mkfs.ext4', ['-q', '-F', '-m', '0', '-E', 'lazy_itable_init=1,nodiscard', image]);
  await execa('mount', ['-o', 'loop', image, point]);
  t.teardown(() => execa('umount', [point]));
  return point;
}
