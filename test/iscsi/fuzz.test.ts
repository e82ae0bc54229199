/**
 * Exact accounts under mutated streams, which only shows from inside: after each connection every transfer buffer is
 * given back, every reply released and every nexus called lost, also while the device still holds its commands. What
 * weftd as a whole does with such streams: test/fuzz. A failure names its seed.
 */
import t from 'tap';
import type { Connection, Network, Receiver } from '../../daemon/env/network.ts';
import { Portal } from '../../daemon/iscsi/portal.ts';
import { iqn, ManualClock } from './fixture.ts';
import { inquiryCdb, MemoryDevice, readCdb, writeCdb } from './memory-device.ts';

/** Small and good enough (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** A connection without a socket: what is fed to it arrives, what it sends is counted. */
class FakeConnection implements Connection {
  readonly remoteAddress = '192.0.2.1:1';
  readonly localAddress = '192.0.2.2:3260';
  receiver: Receiver | null = null;
  isOver = false;
  sentBytes = 0;
  private readonly turns: (() => void)[] = [];
  write(pieces: readonly Buffer[], sent: () => void): void {
    for (const piece of pieces) this.sentBytes += piece.length;
    this.turns.push(sent);
  }
  endOfTurn(fire: () => void): void {
    this.turns.push(fire);
  }
  pause(): void {}
  resume(): void {}
  end(): void {
    this.isOver = true;
  }
  destroy(): void {
    this.isOver = true;
  }
  turn(): void {
    for (const fire of this.turns.splice(0)) fire();
  }
  feed(bytes: Buffer, pieceBytes: number): void {
    for (let at = 0; at < bytes.length && !this.isOver; ) {
      const room = this.receiver!.room();
      const copied = bytes.copy(room, 0, at, Math.min(bytes.length, at + pieceBytes));
      at += copied;
      this.receiver!.filled(copied);
    }
  }
  close(): void {
    this.isOver = true;
    this.receiver!.closed();
    this.turn();
  }
}

class FakeNetwork implements Network {
  onConnection: ((connection: Connection) => Receiver | null) | null = null;
  async listen(host: string, port: number, onConnection: (connection: Connection) => Receiver | null) {
    this.onConnection = onConnection;
    return { host, port, close: async () => {} };
  }
  connect(): FakeConnection {
    const connection = new FakeConnection();
    connection.receiver = this.onConnection!(connection);
    return connection;
  }
}

interface Fields {
  opcode: number;
  flags: number;
  itt: number;
  words?: Record<number, number>;
  cdb?: Buffer;
  data?: Buffer;
}

function pduOf({ opcode, flags, itt, words = {}, cdb, data = Buffer.alloc(0) }: Fields): Buffer {
  const header = Buffer.alloc(48);
  header[0] = opcode;
  header[1] = flags;
  header.writeUIntBE(data.length, 5, 3);
  header.writeUInt32BE(itt, 16);
  for (const [at, value] of Object.entries(words)) header.writeUInt32BE(value, Number(at));
  cdb?.copy(header, 32);
  return Buffer.concat([header, data, Buffer.alloc(-data.length & 3)]);
}

function loginPdus(): Buffer[] {
  const text = (keys: string[]) => Buffer.from(`${keys.join('\0')}\0`);
  const who = text([`InitiatorName=iqn.2026-11.test:fuzz`, `TargetName=${iqn}`, 'AuthMethod=None']);
  const operational = text([
    'InitialR2T=No',
    'ImmediateData=Yes',
    'MaxBurstLength=65536',
    'FirstBurstLength=65536',
  ]);
  return [
    pduOf({ opcode: 0x43, flags: 0x81, itt: 1, words: { 24: 1 }, data: who }),
    pduOf({ opcode: 0x43, flags: 0x87, itt: 1, words: { 24: 1 }, data: operational }),
  ];
}

