import { randomBytes } from 'node:crypto';
import t from 'tap';
import { iqn, openPortal, until } from './fixture.ts';
import { type Initiator, noTag, textOf } from './initiator.ts';
import { readCdb, writeCdb } from './memory-device.ts';

const testUnitReady = Buffer.alloc(16);

async function again(connect: () => Promise<Initiator>, old: Initiator): Promise<Initiator> {
  const fresh = await connect();
  fresh.cmdSn = old.cmdSn;
  return fresh;
}

t.test(
  'a session goes on with another connection: nexus, TSIH and CmdSN stay, its commands are gone',
  async (t) => {
    const { device, session, connect, portal } = await openPortal(t);
    const old = await session();
    device.isHeld = true;
    old.command(testUnitReady);
    old.command(writeCdb(0, 8), { write: 4096, final: false });
    await until(() => device.heldCount === 1);
    const fresh = await again(connect, old);
    fresh.headerDigest = true;
    fresh.dataDigest = true;
    const login = fresh.login(iqn, { tsih: old.tsih });
    t.same(await old.drain(), [], 'the old connection is closed without a word');
    t.equal(fresh.loginStatus, 0);
    t.equal(portal.transferMemoryBytes, 0, 'what it collected is dropped');
    device.flow();
    t.equal(await login, 0, 'once what ran has ended');
    t.equal(fresh.tsih, old.tsih);
    t.same(device.lost, [], 'the nexus is not lost');
    const data = randomBytes(4096);
    t.match(await fresh.collect(fresh.command(writeCdb(8, 8), { write: 4096, data })), { status: 0 });
    const read = await fresh.collect(fresh.command(readCdb(8, 8), { read: 4096 }));
    t.ok(read.data.equals(data), 'with the digests it has agreed on');
    t.equal(portal.sessions(iqn).length, 1);
    fresh.close();
    await until(() => device.lost.length === 1, 'the nexus to be lost with its last connection');
  },
);

t.test('of several connections that want to go on with a session, the last does', async (t) => {
  const { device, session, connect, portal } = await openPortal(t);
  const old = await session();
  device.isHeld = true;
  old.command(testUnitReady);
  await until(() => device.heldCount === 1);
  const first = await again(connect, old);
  const second = await again(connect, old);
  void first.login(iqn, { tsih: old.tsih }).catch(() => {});
  await old.drain();
  const login = second.login(iqn, { tsih: old.tsih });
  await first.drain();
  t.equal(first.tsih, 0, 'the first is closed without an answer');
  device.flow();
  t.equal(await login, 0);
  t.match(await second.collect(second.command(testUnitReady)), { status: 0 });
  t.equal(portal.sessions(iqn).length, 1);
});

t.test('who drops an initiator waits for what it sent before its connection was gone', async (t) => {
  const { device, session, portal } = await openPortal(t);
  const gone = await session();
  device.isHeld = true;
  gone.command(writeCdb(0, 1), { write: 512, data: Buffer.alloc(512) });
  await until(() => device.heldCount === 1);
  gone.close();
  await until(() => portal.connectionCount === 0);
  let isOver = false;
  const dropped = portal.dropSessions(iqn, gone.name).then((count) => {
    isOver = true;
    return count;
  });
  await new Promise(setImmediate);
  t.notOk(isOver, 'the write may still take effect');
  device.flow();
  t.equal(await dropped, 0, 'no session was left');
});

t.test('a session that is dropped while it changes its connection ends', async (t) => {
  const { device, session, connect, portal } = await openPortal(t);
  const old = await session();
  device.isHeld = true;
  old.command(testUnitReady);
  await until(() => device.heldCount === 1);
  const fresh = await again(connect, old);
  void fresh.login(iqn, { tsih: old.tsih }).catch(() => {});
  await old.drain();
  const dropped = portal.dropSessions(iqn);
  await fresh.drain();
  device.flow();
  t.equal(await dropped, 1);
  t.equal(device.lost.length, 1);
  t.same(portal.sessions(), []);
  t.equal(await (await connect()).login(iqn), 0, 'and the initiator may come anew');
});

