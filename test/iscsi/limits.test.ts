import { connect as tcpConnect } from 'node:net';
import t from 'tap';
import { iqn, ManualClock, openPortal, until } from './fixture.ts';
import { type Initiator, noTag } from './initiator.ts';
import { readCdb, writeCdb } from './memory-device.ts';

const testUnitReady = Buffer.alloc(16);
const MiB = 1024 * 1024;

/** Writes bytes, which the target has taken when this resolves (loopback delivers in order). */
async function send(initiator: Initiator, bytes: Buffer): Promise<void> {
  await new Promise<void>((resolve) => initiator.socket.write(bytes, () => resolve()));
  await new Promise((resolve) => setImmediate(resolve));
}

t.test('connections are limited in all and for one source, logged in or not', async (t) => {
  const cases: [object, boolean][] = [
    [{ maxConnections: 2 }, true],
    [{ maxConnectionsPerSource: 2 }, true],
    [{ maxLogins: 2, maxLoginsPerSource: 2 }, false],
    [{ maxLoginsPerSource: 2 }, false],
    [{ maxLogins: 2, maxLoginsPerSource: 3 }, false],
  ];
  for (const [limits, countsLoggedIn] of cases) {
    const { portal, connect } = await openPortal(t, {}, limits);
    await connect();
    await connect();
    await until(() => portal.connectionCount === 2);
    const third = await connect();
    t.equal(await third.next(), null, JSON.stringify(limits));
    const other = await openPortal(t, {}, limits);
    await other.session();
    await other.session({}, 'iqn.2026-11.test:host-b');
    const more = other.connect();
    if (countsLoggedIn) t.equal(await (await more).next(), null);
    else t.equal(await (await more).login(iqn), 0, 'those who have logged in are not logins');
  }
});

t.test('refused connections are logged now and then, not one by one', async (t) => {
  const lines: object[] = [];
  const log = { info: () => {}, warn: (facts: object) => void lines.push(facts) };
  const clock = new ManualClock();
  const { connect, portal } = await openPortal(t, {}, { clock, log, maxConnections: 1 });
  await connect();
  await until(() => portal.connectionCount === 1);
  for (let n = 0; n < 5; n += 1) await (await connect()).next();
  clock.pass(10_000);
  await (await connect()).next();
  t.match(lines, [
    { reason: 'too many connections', connections: 1 },
    { reason: 'too many connections', connections: 5 },
  ]);
  t.equal(lines.length, 2);
});

t.test('one initiator name has so many sessions with a target', async (t) => {
  const { connect, portal } = await openPortal(t);
  const login = async (n: number, name: string) => {
    const initiator = await connect();
    initiator.name = name;
    initiator.isid = `8000000${String(n).padStart(5, '0')}`;
    return initiator.login(iqn);
  };
  for (let n = 0; n < 128; n += 1) t.equal(await login(n, 'iqn.2026-11.test:host-a'), 0);
  t.equal(await login(128, 'iqn.2026-11.test:host-a'), 0x0302, 'out of resources');
  t.equal(await login(0, 'iqn.2026-11.test:host-a'), 0, 'one that replaces another is none more');
  t.equal(await login(0, 'iqn.2026-11.test:host-b'), 0);
  t.equal(portal.sessions(iqn).length, 129);
});

t.test('a login has its time, however its bytes trickle', async (t) => {
  const clock = new ManualClock();
  const { connect, portal } = await openPortal(t, {}, { clock });
  const initiator = await connect();
  await until(() => portal.connectionCount === 1);
  for (let n = 0; n < 14; n += 1) {
    await send(initiator, Buffer.of(0x43));
    clock.pass(1000);
  }
  t.equal(portal.connectionCount, 1);
  clock.pass(1000);
  t.equal(await initiator.next(), null);
});

