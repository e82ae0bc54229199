/** What ext4 and xfs both promise on a volume whose weftd is killed: the test of one, run for each. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Test } from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { eventually } from '../system/eventually.ts';
import { attachVolume } from './attached-volume.ts';
import { createVolume, startWeftd, temporaryDirectory } from './volume-rig.ts';

const sizeBytes = 512 * MiB;
const loadLimitMs = 30_000;
const toolLimitMs = 30_000;
const writerProgram = join(import.meta.dirname, 'fsync-writer.ts');

const tools = {
  ext4: { make: ['mkfs.ext4', '-q'], check: ['e2fsck', '-fn'] },
  xfs: { make: ['mkfs.xfs', '-q'], check: ['xfs_repair', '-n'] },
};

/** Files that were fsynced, by name. */
class Writer {
  readonly fsynced = new Map<string, string>();
  readonly #child: ChildProcess;

  constructor(t: Test, directory: string, prefix: string) {
    this.#child = spawn(process.execPath, [writerProgram, directory, prefix], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    t.teardown(() => this.#child.kill('SIGKILL'));
    let text = '';
    this.#child.stdout!.on('data', (data: Buffer) => {
      const lines = (text + data.toString()).split('\n');
      text = lines.pop()!;
      for (const line of lines) this.fsynced.set(line.slice(65), line.slice(0, 64));
    });
  }

  async end(): Promise<void> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }

  reaches(count: number): Promise<boolean> {
    return eventually(`${count} files are fsynced`, loadLimitMs, () => this.fsynced.size >= count, 20);
  }
}

export async function surviveCrashes(t: Test, type: keyof typeof tools): Promise<void> {
  const directory = await temporaryDirectory(t);
  const point = join(directory, 'mounted');
  await mkdir(point);
  const weftd = await startWeftd(t);
  await createVolume(weftd, { name: type, sizeBytes });
  const volume = await attachVolume(t, weftd, type, directory);
  const run = (command: string[], ...args: string[]) =>
    execa(command[0]!, [...command.slice(1), ...args], { timeout: toolLimitMs, stdin: 'ignore' });
  const { make, check } = tools[type];
  const promised = new Map<string, string>();

  const mount = () => run(['mount', '-t', type], volume.device, point);
  const umount = () => run(['umount'], point);
  const promisedFilesAreThere = async (when: string) => {
    let wrong = 0;
    for (const [name, sha256] of promised) {
      const data = await readFile(join(point, name)).catch(() => Buffer.alloc(0));
      if (createHash('sha256').update(data).digest('hex') !== sha256) wrong += 1;
    }
    t.equal(wrong, 0, `${when}: all of ${promised.size} fsynced files are as they were`);
  };
  const load = async (prefix: string, during: (writer: Writer) => Promise<void>) => {
    const writer = new Writer(t, point, prefix);
    await writer.reaches(15);
    await during(writer);
    await writer.end();
    for (const [name, sha256] of writer.fsynced) promised.set(name, sha256);
  };

  await run(make, volume.device);
  await mount();
  await load('a', async (writer) => {
    await weftd.kill9();
    const before = writer.fsynced.size;
    await weftd.startAgain();
    await writer.reaches(before + 10);
    t.pass('writers waited for weftd and went on');
  });
  await promisedFilesAreThere('after kill -9 below a mounted file system');
  await umount();
  await run(check, volume.device);
  t.pass(`${check.join(' ')} finds nothing`);

  await mount();
  await load('b', async () => {
    // The machine is cut off from its volume for good: what is dirty here is lost, as when it loses power.
    await weftd.kill9();
    await volume.cutOff();
  });
  await umount();
  await volume.detach();
  await weftd.startAgain();
  await volume.attach();
  await mount();
  await promisedFilesAreThere('after kill -9, detach and attach');
  await umount();
  await run(check, volume.device);
  t.pass(`${check.join(' ')} finds nothing after the replay`);
  await volume.detach();
}