t.test('data before its turn is kept for small requests only', async (t) => {
  const { session } = await openPortal(t);
  const initiator = await session();
  const base = initiator.cmdSn;
  const nop = (cmdSn: number, bytes: number) =>
    initiator.send({
      opcode: 0x00,
      itt: cmdSn,
      words: { 20: noTag, 24: cmdSn },
      data: Buffer.alloc(bytes, 1),
    });
  nop(base + 1, 100);
  nop(base + 2, 8192);
  const reject = (await initiator.next())!;
  t.same([reject.opcode, reject.header[2]], [0x3f, 4]);
  nop(base, 8192);
  t.equal((await initiator.next())?.data.length, 8192);
  t.equal((await initiator.next())?.data.length, 100);
  initiator.cmdSn = base + 3;
  t.match(await initiator.collect(initiator.command(testUnitReady)), { status: 0 });
});

t.test('a second connection is refused, and one for a session that is not there', async (t) => {
  const { session, connect } = await openPortal(t);
  const old = await session();
  const second = await again(connect, old);
  second.cid = 1;
  t.equal(await second.login(iqn, { tsih: old.tsih }), 0x0206, 'too many connections');
  const lost = await again(connect, old);
  t.equal(await lost.login(iqn, { tsih: old.tsih + 1 }), 0x020a, 'no such session');
  const other = await again(connect, old);
  other.isid = '800000000009';
  t.equal(await other.login(iqn, { tsih: old.tsih }), 0x020a, "another ISID's");
  t.match(await old.collect(old.command(testUnitReady)), { status: 0 }, 'which harms nobody');
});

t.test('a connection is logged out by its own CID', async (t) => {
  const { session } = await openPortal(t);
  const initiator = await session();
  const logout = (cid: number) => {
    initiator.send({ opcode: 0x06, flags: 0x81, words: { 20: cid << 16, 24: initiator.cmdSn } });
    initiator.cmdSn += 1;
  };
  logout(7);
  t.equal((await initiator.next())?.header[2], 1, 'CID not found');
  logout(0);
  t.same(
    (await initiator.drain()).map(({ opcode, header }) => [opcode, header[2]]),
    [[0x26, 0]],
  );
});

t.test('requests after a logout are told to wait for it', async (t) => {
  const { device, session } = await openPortal(t);
  const initiator = await session();
  device.isHeld = true;
  initiator.command(testUnitReady);
  await until(() => device.heldCount === 1);
  initiator.send({ opcode: 0x06, flags: 0x80, words: { 24: initiator.cmdSn } });
  initiator.send({ opcode: 0x00, immediate: true, words: { 20: noTag, 24: initiator.cmdSn } });
  const reject = (await initiator.next())!;
  t.same([reject.opcode, reject.header[2]], [0x3f, 0x0c]);
  device.flow();
  t.equal((await initiator.next())?.opcode, 0x26, 'which is answered when its commands have ended');
});

t.test('a discovery session asks for targets and closes, and no more', async (t) => {
  const { connect } = await openPortal(t);
  const initiator = await connect();
  const keys = { InitialR2T: 'Yes', MaxConnections: '4', MaxRecvDataSegmentLength: '8192' };
  t.equal(await initiator.login(null, { keys }), 0);
  t.equal(initiator.answered.get('MaxConnections'), 'Irrelevant');
  t.equal(initiator.answered.get('InitialR2T'), 'Irrelevant');
  t.equal(initiator.answered.get('ErrorRecoveryLevel'), '0');
  const refused = [
    { opcode: 0x00, words: { 20: noTag, 24: initiator.cmdSn } },
    { opcode: 0x02, flags: 0x85, words: { 24: initiator.cmdSn + 1 } },
    { opcode: 0x06, flags: 0x81, words: { 24: initiator.cmdSn + 2 } },
  ];
  for (const request of refused) {
    initiator.send(request);
    const reject = (await initiator.next())!;
    t.same([reject.opcode, reject.header[2]], [0x3f, 4], `opcode ${request.opcode}`);
  }
  const words = { 20: noTag, 24: initiator.cmdSn + 3 };
  initiator.send({ opcode: 0x04, words, data: Buffer.from(`SendTargets=${iqn}\0`) });
  t.same(textOf((await initiator.next())!.data)[0], ['TargetName', iqn], 'their CmdSN count nevertheless');
  initiator.send({ opcode: 0x06, flags: 0x80, words: { 24: initiator.cmdSn + 4 } });
  t.match(await initiator.drain(), [{ opcode: 0x26 }]);
});

