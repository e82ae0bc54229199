import { randomBytes } from 'node:crypto';
import t from 'tap';
import { iqn, ManualClock, openPortal, until } from './fixture.ts';
import { noTag } from './initiator.ts';
import { inquiryCdb, readCdb, writeCdb } from './memory-device.ts';

const testUnitReady = Buffer.alloc(16);

t.test('reads and writes carry their data, with and without digests', async (t) => {
  for (const digests of [false, true]) {
    const { device, connect, portal } = await openPortal(t);
    const initiator = await connect();
    initiator.headerDigest = digests;
    initiator.dataDigest = digests;
    t.equal(await initiator.login(iqn), 0);
    for (const sectors of [1, 8, 31, 256, 512]) {
      const data = randomBytes(sectors * 512);
      await t.resolves(
        initiator.collect(initiator.command(writeCdb(7, sectors), { write: data.length, data })),
      );
      t.ok(
        device.bytes.subarray(7 * 512, (7 + sectors) * 512).equals(data),
        `${sectors} sectors are written`,
      );
      const read = await initiator.collect(initiator.command(readCdb(7, sectors), { read: data.length }));
      t.ok(read.data.equals(data), `${sectors} sectors are read`);
      t.match(read, { status: 0, residual: 0, count: Math.ceil(data.length / 65536) });
    }
    await until(() => device.unreleased === 0 && portal.transferMemoryBytes === 0, 'all buffers to be back');
  }
});

t.test('a write is collected from immediate, unsolicited and solicited data', async (t) => {
  const { device, session, portal } = await openPortal(t);
  const initiator = await session({ keys: { FirstBurstLength: '65536', MaxBurstLength: '131072' } });
  const data = randomBytes(400 * 1024);
  const itt = initiator.command(writeCdb(0, 800), {
    write: data.length,
    data: data.subarray(0, 20_000),
    final: false,
  });
  initiator.dataOut(itt, noTag, 0, 20_000, data.subarray(20_000, 40_000), false);
  initiator.dataOut(itt, noTag, 1, 40_000, data.subarray(40_000, 65_536), true);
  let asked = 0;
  for (let offset = 65_536; offset < data.length; asked += 1) {
    const r2t = (await initiator.next())!;
    t.equal(r2t.opcode, 0x31);
    t.equal(r2t.header.readUInt32BE(36), asked, 'R2TSN counts');
    t.equal(r2t.header.readUInt32BE(40), offset);
    const length = r2t.header.readUInt32BE(44);
    t.equal(length, Math.min(131_072, data.length - offset));
    const middle = Math.floor(length / 2);
    const ttt = r2t.header.readUInt32BE(20);
    initiator.dataOut(itt, ttt, 0, offset, data.subarray(offset, offset + middle), false);
    initiator.dataOut(itt, ttt, 1, offset + middle, data.subarray(offset + middle, offset + length), true);
    offset += length;
  }
  t.match(await initiator.collect(itt), { status: 0, residual: 0 });
  t.ok(device.bytes.subarray(0, data.length).equals(data));
  t.equal(asked, 3);
  t.equal(portal.transferMemoryBytes, 0);
});

