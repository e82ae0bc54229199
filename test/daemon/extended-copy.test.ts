/** Copies between volumes of a real weftd: what they cost, what they keep apart, what outlives what. */
import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { KiB, MiB } from '../../daemon/base/limits.ts';
import { Initiator } from '../iscsi/initiator.ts';
import {
  copyList,
  copyResultsCdb,
  extendedCopyCdb,
  identificationTarget,
  segmentDescriptor,
} from '../scsi/copy/copy-commands.ts';
import type { WeftdProcess } from '../system/weftd-process.ts';
import { createVolume, drained, startWeftd, temporaryDirectory } from './volume-rig.ts';

const sizeBytes = 512 * MiB;
/** A multiple of the chunk that a segment descriptor can say. */
const segmentBlocks = (16 * MiB) / 512;
/** Moving so much takes longer, on whatever machine; sharing it takes a small part of this. */
const copyLimitMs = 30_000;

const lunOf = (lun: number) => Buffer.from([0, lun, 0, 0, 0, 0, 0, 0]);

class Session {
  readonly #initiator: Initiator;

  constructor(initiator: Initiator) {
    this.#initiator = initiator;
  }

  static async login(
    weftd: WeftdProcess,
    iqn: string,
    chap: { user: string; secret: string } | null = null,
  ): Promise<Session> {
    const initiator = await Initiator.connect(Number(weftd.portal.split(':').at(-1)));
    const status = await initiator.login(iqn, chap === null ? {} : { chap });
    if (status !== 0) throw new Error(`the login was refused: ${status}`);
    return new Session(initiator);
  }

  async read(cdb: Buffer, lun = 0): Promise<Buffer> {
    const itt = this.#initiator.command(cdb, { read: 4096, lun: lunOf(lun) });
    return (await this.#initiator.collect(itt)).data;
  }

  /** The NAA designator of a unit, as an initiator finds it in VPD page 83h. */
  async target(lun = 0): Promise<Buffer> {
    const page = await this.read(Buffer.from('12018310000000000000000000000000', 'hex'), lun);
    for (let at = 4; at < page.length; at += 4 + page[at + 3]!) {
      const identifier = page.subarray(at + 4, at + 4 + page[at + 3]!);
      if ((page[at + 1]! & 0x3f) === 0x03) return identificationTarget(page[at]! & 0x0f, 0x03, identifier);
    }
    throw new Error('no NAA designator');
  }

  /** 'GOOD', or the sense key and codes in hexadecimal. */
  async copy(targets: Buffer[], segments: Buffer[], lun = 0): Promise<string> {
    const list = copyList(targets, segments);
    const cdb = extendedCopyCdb(list.length);
    const itt = this.#initiator.command(cdb, { write: list.length, data: list, lun: lunOf(lun) });
    const { status, data } = await this.#end(itt);
    if (status === 0) return 'GOOD';
    // The sense data comes behind its length.
    return [data[4]! & 0x0f, data[14]!, data[15]!].map((byte) => byte.toString(16)).join('/');
  }

  async #end(itt: number): Promise<{ status: number; data: Buffer }> {
    for (;;) {
      const pdu = await this.#initiator.next();
      if (pdu === null) throw new Error('the target closed the connection');
      if (pdu.itt === itt && pdu.opcode === 0x21) return { status: pdu.header[3]!, data: pdu.data };
    }
  }

  close(): void {
    this.#initiator.close();
  }
}

/** Segments that cover the range from the source's beginning to the destination's. */
function wholeRange(): Buffer[] {
  const count = sizeBytes / 512 / segmentBlocks;
  return Array.from({ length: count }, (_, index) => {
    const from = index * segmentBlocks;
    return segmentDescriptor({ source: 0, target: 1, from, to: from, blocks: segmentBlocks });
  });
}

async function randomFile(path: string): Promise<void> {
  const file = await open(path, 'w');
  for (let at = 0; at < sizeBytes; at += 16 * MiB) await file.write(randomBytes(16 * MiB), 0, 16 * MiB, at);
  await file.close();
}

const put = (path: string, url: string) =>
  execa('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', path, url]);