/** Every kind of request once and more, valid as long as nothing is mutated. */
function fullFeaturePdus(random: () => number): Buffer[] {
  const pdus: Buffer[] = [];
  let cmdSn = 1;
  for (let n = 0; n < 25; n += 1) {
    const itt = 100 + n;
    const next = () => cmdSn++;
    const data = Buffer.alloc(Math.floor(random() * 40_000) & ~511, n);
    const kind = Math.floor(random() * 8);
    if (kind === 0) {
      pdus.push(pduOf({ opcode: 0, flags: 0x80, itt, words: { 20: 0xffffffff, 24: next() }, data }));
    } else if (kind === 1) {
      const words = { 20: 0xffffffff, 24: next() };
      pdus.push(pduOf({ opcode: 4, flags: 0x80, itt, words, data: Buffer.from('SendTargets=\0') }));
    } else if (kind === 2) {
      pdus.push(pduOf({ opcode: 0x42, flags: 0x80 | (1 + (n % 8)), itt, words: { 20: itt - 1, 24: cmdSn } }));
    } else if (kind === 3) {
      pdus.push(
        pduOf({ opcode: 1, flags: 0xc1, itt, words: { 20: 65_536, 24: next() }, cdb: readCdb(n, 128) }),
      );
    } else if (kind === 4) {
      pdus.push(pduOf({ opcode: 1, flags: 0xc1, itt, words: { 20: 36, 24: next() }, cdb: inquiryCdb(36) }));
    } else {
      const more = Buffer.alloc(20_000, n);
      const total = data.length + more.length;
      const cdb = writeCdb(n, Math.floor(total / 512));
      pdus.push(pduOf({ opcode: 1, flags: 0x21, itt, words: { 20: total, 24: next() }, cdb, data }));
      const words = { 20: 0xffffffff, 36: 0, 40: data.length };
      pdus.push(pduOf({ opcode: 5, flags: 0x80, itt, words, data: more }));
    }
  }
  pdus.push(pduOf({ opcode: 6, flags: 0x80, itt: 999, words: { 24: cmdSn } }));
  return pdus;
}

function mutate(pdus: Buffer[], random: () => number): Buffer[] {
  const mutated = pdus.map((pdu) => Buffer.from(pdu));
  const count = Math.floor(random() * 4);
  for (let n = 0; n < count; n += 1) {
    const index = Math.floor(random() * mutated.length);
    const pdu = mutated[index]!;
    const how = Math.floor(random() * 6);
    // Headers are where the decisions are.
    const at = Math.floor(random() * Math.min(pdu.length, random() < 0.8 ? 48 : pdu.length));
    if (how === 0) pdu[at] = Math.floor(random() * 256);
    else if (how === 1) pdu[at]! ^= 1 << Math.floor(random() * 8);
    else if (how === 2) mutated.splice(index, 1);
    else if (how === 3) mutated.splice(index, 0, Buffer.from(pdu));
    else if (how === 4) mutated[index] = pdu.subarray(0, at);
    else if (at + 4 <= pdu.length) pdu.writeUInt32BE([0, 0xffffffff, 0x7fffffff, 512][n]!, at);
    if (mutated.length === 0) return mutated;
  }
  return mutated;
}

const runs = 1500;
const firstSeed = Number(process.env.FUZZ_SEED ?? 1);

t.test(`${runs} mutated streams neither throw nor leak`, async (t) => {
  const network = new FakeNetwork();
  const device = new MemoryDevice(1024 * 1024);
  const target = { iqn, device, chap: null, lists: () => true, admit: () => null };
  const directory = {
    find: (name: string) => (name === iqn ? target : null),
    list: () => [{ iqn, portals: [] }],
  };
  const random = { bytes: (count: number) => Buffer.alloc(count, 7) };
  const portal = await Portal.open({ network, clock: new ManualClock(), random, directory }, [
    { host: 'x', port: 1 },
  ]);
  let loggedIn = 0;
  for (let seed = firstSeed; seed < firstSeed + runs; seed += 1) {
    const dice = randomOf(seed);
    const connection = network.connect();
    try {
      // Most streams get past the login, where the larger part of the code is.
      const isLoginMutated = dice() < 0.2;
      const login = isLoginMutated ? mutate(loginPdus(), dice) : loginPdus();
      connection.feed(Buffer.concat(login), 1 + Math.floor(dice() * 300));
      connection.turn();
      if (portal.sessions().length > 0) loggedIn += 1;
      device.isHeld = dice() < 0.5;
      const stream = Buffer.concat(mutate(fullFeaturePdus(dice), dice));
      const half = Math.floor(stream.length * dice());
      const pieceBytes = 1 + Math.floor(dice() * (dice() < 0.5 ? 200 : 100_000));
      connection.feed(stream.subarray(0, half), pieceBytes);
      connection.turn();
      if (dice() < 0.5) device.flow();
      connection.feed(stream.subarray(half), pieceBytes);
      connection.turn();
      connection.close();
      device.flow();
      await new Promise(setImmediate);
      if (portal.transferMemoryBytes !== 0) throw new Error(`${portal.transferMemoryBytes} bytes leaked`);
      if (device.unreleased !== 0) throw new Error(`${device.unreleased} replies not released`);
      if (portal.connectionCount !== 0 || portal.sessions().length !== 0)
        throw new Error('a connection leaked');
    } catch (error) {
      t.fail(`seed ${seed}: ${(error as Error).stack}`);
      return;
    }
  }
  t.ok(loggedIn > runs / 2, `${loggedIn} streams got past the login`);
  t.equal(device.lost.length >= loggedIn, true, 'every nexus was called lost');
});
