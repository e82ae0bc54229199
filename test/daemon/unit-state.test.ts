/** What a logical unit keeps is there after weftd was killed right behind the answer: reservations, mode parameters. */
import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import t, { type Test } from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { Initiator } from '../iscsi/initiator.ts';
import { freePort, type WeftdProcess } from '../system/weftd-process.ts';
import { createVolume, startWeftd } from './volume-rig.ts';

const kills = 3;
const aptpl = 0x01;
const allPorts = 0x04;
const type = { exclusiveAccess: 3, writeExclusiveRegistrantsOnly: 5 };
const action = { register: 0, reserve: 1, preempt: 4, registerIgnoring: 6 };

async function volume(weftd: WeftdProcess, name: string): Promise<string> {
  await createVolume(weftd, { name, sizeBytes: 16 * MiB, chap: 'none' });
  return (await (await weftd.client()).attachment(name)).iqn;
}

/** A nexus of the host of that name with a target port, counted from 1. */
async function login(t: Test, weftd: WeftdProcess, iqn: string, host: string, port = 1): Promise<Initiator> {
  const portal = weftd.portal.split(',')[port - 1];
  const initiator = await Initiator.connect(Number(portal?.split(':').at(-1)));
  t.teardown(() => initiator.close());
  initiator.name = `iqn.2026-01.test:${host}`;
  const status = await initiator.login(iqn);
  if (status !== 0) throw new Error(`login status ${status.toString(16)}`);
  return initiator;
}

/** 'GOOD', 'CONFLICT', or the sense data as key/asc/ascq. */
async function run(
  from: Initiator,
  cdb: string | Buffer,
  transfer: { read?: number; write?: number; data?: Buffer } = {},
): Promise<{ outcome: string; data: Buffer }> {
  const bytes = typeof cdb === 'string' ? Buffer.from(cdb.replaceAll(' ', ''), 'hex') : cdb;
  const itt = from.command(Buffer.concat([bytes], 16), transfer);
  const parts: Buffer[] = [];
  for (;;) {
    const pdu = await from.next();
    if (pdu === null) return { outcome: 'LOST', data: Buffer.alloc(0) };
    if (pdu.itt !== itt) continue;
    if (pdu.opcode === 0x25) parts.push(pdu.data);
    if (pdu.opcode !== 0x21 && (pdu.flags & 1) === 0) continue;
    const status = pdu.header[3];
    const data = Buffer.concat(parts);
    if (status === 0x00) return { outcome: 'GOOD', data };
    if (status === 0x18) return { outcome: 'CONFLICT', data };
    const sense = pdu.data.subarray(2);
    const codes = sense[0]! & 0x02 ? [sense[1]!, sense[2]!, sense[3]!] : [sense[2]!, sense[12]!, sense[13]!];
    return { outcome: codes.map((code) => code.toString(16).padStart(2, '0')).join('/'), data };
  }
}

async function out(
  from: Initiator,
  service: number,
  kind: number,
  key: bigint,
  actionKey = 0n,
  flags = 0,
): Promise<string> {
  const list = Buffer.alloc(24);
  list.writeBigUInt64BE(key, 0);
  list.writeBigUInt64BE(actionKey, 8);
  list[20] = flags;
  const cdb = Buffer.from([0x5f, service, kind, 0, 0, 0, 0, 0, 24, 0]);
  return (await run(from, cdb, { write: 24, data: list })).outcome;
}

async function keys(from: Initiator): Promise<bigint[]> {
  const { data } = await run(from, '5e 00 00 00 00 00 00 04 00', { read: 1024 });
  return Array.from({ length: (data.length - 8) / 8 }, (_, index) => data.readBigUInt64BE(8 + index * 8));
}

/** The relative target port of each registration. */
async function ports(from: Initiator): Promise<number[]> {
  const { data } = await run(from, '5e 03 00 00 00 00 00 04 00', { read: 1024 });
  const found: number[] = [];
  for (let at = 8; at < data.length; at += 24 + data.readUInt32BE(at + 20))
    found.push(data.readUInt16BE(at + 18));
  return found;
}