/** Whether the file and the volume are the same; else where they differ first. */
async function compare(path: string, url: string): Promise<string> {
  const { stdout } = await execa('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', path, url], {
    reject: false,
  });
  return stdout.trim();
}
const same = 'Images are identical.';
/** A pattern that is not there makes it fail, and say so. */
const io = (url: string, ...commands: string[]) =>
  execa('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), url], { reject: false });

t.test('a copy of 512 MiB takes little time and no room, and is a volume of its own', async (t) => {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'data');
  await randomFile(path);
  const weftd = await startWeftd(t);
  const client = await weftd.client();
  const urls: string[] = [];
  for (const name of ['source', 'copy']) {
    urls.push(await createVolume(weftd, { name, sizeBytes, chap: 'none', group: 'two' }));
  }
  const [source, copy] = urls as [string, string];
  await put(path, source);
  await drained(weftd);
  const before = await client.status();
  const { iqn } = await client.volume('source');
  const session = await Session.login(weftd, iqn);
  const targets = [await session.target(0), await session.target(1)];
  const startedMs = performance.now();
  t.equal(await session.copy(targets, wholeRange()), 'GOOD');
  const tookMs = performance.now() - startedMs;
  t.comment(`copied ${sizeBytes / MiB} MiB in ${Math.round(tookMs)} ms`);
  t.ok(tookMs < copyLimitMs, `${Math.round(tookMs)} ms`);
  const status = await session.read(copyResultsCdb(0x00, 1));
  t.equal(status.readUInt32BE(8), sizeBytes, 'COPY STATUS counts the bytes');
  session.close();
  // Right after the answer.
  await weftd.kill9();
  await weftd.startAgain();
  const after = await client.status();
  t.ok(after.capacity.usedBytes - before.capacity.usedBytes < 2 * MiB, 'nothing was stored');
  t.equal((await client.volume('copy')).usedBytes, sizeBytes, 'the copy counts for its volume');
  t.equal(await compare(path, copy), same, 'killed right after the answer');

  await io(source, 'write -P 1 0 1M', 'flush');
  await io(copy, `write -P 2 ${256 * MiB} 64k`, 'flush');
  const read = async (url: string, command: string) => (await io(url, command)).stdout;
  t.notMatch(await read(source, 'read -P 1 0 1M'), /verification failed/i);
  t.match(await read(copy, 'read -P 1 0 4k'), /verification failed/i, 'a write to the source stays there');
  t.notMatch(await read(copy, `read -P 2 ${256 * MiB} 64k`), /verification failed/i);
  t.match(await read(source, `read -P 2 ${256 * MiB} 4k`), /verification failed/i, 'one to the copy too');

  await client.removeVolume('source', { purge: true, force: true });
  await drained(weftd);
  const file = await open(path, 'r+');
  await file.write(Buffer.alloc(64 * KiB, 2), 0, 64 * KiB, 256 * MiB);
  await file.close();
  t.equal(await compare(path, copy), same, 'the copy outlives its source');
});

t.test('an initiator copies only what it may log in to', async (t) => {
  const weftd = await startWeftd(t);
  const client = await weftd.client();
  const volume = async (name: string, more: object) => {
    await createVolume(weftd, { name, sizeBytes: 16 * MiB, ...more });
    return (await client.volume(name)).iqn;
  };
  const own = await volume('own', { chap: 'none' });
  const free = await volume('free', { chap: 'none' });
  const secret = await volume('secret', {});
  const claimed = await volume('claimed', { chap: 'none' });
  const { chap } = await client.attachment('secret');
  const targetOf = async (iqn: string, credentials: typeof chap = null) => {
    const session = await Session.login(weftd, iqn, credentials);
    const target = await session.target();
    session.close();
    return target;
  };
  const others = {
    free: await targetOf(free),
    secret: await targetOf(secret, chap),
    claimed: await targetOf(claimed),
  };
  await client.claimVolume('claimed', { holder: 'b', initiator: 'iqn.2026-11.test:b', ttlSeconds: 60 });
  const session = await Session.login(weftd, own);
  const target = await session.target();
  const segment = segmentDescriptor({ source: 0, target: 1, from: 0, to: 0, blocks: 64 });
  t.equal(await session.copy([target, others.free], [segment]), 'GOOD');
  t.equal(await session.copy([others.free, target], [segment]), 'GOOD');
  for (const name of ['secret', 'claimed'] as const) {
    t.equal(await session.copy([target, others[name]], [segment]), 'a/d/2', `to ${name}`);
    t.equal(await session.copy([others[name], target], [segment]), 'a/d/2', `from ${name}`);
  }
  session.close();
});
