/**
 * Whether what is written to a loop device over QEMU's FUSE export arrives where it should. It does not with every
 * combination of kernel, QEMU and loop settings (with --direct-io=on, QEMU 7.2 puts blocks in the wrong place), and a
 * combination that nobody has met is better found out on a file of ours than on somebody's volume.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { WeftError } from '../daemon/base/errors.ts';
import { KiB, MiB } from '../daemon/base/limits.ts';
import { StorageDaemon } from './storage-daemon.ts';

const testSizeBytes = 16 * MiB;
/** Mixed, unaligned to each other, and many at once: what showed the misplaced blocks. */
const writeSizesBytes = [4 * KiB, 64 * KiB, 12 * KiB, 128 * KiB, 512];
const writesAtOnce = 16;

/** @throws WeftError UNSUPPORTED when a byte is not where it was written. */
export async function testUserspacePath(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  // Of a test that was killed.
  for (const file of await readdir(directory)) {
    if (/^self-test\..*\.raw$/.test(file)) await unlink(join(directory, file));
  }
  const name = `self-test.${randomBytes(6).toString('hex')}`;
  const backingFile = join(directory, `${name}.raw`);
  await writeFile(backingFile, Buffer.alloc(testSizeBytes), { mode: 0o600 });
  const daemon = new StorageDaemon(directory, name);
  try {
    await daemon.start({ driver: 'file', filename: backingFile }, null);
    const content = randomBytes(testSizeBytes);
    await writeEverywhere(await daemon.attachLoop(), content);
    await daemon.end();
    if (!content.equals(await readFile(backingFile))) {
      throw new WeftError(
        'UNSUPPORTED',
        "data written through QEMU's FUSE export and a loop device came out different; this kernel and QEMU must not be used",
      );
    }
  } finally {
    await daemon.end();
    await unlink(backingFile);
  }
}

async function writeEverywhere(device: string, content: Buffer): Promise<void> {
  const pieces: [number, number][] = [];
  for (let start = 0; start < content.length; ) {
    const length = Math.min(writeSizesBytes[pieces.length % writeSizesBytes.length]!, content.length - start);
    pieces.push([start, length]);
    start += length;
  }
  // Every second one in the first round: the later ones fall between.
  const order = [
    ...pieces.filter((_, index) => index % 2 === 0),
    ...pieces.filter((_, index) => index % 2 === 1),
  ];
  const file = await open(device, 'r+');
  try {
    for (let first = 0; first < order.length; first += writesAtOnce) {
      const batch = order.slice(first, first + writesAtOnce);
      await Promise.all(batch.map(([start, length]) => file.write(content, start, length, start)));
    }
    await file.sync();
  } finally {
    await file.close();
  }
}
