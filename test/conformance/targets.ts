/** The targets the suite is run against, each started for it alone and reached through two portals. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { VolumeCreate } from '../../daemon/api/schema.ts';
import { Initiator } from '../iscsi/initiator.ts';
import { eventually } from '../system/eventually.ts';
import { freePort, WeftdProcess } from '../system/weftd-process.ts';

/** Some tests want more than 2 GiB, some less than 1 TiB. */
const unitSizeBytes = 10 * 2 ** 30;
const startLimitMs = 60_000;

export type Urls = readonly [string, string];

export interface SuiteTarget {
  name: string;
  version: string;
  /** Units that differ in nothing: tests run beside each other, each lane on its own. */
  lanes: Urls[];
  stop(): Promise<void>;
}

export interface WeftTarget extends SuiteTarget {
  /** A unit write-protected by MODE SELECT. */
  readOnly: Urls;
  /** A unit whose physical block is its logical block. */
  smallBlocks: Urls;
}

export async function startWeft(laneCount: number): Promise<WeftTarget> {
  const portals = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const weftd = await WeftdProcess.start({ iscsi: portals.join(',') });
  const client = await weftd.client();
  const create = async (wanted: VolumeCreate): Promise<Urls> => {
    await client.createVolume({ sizeBytes: unitSizeBytes, chap: 'none', ...wanted });
    const { iqn, lun } = await client.attachment(wanted.name);
    const [first, second] = portals.map((portal) => `iscsi://${portal}/${iqn}/${lun}`);
    return [first!, second!];
  };
  const lanes: Urls[] = [];
  for (let lane = 0; lane < laneCount; lane += 1) lanes.push(await create({ name: `lane-${lane}` }));
  const readOnly = await create({ name: 'read-only' });
  await writeProtect(readOnly[0]);
  const smallBlocks = await create({ name: 'small-blocks', physicalBlockBytes: 512 });
  const { version } = await client.status();
  return { name: 'weft', version, lanes, readOnly, smallBlocks, stop: () => weftd.stop() };
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
export async function startTgt(laneCount: number): Promise<SuiteTarget> {
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
  const stop = async (): Promise<void> => {
    await endTgt(child, tgtadm, laneCount);
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await eventually('tgtd answers', startLimitMs, () => tgtadm('--op', 'show', '--mode', 'system'));
    const lanes: Urls[] = [];
    for (let tid = 1; tid <= laneCount; tid += 1) {
      const iqn = `iqn.2026-11.io.weft:tgt-${tid}`;
      const file = join(directory, `unit-${tid}`);
      const handle = await open(file, 'w');
      await handle.truncate(unitSizeBytes);
      await handle.close();
      const unit = ['--mode', 'logicalunit', '--tid', String(tid), '--lun', '1'];
      await tgtadm('--op', 'new', '--mode', 'target', '--tid', String(tid), '-T', iqn);
      await tgtadm('--op', 'new', ...unit, '-b', file);
      await tgtadm('--op', 'update', ...unit, '--params', 'thin_provisioning=1');
      await tgtadm('--op', 'bind', '--mode', 'target', '--tid', String(tid), '-I', 'ALL');
      const [first, second] = ports.map((port) => `iscsi://127.0.0.1:${port}/${iqn}/1`);
      lanes.push([first!, second!]);
    }
    const { stdout } = await execa('tgtd', ['--version']);
    return { name: 'tgt', version: stdout.trim(), lanes, stop };
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