t.test('a PDU that does not get on ends its connection; a slow one that gets on does not', async (t) => {
  const clock = new ManualClock();
  const { session, portal } = await openPortal(t, {}, { clock });
  const slow = await session();
  const stuck = await session({}, 'iqn.2026-11.test:host-b');
  const pdu = stuck.encode({ opcode: 0x00, words: { 20: noTag, 24: stuck.cmdSn }, data: Buffer.alloc(4096) });
  let at = 0;
  const step = async () => {
    await send(stuck, pdu.subarray(at, at + 1));
    at += 1;
    const ping = { opcode: 0x00, immediate: true, itt: 5, words: { 20: noTag, 24: slow.cmdSn } };
    await send(slow, slow.encode(ping).subarray(0, 40));
    clock.pass(15_000);
    await send(slow, slow.encode(ping).subarray(40));
    t.equal((await slow.next())?.opcode, 0x20);
  };
  for (let n = 0; n < 4; n += 1) await step();
  t.equal(portal.sessions().length, 2, 'a minute is allowed');
  await step();
  t.equal(await stuck.next(), null);
  t.equal(portal.sessions().length, 1);
});

t.test('data that was asked for and does not come ends the session, whatever else it sends', async (t) => {
  const clock = new ManualClock();
  const { session, portal } = await openPortal(t, {}, { clock });
  const initiator = await session({ keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
  const itt = initiator.command(writeCdb(0, 2048), { write: MiB });
  const r2t = (await initiator.next())!;
  const alive = async () => {
    t.match(await initiator.collect(initiator.command(testUnitReady)), { status: 0 });
    clock.pass(15_000);
  };
  for (let n = 0; n < 4; n += 1) await alive();
  initiator.dataOut(itt, r2t.header.readUInt32BE(20), 0, 0, Buffer.alloc(4096), false);
  for (let n = 0; n < 4; n += 1) await alive();
  t.equal(portal.transferMemoryBytes, MiB, 'data that comes slowly is waited for');
  await alive();
  t.equal(await initiator.next(), null);
  t.equal(portal.transferMemoryBytes, 0);
});

t.test('an initiator that reads nothing costs what moves at once, and keeps nobody waiting', async (t) => {
  const clock = new ManualClock();
  const { device, session, portal } = await openPortal(t, {}, { clock });
  const greedy = await session();
  const other = await session({}, 'iqn.2026-11.test:host-b');
  greedy.socket.pause();
  for (let n = 0; n < 2000; n += 1) greedy.command(readCdb(0, 512), { read: 512 * 512 });
  const read = async () => (await other.collect(other.command(readCdb(0, 8), { read: 4096 }))).status;
  // It goes no further when it has been looked at many times with nothing new.
  for (let calm = 0, seen = -1; calm < 50; calm += 1) {
    t.equal(await read(), 0);
    if (device.executed - other.cmdSn !== seen) calm = 0;
    seen = device.executed - other.cmdSn;
  }
  t.ok(device.unreleased <= 64, `${device.unreleased} of 256 KiB are under way`);
  t.ok(device.unreleased > 8, 'the system takes no more of it');
  for (const ms of [15_000, 15_000, 20_000]) {
    clock.pass(ms);
    t.equal(await read(), 0);
  }
  await until(() => device.unreleased === 0, 'all of it to be back');
  t.equal(portal.sessions().length, 1, 'who takes nothing for long is ended');
  t.equal(await read(), 0);
});

t.test('an initiator that reads again gets all it asked for within its window', async (t) => {
  const { device, session } = await openPortal(t);
  const initiator = await session();
  initiator.socket.pause();
  const itts: number[] = [];
  for (let n = 0; n < 128; n += 1) itts.push(initiator.command(readCdb(0, 512), { read: 512 * 512 }));
  await until(() => device.executed >= 64);
  initiator.socket.resume();
  for (const itt of itts) t.equal((await initiator.collect(itt)).data.length, 512 * 512);
  await until(() => device.unreleased === 0);
});

t.test('a flood of long writes fills 16 MiB of the device, and others go by', async (t) => {
  const { device, session, portal } = await openPortal(t);
  const flooding = await session();
  const other = await session({}, 'iqn.2026-11.test:host-b');
  device.isHeld = true;
  const data = Buffer.alloc(256 * 1024);
  for (let n = 0; n < 128; n += 1) flooding.command(writeCdb(0, 512), { write: data.length, data });
  await until(() => device.heldCount === 64, 'a full share of the device');
  await until(() => portal.transferMemoryBytes === 128 * data.length, 'all of its data');
  t.equal(device.heldCount, 64);
  const itt = other.command(readCdb(0, 8), { read: 4096 });
  await until(() => device.heldCount === 65, 'the other one to be in the device with it');
  device.flow();
  t.match(await other.collect(itt), { status: 0 });
  for (let n = 0; n < 128; n += 1) t.equal((await flooding.next())?.header[3], 0);
});

t.test('64 initiators that write all they can get on together', async (t) => {
  const limitBytes = 32 * MiB;
  const { device, connect, portal } = await openPortal(t, {}, { maxTransferMemoryBytes: limitBytes });
  const all = await Promise.all(
    Array.from({ length: 64 }, async (_, n) => {
      const initiator = await connect();
      initiator.name = `iqn.2026-11.test:host-${n}`;
      t.equal(await initiator.login(iqn), 0);
      return initiator;
    }),
  );
  device.isHeld = true;
  const data = Buffer.alloc(64 * 1024);
  const greedy = all[0]!;
  for (let n = 0; n < 128; n += 1) greedy.command(writeCdb(0, 128), { write: data.length, data });
  await until(() => portal.transferMemoryBytes === 8 * MiB, 'the first to have what it asked for');
  for (const initiator of all.slice(1)) {
    for (let n = 0; n < 16; n += 1) initiator.command(writeCdb(0, 128), { write: data.length, data });
  }
  await until(() => device.heldCount >= 128 + 63, 'each of the others to have something in the device');
  const served = new Set(device.nexuses.map(([nexus]) => nexus));
  t.equal(served.size, 64);
  t.ok(portal.transferMemoryBytes <= limitBytes);
  device.flow();
  for (const initiator of all) {
    const answers = initiator === greedy ? 128 : 16;
    const statuses = new Set<number>();
    for (let n = 0; n < answers; n += 1) statuses.add((await initiator.next())!.header[3]!);
    t.ok(statuses.has(0), 'good, and at most TASK SET FULL beside it');
    t.ok([...statuses].every((status) => status === 0 || status === 0x28));
  }
  t.equal(portal.transferMemoryBytes, 0);
});

t.test('while an initiator holds more than its share, its window does not move on', async (t) => {
  const { device, session } = await openPortal(t, {}, { maxTransferMemoryBytes: 16 * 64 * 1024 });
  const greedy = await session();
  const other = await session({}, 'iqn.2026-11.test:host-b');
  device.isHeld = true;
  const data = Buffer.alloc(64 * 1024);
  const base = greedy.cmdSn;
  for (let n = 0; n < 8; n += 1) greedy.command(writeCdb(0, 128), { write: data.length, data });
  await until(() => device.heldCount === 8);
  other.command(writeCdb(0, 128), { write: data.length, data });
  await until(() => device.heldCount === 9);
  greedy.command(writeCdb(0, 128), { write: data.length, data });
  const full = (await greedy.next())!;
  t.equal(full.header[3], 0x28, 'TASK SET FULL');
  t.equal(full.header.readUInt32BE(32), base + 127, 'MaxCmdSN stands still');
  device.flow();
  for (let n = 0; n < 8; n += 1) await greedy.next();
  const itt = greedy.command(testUnitReady);
  const last = (await greedy.next())!;
  t.equal(last.itt, itt);
  t.equal(last.header.readUInt32BE(32), base + 10 + 127, 'and opens when it has given back');
});

t.test('who connects and says nothing is gone when the time for a login is over', async (t) => {
  const clock = new ManualClock();
  const { port, portal } = await openPortal(t, {}, { clock });
  const silent = tcpConnect({ host: '127.0.0.1', port });
  await until(() => portal.connectionCount === 1);
  const gone = new Promise((resolve) => silent.once('close', resolve));
  clock.pass(15_000);
  silent.resume();
  await gone;
  await until(() => portal.connectionCount === 0);
});