t.test('a command with no tag of its own is refused', async (t) => {
  const { session } = await openPortal(t);
  const initiator = await session();
  initiator.command(testUnitReady, { itt: noTag });
  const reject = (await initiator.next())!;
  t.same([reject.opcode, reject.header[2]], [0x3f, 9], 'invalid field');
  t.match(await initiator.collect(initiator.command(testUnitReady)), { status: 0 });
});

t.test('a target that goes away asks to log out, and is not found again', async (t) => {
  let isThere = true;
  const { session, connect, portal, device } = await openPortal(t, { lists: () => isThere });
  const polite = await session();
  const deaf = await session({}, 'iqn.2026-11.test:host-b');
  isThere = false;
  let dropped = -1;
  const dropping = portal.dropSessions(iqn, undefined, 1000).then((count) => {
    dropped = count;
  });
  for (const initiator of [polite, deaf]) {
    const message = (await initiator.next())!;
    t.same([message.opcode, message.header[36], message.header.readUInt16BE(42)], [0x32, 1, 1]);
  }
  t.match(await polite.collect(polite.command(testUnitReady)), { status: 0 }, 'what runs may end');
  polite.send({ opcode: 0x06, flags: 0x80, words: { 24: polite.cmdSn } });
  t.match(await polite.drain(), [{ opcode: 0x26 }]);
  const back = await connect();
  t.equal(await back.login(iqn), 0x0203, 'who comes back gives up');
  t.equal(dropped, -1);
  const last = (await deaf.drain()).map(({ opcode, header }) => [opcode, header[36]]);
  t.same(last, [[0x32, 3]], 'who does not listen is ended');
  await dropping;
  t.equal(dropped, 2);
  t.equal(device.lost.length, 2);
});

t.test('logins and ends of sessions are logged with who, where and why', async (t) => {
  const lines: { level: string; facts: Record<string, unknown>; message: string }[] = [];
  const at = (level: string) => (facts: object, message: string) =>
    void lines.push({ level, facts: facts as Record<string, unknown>, message });
  const log = { info: at('info'), warn: at('warn') };
  const { session, connect, portal } = await openPortal(
    t,
    { admit: (name) => (name.endsWith('b') ? 'claimed' : null) },
    { log },
  );
  const initiator = await session();
  const refused = await connect();
  refused.name = 'iqn.2026-11.test:host-b';
  await refused.login(iqn);
  const lost = await connect();
  await lost.login('iqn.2026-11.io.weft:none');
  await portal.dropSessions(iqn);
  await initiator.drain();
  await until(() => portal.connectionCount === 0);
  const address = /^127\.0\.0\.1:\d+$/;
  t.match(lines, [
    { level: 'info', facts: { address, initiator: initiator.name, iqn }, message: /logged in/ },
    {
      level: 'warn',
      facts: { address, initiator: refused.name, target: iqn, status: '0202', reason: 'claimed' },
    },
    {
      level: 'warn',
      facts: { address, target: 'iqn.2026-11.io.weft:none', status: '0203', reason: 'no such target' },
    },
    { level: 'info', facts: { address, iqn, reason: 'the session was dropped' }, message: /ended/ },
  ]);
});
