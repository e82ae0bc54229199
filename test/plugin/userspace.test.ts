import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { listLoops } from '../../plugin/loop-device.ts';
import { readMounts } from '../../plugin/mount-table.ts';
import { runTool } from '../../plugin/run-tool.ts';
import { UserspaceEngine } from '../../plugin/userspace.ts';
import { eventually } from './plugin-fixture.ts';

/** tgt, Debian's userspace target, with one LUN behind CHAP. */
class Target {
  readonly iqn = 'iqn.2026-11.test:lun';
  readonly file: string;
  port = 0;
  #control = 0;
  #child: ReturnType<typeof spawn> | null = null;

  constructor(directory: string) {
    this.file = join(directory, 'lun.img');
    writeFileSync(this.file, '');
    truncateSync(this.file, 64 * MiB);
  }

  async start(): Promise<void> {
    if (this.port === 0) {
      const probe = createServer().listen(0, '127.0.0.1');
      await once(probe, 'listening');
      this.port = (probe.address() as { port: number }).port;
      probe.close();
      this.#control = this.port % 32_000;
    }
    const control = String(this.#control);
    const args = ['-f', '-C', control, '--iscsi', `portal=127.0.0.1:${this.port}`];
    this.#child = spawn('tgtd', args, { stdio: 'ignore' });
    const admin = (...more: string[]) => runTool('tgtadm', ['-C', control, ...more]);
    await eventually('tgtd answers', () =>
      admin('--op', 'show', '--mode', 'sys').then(
        () => true,
        () => false,
      ),
    );
    const target = ['--lld', 'iscsi', '--mode', 'target', '--tid', '1'];
    await admin(...target, '--op', 'new', '-T', this.iqn);
    const lun = ['--lld', 'iscsi', '--mode', 'logicalunit', '--tid', '1', '--lun', '1'];
    await admin(...lun, '--op', 'new', '-b', this.file);
    await admin(
      '--lld',
      'iscsi',
      '--mode',
      'account',
      '--op',
      'new',
      '--user',
      'weft',
      '--password',
      'secretsecret',
    );
    await admin('--lld', 'iscsi', '--mode', 'account', '--op', 'bind', '--tid', '1', '--user', 'weft');
    await admin(...target, '--op', 'bind', '-I', 'ALL');
  }

  async kill(): Promise<void> {
    if (this.#child === null || this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
    this.#child = null;
  }
}

const directory = mkdtempSync(join(tmpdir(), 'weft-userspace-'));
const target = new Target(directory);
const engine = new UserspaceEngine(directory, 'Host_1', '0a1b2c3d');
const volumeId = 'a0e81a5c-8de7-4c5b-9d0a-1f2e3d4c5b6a';
const attachTarget = () => ({
  volumeId,
  iqn: target.iqn,
  lun: 1,
  // The first does not answer: one portal of many being gone must not matter.
  portals: ['127.0.0.1:1', `127.0.0.1:${target.port}`],
  chap: { user: 'weft', secret: 'secretsecret' },
  mutualChap: null,
});
const sha = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');

async function left(): Promise<string[]> {
  const loops = (await listLoops()).filter((loop) => loop.backingFile.startsWith(directory));
  const mounts = (await readMounts()).filter((mount) => mount.path.startsWith(directory));
  const files = await readdir(join(directory, 'attach'));
  return [...loops.map((loop) => loop.path), ...mounts.map((mount) => mount.path), ...files];
}

async function storageDaemonPid(): Promise<number> {
  const name = (await readdir(join(directory, 'attach'))).find((file) => file.endsWith('.pid'));
  return Number(readFileSync(join(directory, 'attach', name!), 'utf8'));
}

t.before(() => target.start());
t.teardown(async () => {
  await target.kill();
  rmSync(directory, { recursive: true, force: true });
});

t.test('the self-test passes here and leaves nothing', async (t) => {
  await engine.probe();
  t.same(await left(), []);
});

t.test('what is written to the device is on the LUN, and is there after attaching again', async (t) => {
  const content = randomBytes(64 * MiB);
  const device = await engine.attach(attachTarget());
  const file = await open(device.path, 'r+');
  await file.write(content, 0, content.length, 0);
  await file.sync();
  await file.close();
  t.same(await engine.find({ volumeId }), device);
  await engine.detach({ volumeId });
  t.same(await left(), []);
  const wanted = createHash('sha256').update(content).digest('hex');
  t.equal(sha(target.file), wanted);
  const again = await engine.attach(attachTarget());
  t.equal(sha(again.path), wanted);
  await engine.detach({ volumeId });
});

t.test('a wrong secret is refused, and leaves nothing', async (t) => {
  const wrong = { ...attachTarget(), chap: { user: 'weft', secret: 'wrongwrongwrong' } };
  await t.rejects(engine.attach(wrong), { code: 'UNAVAILABLE' });
  t.same(await left(), []);
});

t.test('a target that is to prove itself is not attached without the proof', async (t) => {
  const mutual = { ...attachTarget(), mutualChap: { user: 'target', secret: 'targetsecret' } };
  await t.rejects(engine.attach(mutual), {
    code: 'UNSUPPORTED',
    message: /WEFT_ATTACH=open-iscsi.*--mutual-chap none/,
  });
  t.same(await left(), []);
});

t.test('a write waits for a target that was killed, and then goes through', async (t) => {
  const device = await engine.attach(attachTarget());
  await target.kill();
  const file = await open(device.path, 'r+');
  await file.write(Buffer.alloc(MiB, 7), 0, MiB, 0);
  let done = false;
  const synced = file.sync().then(() => {
    done = true;
  });
  // Longer than a connection takes to fail, and than one round of reconnecting.
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  t.equal(done, false);
  await target.start();
  await synced;
  await file.close();
  await engine.detach({ volumeId });
  t.ok(readFileSync(target.file).subarray(0, MiB).equals(Buffer.alloc(MiB, 7)));
});

t.test('a loop device is found again when the kernel has forgotten the name of its file', async (t) => {
  const device = await engine.attach(attachTarget());
  process.kill(await storageDaemonPid(), 'SIGKILL');
  await eventually('it is noticed', async () => (await engine.find({ volumeId })) === null);
  // What the end of the plugin's container does to its mounts.
  for (const mount of await readMounts()) {
    if (mount.path.startsWith(directory)) await runTool('umount', ['--lazy', mount.path]);
  }
  const loop = (await listLoops()).find(({ path }) => path === device.path);
  t.notMatch(loop?.backingFile, volumeId);
  t.same(await engine.devices({ volumeId }), [device.path]);
  await engine.detach({ volumeId });
  t.notOk((await listLoops()).some(({ sequence }) => sequence === loop?.sequence));
  t.same(await left(), []);
});

t.test('a storage daemon that died is noticed, and what is left of it is taken away', async (t) => {
  await engine.attach(attachTarget());
  process.kill(await storageDaemonPid(), 'SIGKILL');
  await eventually('it is noticed', async () => (await engine.find({ volumeId })) === null);
  t.same(await engine.leftovers(), [{ volumeId, iqn: '' }]);
  await engine.detach({ volumeId });
  t.same(await left(), []);
  const device = await engine.attach(attachTarget());
  t.ok(readFileSync(device.path).subarray(0, MiB).equals(Buffer.alloc(MiB, 7)));
  await engine.detach({ volumeId });
});
