/**
 * The targets the suite is run against, each started for it alone and reached through two portals. Every test gets a
 * logical unit that nobody has used before: some tests want blocks to be zero that they did not write.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { Initiator } from '../iscsi/initiator.ts';
import { eventually } from '../system/eventually.ts';
import { freePort, WeftdProcess } from '../system/weftd-process.ts';

/** Less than READ(6) can address, 1 GiB: else the tests of what is beyond the end are skipped without a word. */
const unitSizeBytes = 2 ** 29;
const startLimitMs = 60_000;

/** - small-blocks: the physical block is the logical one. */
export type UnitKind = 'plain' | 'read-only' | 'small-blocks';

/** The same unit through each portal: `iscsi://HOST:PORT/IQN/LUN`. */
export type Urls = readonly [string, string];

export interface SuiteTarget {
  name: string;
  version: string;
  /** A unit of its own for a test. */
  newUnit(kind: UnitKind): Promise<Urls>;
  stop(): Promise<void>;
}

export async function startWeft(): Promise<SuiteTarget> {
  const portals = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const weftd = await WeftdProcess.start({ iscsi: portals.join(',') });
  const client = await weftd.client();
  const { version } = await client.status();
  let units = 0;
  const newUnit = async (kind: UnitKind): Promise<Urls> => {
    units += 1;
    const name = `unit-${units}`;
    const physicalBlockBytes = kind === 'small-blocks' ? 512 : 4096;
    await client.createVolume({ name, sizeBytes: unitSizeBytes, chap: 'none', physicalBlockBytes });
    const { iqn, lun } = await client.attachment(name);
    const [first, second] = portals.map((portal) => `iscsi://${portal}/${iqn}/${lun}`);
    if (kind === 'read-only') await writeProtect(first!);
    return [first!, second!];
  };
  // Not asked to drain what nobody will read.
  const stop = async (): Promise<void> => {
    await weftd.kill9();
    await weftd.stop();
  };
  return { name: 'weft', version, newUnit, stop };
}

/** Sets SWP in the control mode page (0Ah), and leaves everything else as it is. */
async function writeProtect(url: string): Promise<void> {
  const { port, pathname } = new URL(url);
  const initiator = await Initiator.connect(Number(port));
  const status = await initiator.login(pathname.split('/')[1]!);
  if (status !== 0) throw new Error(`login status ${status.toString(16)}`);
  const cdb = (hex: string): Buffer => Buffer.concat([Buffer.from(hex, 'hex')], 16);
  const sensed = await initiator.collect(initiator.command(cdb('1a080a00ff00'), { read: 255 }));
  const list = Buffer.concat([Buffer.alloc(4), sensed.data.subarray(4)]);
  list[4]! &= 0x7f; // PS is reserved here
  list[4 + 4]! |= 0x08;
  const selecting = initiator.command(cdb(`15100000${list.length.toString(16).padStart(2, '0')}00`), {
    write: list.length,
    data: list,
  });
  const selected = await initiator.collect(selecting);
  initiator.close();
  if (selected.status !== 0) throw new Error(`MODE SELECT ended with status ${selected.status}`);
}

/** Debian's tgtd on sparse files, thin. Its LUN 0 is a controller. */
export async function startTgt(): Promise<SuiteTarget> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-tgt-'));
  const ports = [await freePort(), await freePort()];
  // Any number but 0, which is the system's own tgtd.
  const control = String(10_000 + (process.pid % 20_000));
  const tgtadm = (...args: string[]) => execa('tgtadm', ['-C', control, '--lld', 'iscsi', ...args]);
  const log = await open(join(directory, 'log'), 'w');
  const portals = ports.map((port) => `portal=127.0.0.1:${port}`).join(',');
  const child = spawn('tgtd', ['-f', '-C', control, '--iscsi', portals], {
    stdio: ['ignore', log.fd, log.fd],
  });
  await log.close();
  let units = 0;
  const newUnit = async (kind: UnitKind): Promise<Urls> => {
    units += 1;
    const tid = String(units);
    const iqn = `iqn.2026-11.io.weft:tgt-${tid}`;
    const file = join(directory, `unit-${tid}`);
    const handle = await open(file, 'w');
    await handle.truncate(unitSizeBytes);
    await handle.close();
    const unit = ['--mode', 'logicalunit', '--tid', tid, '--lun', '1'];
    const more = { plain: '', 'read-only': ',readonly=1', 'small-blocks': ',lbppbe=0' }[kind];
    await tgtadm('--op', 'new', '--mode', 'target', '--tid', tid, '-T', iqn);
    await tgtadm('--op', 'new', ...unit, '-b', file);
    await tgtadm('--op', 'update', ...unit, '--params', `thin_provisioning=1${more}`);
    await tgtadm('--op', 'bind', '--mode', 'target', '--tid', tid, '-I', 'ALL');
    const [first, second] = ports.map((port) => `iscsi://127.0.0.1:${port}/${iqn}/1`);
    return [first!, second!];
  };
  const stop = async (): Promise<void> => {
    await endTgt(child, tgtadm, units);
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await eventually('tgtd answers', startLimitMs, () => tgtadm('--op', 'show', '--mode', 'system'));
    const { stdout } = await execa('tgtd', ['--version']);
    return { name: 'tgt', version: stdout.trim(), newUnit, stop };
  } catch (error) {
    const said = await readFile(join(directory, 'log'), 'utf8').catch(() => '');
    await stop();
    throw new Error(`tgtd does not serve: ${said.slice(-1000)}`, { cause: error });
  }
}

/** SIGTERM does not end tgtd; its own command does, when no target is left. */
async function endTgt(
  child: ChildProcess,
  tgtadm: (...args: string[]) => PromiseLike<unknown>,
  targetCount: number,
): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  try {
    for (let tid = 1; tid <= targetCount; tid += 1)
      await tgtadm('--op', 'delete', '--mode', 'target', '--tid', String(tid), '--force');
    await tgtadm('--op', 'delete', '--mode', 'system');
  } catch {
    child.kill('SIGKILL');
  }
  await ended;
}