t.test('InitialR2T=Yes and ImmediateData=No are kept to', async (t) => {
  const { device, session } = await openPortal(t);
  const initiator = await session({ keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
  const data = randomBytes(4096);
  const itt = initiator.command(writeCdb(0, 8), { write: 4096 });
  const r2t = (await initiator.next())!;
  initiator.dataOut(itt, r2t.header.readUInt32BE(20), 0, 0, data, true);
  t.match(await initiator.collect(itt), { status: 0 });
  t.ok(device.bytes.subarray(0, 4096).equals(data));
  const immediate = await initiator.collect(initiator.command(writeCdb(0, 8), { write: 4096, data }));
  t.match(immediate, { status: 2 }, 'immediate data nobody agreed to fails the command');
});

t.test('wrong Data-Out is rejected, and its command fails once the last of it is here', async (t) => {
  const { device, session, portal } = await openPortal(t);
  const initiator = await session();
  const half = Buffer.alloc(2048, 1);
  const wrong: [string, (itt: number) => void][] = [
    ['DataSN', (itt) => initiator.dataOut(itt, noTag, 5, 2048, half, true)],
    ['offset', (itt) => initiator.dataOut(itt, noTag, 0, 1024, half, true)],
    ['length', (itt) => initiator.dataOut(itt, noTag, 0, 2048, Buffer.alloc(8192), true)],
    ['tag', (itt) => initiator.dataOut(itt, 99, 0, 2048, half, false)],
  ];
  for (const [what, act] of wrong) {
    const itt = initiator.command(writeCdb(0, 8), { write: 4096, data: half, final: false });
    act(itt);
    const reject = (await initiator.next())!;
    t.match({ opcode: reject.opcode, reason: reject.header[2] }, { opcode: 0x3f, reason: 4 }, what);
    t.equal(reject.data.length, 48, 'with the header that was wrong');
    if (what === 'tag') initiator.dataOut(itt, noTag, 0, 2048, half, true);
    t.match(await initiator.collect(itt), { status: 2 });
  }
  t.ok(
    device.bytes.subarray(0, 8192).every((byte) => byte === 0),
    'nothing of it was written',
  );
  t.match(await initiator.collect(initiator.command(testUnitReady)), { status: 0 });
  t.equal(portal.transferMemoryBytes, 0);
});

t.test('residuals tell how far command and announcement differ', async (t) => {
  const { session } = await openPortal(t);
  const initiator = await session();
  const run = async (cdb: Buffer, options: Parameters<typeof initiator.command>[1]) => {
    const { data, flags, residual, status } = await initiator.collect(initiator.command(cdb, options));
    return { length: data.length, flags: flags & 0x06, residual, status };
  };
  t.same(await run(readCdb(0, 8), { read: 4096 }), { length: 4096, flags: 0, residual: 0, status: 0 });
  t.same(await run(readCdb(0, 8), { read: 8192 }), { length: 4096, flags: 2, residual: 4096, status: 0 });
  t.same(await run(readCdb(0, 8), { read: 1024 }), { length: 1024, flags: 4, residual: 3072, status: 0 });
  t.same(await run(readCdb(0, 8), {}), { length: 0, flags: 4, residual: 4096, status: 0 });
  t.same(await run(inquiryCdb(255), { read: 255 }), { length: 36, flags: 2, residual: 219, status: 0 });
  const data = Buffer.alloc(8192);
  t.same(await run(writeCdb(0, 8), { write: 8192, data }), {
    length: 0,
    flags: 2,
    residual: 4096,
    status: 0,
  });
  const short = data.subarray(0, 2048);
  t.same(await run(writeCdb(0, 8), { write: 2048, data: short }), {
    length: 0,
    flags: 4,
    residual: 2048,
    status: 0,
  });
});

t.test('a failed command brings its sense data', async (t) => {
  const { session } = await openPortal(t);
  const initiator = await session();
  initiator.command(Buffer.alloc(16, 0xff), { read: 512 });
  const pdu = (await initiator.next())!;
  t.match(
    { opcode: pdu.opcode, status: pdu.header[3], flags: pdu.flags },
    { opcode: 0x21, status: 2, flags: 0x82 },
  );
  t.equal(pdu.data.readUInt16BE(0), 18);
  t.equal(pdu.data[2 + 12], 0x20);
  t.equal(pdu.header.readUInt32BE(44), 512);
});

t.test('commands run in the order of CmdSN; those outside the window are ignored', async (t) => {
  const { session } = await openPortal(t);
  const initiator = await session();
  const base = initiator.cmdSn;
  initiator.command(testUnitReady, { cmdSn: base + 500 });
  initiator.command(testUnitReady, { cmdSn: base - 1 });
  const late = initiator.command(inquiryCdb(36), { read: 36, cmdSn: base + 1 });
  const early = initiator.command(inquiryCdb(36), { read: 36, cmdSn: base });
  const first = (await initiator.next())!;
  const second = (await initiator.next())!;
  t.same([first.itt, second.itt], [early, late]);
  t.equal(second.header.readUInt32BE(28), base + 2, 'ExpCmdSN');
  t.equal(second.header.readUInt32BE(24), first.header.readUInt32BE(24) + 1, 'StatSN counts answers');
});

t.test('the window closes as commands pile up, and opens as they end', async (t) => {
  const { device, session } = await openPortal(t);
  device.isHeld = true;
  const initiator = await session();
  const base = initiator.cmdSn;
  for (let n = 0; n < 140; n += 1) initiator.command(testUnitReady);
  await until(() => device.heldCount === 128, 'a full window');
  initiator.send({ opcode: 0x00, immediate: true, words: { 20: noTag, 24: initiator.cmdSn } });
  const nop = (await initiator.next())!;
  t.equal(nop.header.readUInt32BE(28), base + 128);
  t.equal(nop.header.readUInt32BE(32), base + 127, 'MaxCmdSN = ExpCmdSN - 1: closed');
  device.flow();
  for (let n = 0; n < 128; n += 1) await initiator.next();
  initiator.cmdSn = base + 128;
  t.match(await initiator.collect(initiator.command(testUnitReady)), { status: 0 });
  t.equal(device.executed, 129, 'the rest had been ignored');
});

t.test(
  'an ORDERED command waits for the older and holds back the younger, but for HEAD OF QUEUE',
  async (t) => {
    const { device, session } = await openPortal(t);
    device.isHeld = true;
    const initiator = await session();
    initiator.command(testUnitReady);
    initiator.command(testUnitReady, { attribute: 2 });
    initiator.command(testUnitReady);
    initiator.command(testUnitReady, { attribute: 3 });
    await until(() => device.heldCount > 0);
    initiator.send({ opcode: 0x00, words: { 20: noTag, 24: initiator.cmdSn } });
    t.equal((await initiator.next())?.opcode, 0x20);
    t.equal(device.heldCount, 2, 'the first, and the one for the head of the queue');
    device.flow();
    for (let n = 0; n < 4; n += 1) t.equal((await initiator.next())?.header[3], 0);
  },
);

t.test('an ORDERED command waits for data of an older one, and goes on after it', async (t) => {
  const { session } = await openPortal(t);
  const initiator = await session({ keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
  const writing = initiator.command(writeCdb(0, 8), { write: 4096 });
  const ordered = initiator.command(testUnitReady, { attribute: 2 });
  const younger = initiator.command(testUnitReady);
  const r2t = (await initiator.next())!;
  initiator.dataOut(writing, r2t.header.readUInt32BE(20), 0, 0, Buffer.alloc(4096), true);
  for (const itt of [writing, ordered, younger]) t.match(await initiator.collect(itt), { status: 0 });
});

t.test('an ORDERED command whose data comes late holds back the younger all the same', async (t) => {
  const { device, session } = await openPortal(t);
  const initiator = await session({ keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
  const older = initiator.command(writeCdb(0, 8), { write: 4096 });
  const ordered = initiator.command(writeCdb(8, 8), { write: 4096, attribute: 2 });
  const younger = initiator.command(testUnitReady);
  const youngerWrite = initiator.command(writeCdb(16, 8), { write: 4096 });
  const tags = new Map<number, number>();
  for (let n = 0; n < 3; n += 1) {
    const { itt, header } = (await initiator.next())!;
    tags.set(itt, header.readUInt32BE(20));
  }
  t.same([...tags.keys()].sort(), [older, ordered, youngerWrite].sort(), 'nothing is answered before it');
  const send = (itt: number) => initiator.dataOut(itt, tags.get(itt)!, 0, 0, Buffer.alloc(4096), true);
  for (const itt of [youngerWrite, ordered]) send(itt);
  initiator.send({ opcode: 0x00, immediate: true, words: { 20: noTag, 24: initiator.cmdSn } });
  t.equal((await initiator.next())?.opcode, 0x20, 'nor while an older one waits for its data');
  t.equal(device.executed, 0);
  send(older);
  const answered: number[] = [];
  for (let n = 0; n < 4; n += 1) answered.push((await initiator.next())!.itt);
  t.same(answered.slice(0, 2), [older, ordered]);
  t.same(answered.slice(2).sort(), [younger, youngerWrite].sort());
  t.equal(device.executed, 4);
});

t.test('NOP-Out is answered with its data; SNACK, duplicates and unknown opcodes are rejected', async (t) => {
  const { device, session } = await openPortal(t);
  const initiator = await session();
  initiator.send({
    opcode: 0x00,
    itt: 77,
    words: { 20: noTag, 24: initiator.cmdSn },
    data: Buffer.from('hello'),
  });
  initiator.cmdSn += 1;
  const nop = (await initiator.next())!;
  t.same([nop.opcode, nop.itt, nop.data.toString()], [0x20, 77, 'hello']);
  initiator.send({ opcode: 0x10 });
  t.equal((await initiator.next())?.header[2], 3);
  initiator.send({ opcode: 0x1d, immediate: true });
  t.equal((await initiator.next())?.header[2], 5);
  device.isHeld = true;
  const itt = initiator.command(testUnitReady);
  initiator.command(testUnitReady, { itt });
  t.equal((await initiator.next())?.header[2], 7);
  device.flow();
  t.match(await initiator.collect(itt), { status: 0 });
  t.match(await initiator.collect(initiator.command(testUnitReady)), { status: 0 });
});

t.test('task management is answered when what it ended has no effects any more', async (t) => {
  const { device, session, portal } = await openPortal(t);
  const initiator = await session();
  const other = await session({}, 'iqn.2026-11.test:host-b');
  const manage = (fn: number, words: { 20?: number; 32?: number } = {}, lun = Buffer.alloc(8)) => {
    initiator.send({
      opcode: 0x02,
      immediate: true,
      flags: 0x80 | fn,
      lun,
      words: { 24: initiator.cmdSn, ...words },
    });
  };
  const answer = async () => {
    const pdu = (await initiator.next())!;
    return pdu.opcode === 0x22 ? pdu.header[2] : `opcode ${pdu.opcode}`;
  };
  device.isHeld = true;
  const itt = initiator.command(testUnitReady);
  await until(() => device.heldCount === 1);
  manage(1, { 20: itt });
  initiator.send({ opcode: 0x00, immediate: true, words: { 20: noTag } });
  t.equal((await initiator.next())?.opcode, 0x20, 'the ping is answered first');
  device.flow();
  t.equal(await answer(), 0, 'then the abort, and the command never');
  manage(1, { 20: 12_345 });
  t.equal(await answer(), 1, 'no such task');
  manage(5, {}, Buffer.from('0005000000000000', 'hex'));
  t.equal(await answer(), 2, 'no such LUN');
  manage(8);
  t.equal(await answer(), 4);
  manage(3);
  t.equal(await answer(), 5);

  device.isHeld = true;
  const collecting = initiator.command(writeCdb(0, 8), { write: 4096, final: false });
  const theirs = other.command(testUnitReady);
  await until(() => device.heldCount === 1);
  manage(5);
  initiator.send({ opcode: 0x00, immediate: true, words: { 20: noTag } });
  t.equal((await initiator.next())?.opcode, 0x20);
  device.flow();
  t.equal(await answer(), 0, 'LUN reset');
  t.match(device.resets, [/^unit 0000000000000000 iqn.2026-11.test:host-a/]);
  t.match(await other.collect(theirs), { status: 0x40 }, 'others are told TASK ABORTED');
  initiator.dataOut(collecting, noTag, 0, 0, Buffer.alloc(4096), true);
  t.match(
    await initiator.collect(initiator.command(testUnitReady)),
    { status: 0 },
    'late data is of no harm',
  );
  t.equal(portal.transferMemoryBytes, 0);

  manage(6);
  t.equal(await answer(), 0);
  t.match(device.resets[1], /^target/);
  manage(7);
  t.equal(await answer(), 0);
  t.equal(await initiator.next(), null, 'a cold reset ends the connections');
  t.equal(await other.next(), null);
});

t.test('a logout is answered and ends the session', async (t) => {
  const { device, session, portal } = await openPortal(t);
  const initiator = await session();
  initiator.send({ opcode: 0x06, flags: 0x82, words: { 24: initiator.cmdSn } });
  initiator.cmdSn += 1;
  t.equal((await initiator.next())?.header[2], 2, 'recovery is not supported');
  initiator.send({ opcode: 0x06, flags: 0x80, words: { 24: initiator.cmdSn } });
  const answers = await initiator.drain();
  t.match(answers, [{ opcode: 0x26 }]);
  await until(() => portal.connectionCount === 0);
  t.match(device.lost, [/^iqn.2026-11.test:host-a,i,0x800000000001,t,0x0001$/]);
});

t.test(
  'a new login replaces the session of the same initiator port, after its commands have ended',
  async (t) => {
    const { device, session, connect, portal } = await openPortal(t);
    const old = await session();
    device.isHeld = true;
    old.command(writeCdb(0, 8), { write: 4096, data: Buffer.alloc(4096) });
    await until(() => device.heldCount === 1);
    const fresh = await connect();
    const login = fresh.login(iqn);
    t.equal(await old.next(), null, 'the old one is closed');
    t.equal(device.lost.length, 0);
    t.equal(fresh.tsih, 0, 'the new one waits');
    device.flow();
    t.equal(await login, 0);
    t.equal(device.lost.length, 1);
    t.equal(portal.sessions().length, 1);
    const another = await connect();
    another.isid = '800000000002';
    t.equal(await another.login(iqn), 0);
    t.equal(portal.sessions().length, 2, 'another ISID is another session');
  },
);

t.test('an initiator that falls silent is asked, then dropped', async (t) => {
  const clock = new ManualClock();
  const { session, portal } = await openPortal(t, {}, { clock });
  const initiator = await session();
  clock.pass(15_000);
  clock.pass(15_000);
  const ping = (await initiator.next())!;
  t.equal(ping.opcode, 0x20);
  t.equal(ping.itt, noTag);
  t.not(ping.header.readUInt32BE(20), noTag);
  const answer = { opcode: 0x00, immediate: true, itt: noTag, words: { 20: ping.header.readUInt32BE(20) } };
  initiator.send(answer);
  t.match(await initiator.collect(initiator.command(testUnitReady)), { status: 0 });
  clock.pass(20_000);
  t.equal(portal.sessions().length, 1, 'alive');
  clock.pass(15_000);
  t.equal((await initiator.next())?.opcode, 0x20);
  clock.pass(20_000);
  t.equal(await initiator.next(), null);
  await until(() => portal.connectionCount === 0);
});

t.test('sessions of a target can be dropped, one initiator or all', async (t) => {
  const { device, session, portal } = await openPortal(t);
  const a = await session();
  const b = await session({}, 'iqn.2026-11.test:host-b');
  t.equal(await portal.dropSessions(iqn, 'iqn.2026-11.test:nobody'), 0);
  device.isHeld = true;
  b.command(testUnitReady);
  await until(() => device.heldCount === 1);
  let dropped = -1;
  const dropping = portal.dropSessions(iqn, b.name).then((count) => {
    dropped = count;
  });
  const message = (await b.next())!;
  t.same([message.opcode, message.header[36]], [0x32, 3], 'it is told that its connections end');
  t.equal(await b.next(), null);
  t.equal(dropped, -1, 'not while a command of it runs');
  device.flow();
  await dropping;
  t.equal(dropped, 1);
  t.match(await a.collect(a.command(testUnitReady)), { status: 0 });
  t.equal(await portal.dropSessions(iqn), 1);
  t.equal((await a.drain()).at(-1)?.opcode, 0x32);
});

t.test('a draining portal asks its initiators to log out, and takes no new ones', async (t) => {
  const { session, connect, portal } = await openPortal(t);
  const initiator = await session();
  const closing = portal.close({ drainMs: 5000 });
  const message = (await initiator.next())!;
  t.same([message.opcode, message.header[36], message.header.readUInt16BE(42)], [0x32, 1, 5]);
  await t.rejects(connect());
  t.match(await initiator.collect(initiator.command(testUnitReady)), { status: 0 }, 'running work goes on');
  initiator.send({ opcode: 0x06, flags: 0x80, words: { 24: initiator.cmdSn } });
  t.equal((await initiator.next())?.opcode, 0x26);
  await closing;
  t.equal(portal.connectionCount, 0);
});

t.test('without memory for its data a write gets TASK SET FULL, and later ones go on', async (t) => {
  const { device, session, portal } = await openPortal(t, {}, { maxTransferMemoryBytes: 8192 });
  const initiator = await session();
  device.isHeld = true;
  const data = Buffer.alloc(8192);
  const first = initiator.command(writeCdb(0, 16), { write: 8192, data });
  const second = initiator.command(writeCdb(0, 16), { write: 8192, data });
  t.match(await initiator.collect(second), { status: 0x28 });
  device.flow();
  t.match(await initiator.collect(first), { status: 0 });
  t.match(await initiator.collect(initiator.command(writeCdb(0, 16), { write: 8192, data })), { status: 0 });
  t.equal(portal.transferMemoryBytes, 0);
});

t.test('damaged digests end the connection; of data the initiator is told first', async (t) => {
  const { connect, device } = await openPortal(t);
  for (const part of ['header', 'data'] as const) {
    const initiator = await connect();
    initiator.headerDigest = true;
    initiator.dataDigest = true;
    t.equal(await initiator.login(iqn), 0);
    const pdu = initiator.encode({
      opcode: 0x01,
      flags: 0xa1,
      words: { 20: 512, 24: initiator.cmdSn },
      cdb: writeCdb(0, 1),
      data: Buffer.alloc(512, 7),
    });
    pdu[part === 'header' ? 20 : 52 + 100]! ^= 1;
    initiator.socket.write(pdu);
    const answers = await initiator.drain();
    t.same(
      answers.map(({ opcode, header }) => [opcode, header[2]]),
      part === 'data' ? [[0x3f, 2]] : [],
    );
  }
  t.equal(device.executed, 0);
});

t.test('a command both ways, and a transfer beyond all limits, are refused', async (t) => {
  const { session } = await openPortal(t);
  const initiator = await session();
  const both = initiator.command(readCdb(0, 1), { read: 512, write: 512 });
  t.match(await initiator.collect(both), { status: 2 });
  const huge = initiator.command(writeCdb(0, 1), { write: 0xffffffff });
  t.match(await initiator.collect(huge), { status: 2 });
});

t.test('limits on connections hold', async (t) => {
  const { session, connect } = await openPortal(t, {}, { maxConnections: 1 });
  await session();
  const second = await connect();
  t.equal(await second.next(), null);
});