/** Type and key of the reservation. */
async function reservation(from: Initiator): Promise<[number, bigint] | null> {
  const { data } = await run(from, '5e 01 00 00 00 00 00 04 00', { read: 1024 });
  return data.length < 24 ? null : [data[21]!, data.readBigUInt64BE(8)];
}

const write = async (from: Initiator): Promise<string> =>
  (await run(from, '2a 00 00000000 00 0001 00', { write: 512, data: Buffer.alloc(512, 1) })).outcome;

t.test('with APTPL, what PERSISTENT RESERVE OUT answered is there after a kill', async (t) => {
  const weftd = await startWeftd(t, { iscsi: `127.0.0.1:${await freePort()},127.0.0.1:${await freePort()}` });
  const iqn = await volume(weftd, 'reserved');
  const plain = await volume(weftd, 'plain');
  let a = await login(t, weftd, iqn, 'a');
  let b = await login(t, weftd, iqn, 'b');
  const onPlain = await login(t, weftd, plain, 'a');
  t.equal(await out(onPlain, action.register, 0, 0n, 1n), 'GOOD');
  t.equal(await out(onPlain, action.reserve, type.exclusiveAccess, 1n), 'GOOD');
  t.equal(await out(a, action.register, 0, 0n, 0xan, aptpl | allPorts), 'GOOD');
  t.equal(await out(b, action.register, 0, 0n, 0xbn, aptpl), 'GOOD');
  t.equal(await out(a, action.reserve, type.exclusiveAccess, 0xan), 'GOOD');
  let held = [0xan, 0xan, 0xbn];
  for (let round = 1; round <= kills; round += 1) {
    // The holder's key is another each time, and the kill comes right behind the answer.
    const next = BigInt(0x100 + round);
    t.equal(await out(a, action.registerIgnoring, 0, 0n, next, aptpl), 'GOOD');
    await weftd.kill9();
    await weftd.startAgain();
    a = await login(t, weftd, iqn, 'a');
    b = await login(t, weftd, iqn, 'b');
    held = [next, 0xan, 0xbn];
    t.same(await keys(b), held, `after kill ${round}`);
    t.same(await ports(b), [1, 2, 1], 'each with its target port');
    t.same(await reservation(b), [type.exclusiveAccess, next]);
    t.equal(await write(b), 'CONFLICT', 'others are kept out from the first command');
    t.equal(await write(a), 'GOOD', 'the holder is not');
    t.equal(await write(await login(t, weftd, iqn, 'a', 2)), 'CONFLICT', 'its other path is another nexus');
  }
  t.equal(await out(b, action.preempt, type.writeExclusiveRegistrantsOnly, 0xbn, held[0]), 'GOOD');
  await weftd.kill9();
  await weftd.startAgain();
  a = await login(t, weftd, iqn, 'a');
  b = await login(t, weftd, iqn, 'b');
  t.same(await keys(a), [0xan, 0xbn]);
  t.equal(await write(a), 'CONFLICT', 'who was preempted is fenced');
  t.equal(await write(b), 'GOOD');
  const stranger = await login(t, weftd, plain, 'b');
  t.same(await keys(stranger), [], 'without APTPL nothing is kept');
  t.equal(await write(stranger), 'GOOD');
});

t.test('a kill in the middle leaves the state before or the state after', async (t) => {
  const weftd = await startWeftd(t);
  const iqn = await volume(weftd, 'torn');
  let a = await login(t, weftd, iqn, 'a');
  t.equal(await out(a, action.register, 0, 0n, 1n, aptpl), 'GOOD');
  t.equal(await out(a, action.reserve, type.exclusiveAccess, 1n), 'GOOD');
  let answered = 1n;
  for (let round = 1; round <= kills; round += 1) {
    let asked = answered;
    const changing = (async () => {
      for (;;) {
        asked = answered + 1n;
        if ((await out(a, action.registerIgnoring, 0, 0n, asked, aptpl)) !== 'GOOD') return;
        answered = asked;
      }
    })();
    await delay(randomInt(5, 60));
    await weftd.kill9();
    await changing;
    await weftd.startAgain();
    a = await login(t, weftd, iqn, 'a');
    const [key] = await keys(a);
    t.ok(key === answered || key === asked, `${key} is ${answered}, or ${asked}, which nobody was told of`);
    t.same(await reservation(a), [type.exclusiveAccess, key], 'with the holder’s key');
    answered = key!;
  }
  t.comment(`${answered} changes over ${kills} kills`);
});

