/** The daemon that is fuzzed: a process of its own with small volumes, and what can be seen of it from outside. */
import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { WeftClient } from '../../daemon/api/client.ts';
import { KiB, MiB } from '../../daemon/base/limits.ts';
import { Initiator } from '../iscsi/initiator.ts';
import { inquiryCdb, readCdb, writeCdb } from '../iscsi/memory-device.ts';
import { eventually } from '../system/eventually.ts';
import { WeftdProcess } from '../system/weftd-process.ts';
import type { Aims } from './conversation-generator.ts';
import { HealthySession } from './healthy-session.ts';
import type { Addressee } from './login-text.ts';

const volumeBytes = 16 * MiB;
const healthyBytes = 64 * MiB;
const journalBytes = 128 * MiB;
/** By volume: whether it demands CHAP. */
const chap = [false, false, false, true, true, false];
export const aims: Aims = { chap, blockCount: volumeBytes / 512 };

/** A probe after a batch has to be answered in this time, and everything of the batch to be gone. */
const probeLimitMs = 30_000;

/**
 * What the data directory may take once it is drained: the journal; for each volume its data twice, as segments are
 * compacted when half of them is dead, and once more on the way; the segments that are open; the maps.
 */
const mostDataBytes = journalBytes + 3 * (chap.length * volumeBytes + healthyBytes) + 4 * 64 * MiB + 64 * MiB;

export interface Vitals {
  rssBytes: number;
  sockets: number;
  sessions: number;
}

export class WeftdUnderTest {
  readonly addressee: Addressee;
  readonly healthy: HealthySession;
  readonly pid: number;
  readonly #process: WeftdProcess;
  readonly #client: WeftClient;
  /** Of logs read so far. */
  #readBytes = 0;
  #idleSockets = 0;

  private constructor(
    process: WeftdProcess,
    client: WeftClient,
    addressee: Addressee,
    healthy: HealthySession,
  ) {
    this.#process = process;
    this.#client = client;
    this.addressee = addressee;
    this.healthy = healthy;
    this.pid = process.pid!;
  }

  static async start(): Promise<WeftdUnderTest> {
    const flags = ['--journal-capacity', String(journalBytes), '--journal-file-size', '16m'];
    // It fills only slowly, and would hide what grows.
    flags.push('--cache-size', '8m');
    const process = await WeftdProcess.start({ flags });
    try {
      const client = await process.client();
      const port = Number(process.portal.split(':').at(-1));
      const addressee: Addressee = { port, targets: [] };
      for (const [index, isProtected] of chap.entries()) {
        const volume = { name: `fuzzed-${index}`, sizeBytes: volumeBytes };
        await client.createVolume({ ...volume, chap: isProtected ? 'auto' : 'none' });
        const { iqn, chap } = await client.attachment(volume.name);
        addressee.targets.push({ iqn, chap, designator: await designatorOf(port, iqn, chap) });
      }
      await client.createVolume({ name: 'healthy', sizeBytes: healthyBytes });
      const { iqn, chap: credentials } = await client.attachment('healthy');
      const healthy = new HealthySession({
        ...{ port, iqn, chap: credentials, sizeBytes: healthyBytes },
        ...{ seed: 1, pauseMs: 2 },
      });
      await eventually(
        'the healthy session works',
        probeLimitMs,
        async () => (await healthy.report()).operations > 0,
      );
      const weftd = new WeftdUnderTest(process, client, addressee, healthy);
      weftd.#idleSockets = await weftd.#socketCount();
      return weftd;
    } catch (error) {
      await process.kill9();
      await process.stop();
      throw error;
    }
  }

  get isAlive(): boolean {
    return this.#process.pid === this.pid;
  }

  /** Its last words. */
  lastWords(): Promise<string> {
    return this.#process.log(15);
  }

