/**
 * Writes files in a directory, several at a time, each fsynced together with its name in the directory, and says so
 * on stdout: "SHA256 NAME", a line each. Runs until it is killed or a write fails. A process of its own, because what
 * waits for a device that does not answer cannot be interrupted.
 *
 *   node fsync-writer.ts DIRECTORY PREFIX
 */
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

const [directory, prefix] = process.argv.slice(2) as [string, string];
const writers = 3;
const maxFileBytes = 300_000;
/** The file system is not to be filled. */
const maxFiles = 600;
let next = 0;

async function writeFiles(): Promise<void> {
  while (next < maxFiles) {
    const name = `${prefix}-${next++}`;
    const data = randomBytes(randomInt(1, maxFileBytes));
    const file = await open(join(directory, name), 'wx');
    await file.writeFile(data);
    await file.sync();
    await file.close();
    const parent = await open(directory, 'r');
    await parent.sync();
    await parent.close();
    process.stdout.write(`${createHash('sha256').update(data).digest('hex')} ${name}\n`);
  }
}

await Promise.all(Array.from({ length: writers }, writeFiles));