t.test('saved write protection is there after a kill, and goes when it is saved away', async (t) => {
  const weftd = await startWeftd(t);
  const iqn = await volume(weftd, 'protected');
  const select = async (from: Initiator, protect: string): Promise<string> => {
    const list = Buffer.from(`00000000${`0a0a0210${protect}400000ffff0000`}`, 'hex');
    return (await run(from, '15 11 00 00 10 00', { write: 16, data: list })).outcome;
  };
  let a = await login(t, weftd, iqn, 'a');
  t.equal(await write(a), 'GOOD');
  t.equal(await select(a, '08'), 'GOOD');
  await weftd.kill9();
  await weftd.startAgain();
  a = await login(t, weftd, iqn, 'a');
  t.equal(await write(a), '07/27/00');
  t.equal((await run(a, '1a 08 0a 00 ff 00', { read: 255 })).data[2]! & 0x80, 0x80, 'WP');
  t.equal(await select(a, '00'), 'GOOD');
  t.ok(await weftd.shutDown());
  await weftd.startAgain();
  a = await login(t, weftd, iqn, 'a');
  t.equal(await write(a), 'GOOD');
});

t.test('a volume that comes back from the trash is reserved as it was', async (t) => {
  const weftd = await startWeftd(t);
  const client = await weftd.client();
  const iqn = await volume(weftd, 'kept');
  const a = await login(t, weftd, iqn, 'a');
  t.equal(await out(a, action.register, 0, 0n, 1n, aptpl), 'GOOD');
  t.equal(await out(a, action.reserve, type.exclusiveAccess, 1n), 'GOOD');
  await client.removeVolume('kept', { force: true });
  await client.restoreVolume('kept');
  t.equal(await write(await login(t, weftd, iqn, 'b')), 'CONFLICT');
  t.equal(await write(await login(t, weftd, iqn, 'a')), 'GOOD');
});

t.test(
  'reservations that are damaged keep everybody from their volume, and nobody from others',
  async (t) => {
    const weftd = await startWeftd(t);
    const reserved = await volume(weftd, 'reserved');
    const other = await volume(weftd, 'other');
    for (const iqn of [reserved, other]) {
      const holder = await login(t, weftd, iqn, 'a');
      t.equal(await out(holder, action.register, 0, 0n, 0xan, aptpl), 'GOOD');
      t.equal(await out(holder, action.reserve, type.exclusiveAccess, 0xan), 'GOOD');
    }
    const { id } = await (await weftd.client()).volume('reserved');
    t.ok(await weftd.shutDown());
    const control = new Database(join(weftd.data, 'control.db'));
    const { changes } = control
      .prepare(`UPDATE documents SET json = replace(json, '"holder":0', '"holder":7') WHERE key = ?`)
      .run(`unit/${id}`);
    control.close();
    t.equal(changes, 1);

    await weftd.startAgain();
    const client = await weftd.client();
    const told = /volume reserved is not served: .*--reservations-lost forget/;
    t.match((await client.volume('reserved')).fault, told);
    t.match(await weftd.log(), told);
    t.equal((await client.volume('other')).fault, null);
    t.match((await client.status()).volumes, { online: 2, faulty: 1 });
    for (const host of ['a', 'b']) {
      await t.rejects(login(t, weftd, reserved, host), { message: 'login status 202' }, 'the holder, too');
      await login(t, weftd, other, host);
    }
    t.ok(await weftd.shutDown());

    const forgetful = await startWeftd(t, { data: weftd.data, flags: ['--reservations-lost', 'forget'] });
    t.match((await (await forgetful.client()).status()).volumes, { online: 2, faulty: 0 });
    t.equal(await write(await login(t, forgetful, reserved, 'b')), 'GOOD');
    t.equal(await write(await login(t, forgetful, other, 'b')), 'CONFLICT', 'what can be read stays');
  },
);