  async vitals(): Promise<Vitals> {
    const status = await readFile(`/proc/${this.pid}/status`, 'utf8');
    const rssBytes = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * KiB;
    const { volumes } = await this.#client.status();
    return { rssBytes, sockets: await this.#socketCount(), sessions: volumes.sessions };
  }

  /** What is wrong with it, or null: dead, complaining, deaf, or keeping what it should have let go. */
  async complaint(): Promise<string | null> {
    if (!this.isAlive) return 'weftd died';
    const words = await this.#badWords();
    if (words !== null) return `weftd logged: ${words}`;
    const { complaint } = await this.healthy.report();
    if (complaint !== null) return `the healthy session: ${complaint}`;
    try {
      await eventually('only the healthy session is left', probeLimitMs, async () => {
        const { sessions, sockets } = await this.vitals();
        return sessions === 1 && sockets <= this.#idleSockets;
      });
      for (const target of this.addressee.targets) await probe(this.addressee.port, target);
    } catch (error) {
      return (error as Error).message;
    }
    return null;
  }

  /** Drains it and says whether it takes more of the disk than its volumes can explain. */
  async fileGrowth(): Promise<{ bytes: number; complaint: string | null }> {
    await eventually('the journal is drained', 2 * probeLimitMs, async () => {
      return (await this.#client.status()).journal.usedBytes <= 64 * KiB;
    });
    let bytes = 0;
    for (const entry of await readdir(this.#process.data, { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).blocks * 512;
    }
    const isMore = bytes > mostDataBytes;
    return { bytes, complaint: isMore ? `the data directory has grown to ${bytes} bytes` : null };
  }

  async stop(): Promise<void> {
    await this.healthy.end();
    await this.#process.kill9();
    await this.#process.stop();
  }

  async #socketCount(): Promise<number> {
    const directory = `/proc/${this.pid}/fd`;
    const links = (await readdir(directory)).map((fd) => readlink(join(directory, fd)).catch(() => ''));
    return (await Promise.all(links)).filter((link) => link.startsWith('socket:')).length;
  }

  /** A line that is no log line (a stack, a warning of Node's), or one that is an error. */
  async #badWords(): Promise<string | null> {
    const log = await readFile(join(this.#process.directory, 'log'), 'utf8');
    const fresh = log.slice(this.#readBytes).split('\n');
    // The last line may not be whole yet.
    this.#readBytes = log.length - (fresh.pop() ?? '').length;
    return fresh.find((line) => line !== '' && !/^\{"level":[1-4]0,/.test(line)) ?? null;
  }
}

/** LOGICAL UNIT RESET (RFC 7143 §11.5.1): answered when nothing runs in the unit any more. */
async function resetUnit(initiator: Initiator): Promise<void> {
  const itt = initiator.itt();
  initiator.send({ opcode: 0x02, immediate: true, flags: 0x85, itt, words: { 20: 0xffff_ffff } });
  const answer = await initiator.next();
  if (answer?.opcode !== 0x22 || answer.itt !== itt || answer.header[2] !== 0) {
    throw new Error(`a logical unit reset was answered with ${answer?.header.toString('hex')}`);
  }
}

/** Logs in like anybody, takes back what the batch has set, and writes and reads. */
async function probe(port: number, target: Addressee['targets'][number]): Promise<void> {
  const signal = AbortSignal.timeout(probeLimitMs);
  const initiator = await Initiator.connect(port);
  const cut = () => initiator.close();
  signal.addEventListener('abort', cut);
  try {
    initiator.name = 'iqn.2026-11.test:probe';
    const status = await initiator.login(target.iqn, target.chap === null ? {} : { chap: target.chap });
    if (status !== 0) throw new Error(`the login ended with ${status.toString(16)}`);
    const run = (cdb: Buffer, more = {}) => initiator.collect(initiator.command(cdb, more));
    // Commands of sessions that are gone may still run in the device: any of them may write where this one does.
    await resetUnit(initiator);
    const tested = Buffer.alloc(16);
    for (let attempt = 0; attempt < 20 && (await run(tested)).status === 2; attempt++);
    await reservationsGone(run);
    // MODE SELECT(6), control page: no write protection, fixed sense.
    const page = Buffer.from('000000000a0a00100000000000ffff00', 'hex');
    await run(cdbOf('15100000', 4, 16), { write: page.length, data: page });
    const data = Buffer.alloc(4 * KiB, 0x5a);
    const written = await run(writeCdb(0, 8), { write: data.length, data });
    if (written.status !== 0) throw new Error(`a write ended with status ${written.status}`);
    const back = await run(readCdb(0, 8), { read: data.length });
    if (back.status !== 0) throw new Error(`a read ended with status ${back.status}`);
    if (!back.data.equals(data)) {
      const at = back.data.findIndex((byte) => byte !== 0x5a);
      throw new Error(
        `a read has not what was written, from byte ${at} on: ${back.data.toString('hex', at, at + 32)}`,
      );
    }
  } catch (error) {
    const why = signal.aborted ? `no answer within ${probeLimitMs / 1000} s` : (error as Error).message;
    throw new Error(`a well-behaved initiator at ${target.iqn}: ${why}`);
  } finally {
    signal.removeEventListener('abort', cut);
    initiator.close();
  }
}

/** REGISTER AND IGNORE EXISTING KEY, then CLEAR with that key (SPC-4 6.16.2). */
async function reservationsGone(run: (cdb: Buffer, more: object) => Promise<unknown>): Promise<void> {
  const list = Buffer.alloc(24);
  list.writeBigUInt64BE(0x77n, 8);
  await run(cdbOf('5f060000', 8, 24), { write: 24, data: list });
  const clear = Buffer.alloc(24);
  clear.writeBigUInt64BE(0x77n, 0);
  await run(cdbOf('5f030000', 8, 24), { write: 24, data: clear });
}

function cdbOf(start: string, lengthAt: number, length: number): Buffer {
  const cdb = Buffer.alloc(16);
  cdb.write(start, 'hex');
  cdb[lengthAt] = length;
  return cdb;
}

/** The NAA designator of the logical unit (SPC-4 7.8.6), for EXTENDED COPY to name it by. */
async function designatorOf(
  port: number,
  iqn: string,
  chap: { user: string; secret: string } | null,
): Promise<Buffer> {
  const initiator = await Initiator.connect(port);
  await initiator.login(iqn, chap === null ? {} : { chap });
  const cdb = inquiryCdb(252);
  cdb[1] = 0x01;
  cdb[2] = 0x83;
  const { data } = await initiator.collect(initiator.command(cdb, { read: 252 }));
  initiator.close();
  for (let at = 4; at + 4 <= data.length; at += 4 + data[at + 3]!) {
    if ((data[at + 1]! & 0x3f) === 0x03) return data.subarray(at + 4, at + 4 + data[at + 3]!);
  }
  return Buffer.alloc(16);
}
