/** Initiators that take memory and send nothing, from addresses of their own, beside one that writes. */
import t from 'tap';
import { iqn, ManualClock, openPortal, until } from './fixture.ts';
import type { Initiator } from './initiator.ts';
import { readCdb, writeCdb } from './memory-device.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const testUnitReady = Buffer.alloc(16);
const solicited = { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } };
const goodStatus = 0;
const taskSetFull = 0x28;
const pieceBytes = 64 * KiB;

type Connect = Awaited<ReturnType<typeof openPortal>>['connect'];

async function logIn(connect: Connect, from: string, name: string, options = {}): Promise<Initiator> {
  const initiator = await connect(1, from);
  initiator.name = `iqn.2026-11.test:${name}`;
  t.equal(await initiator.login(iqn, options), 0);
  return initiator;
}

/** Announces writes that it does not send, until it is refused. Answers how many were not. */
async function announce(initiator: Initiator, bytes: number): Promise<number> {
  for (let count = 0; ; count += 1) {
    initiator.command(writeCdb(0, bytes / 512), { write: bytes });
    const answer = await initiator.next();
    if (answer === null || answer.header[0] !== 0x31) return count;
  }
}

/** A write with its data, and its status. */
async function write(initiator: Initiator, bytes: number): Promise<number> {
  const itt = initiator.command(writeCdb(0, bytes / 512), { write: bytes });
  for (;;) {
    const answer = await initiator.next();
    if (answer === null) return -1;
    if (answer.header[0] !== 0x31) return answer.header[3]!;
    const at = answer.header.readUInt32BE(40);
    const end = at + answer.header.readUInt32BE(44);
    for (let offset = at; offset < end; offset += pieceBytes) {
      const data = Buffer.alloc(Math.min(pieceBytes, end - offset));
      const isLast = offset + data.length === end;
      initiator.dataOut(
        itt,
        answer.header.readUInt32BE(20),
        (offset - at) / pieceBytes,
        offset,
        data,
        isLast,
      );
    }
  }
}

const hostileAddresses = Array.from({ length: 8 }, (_, n) => `127.0.0.${n + 2}`);

/** Fills all of the memory from eight addresses with three sessions each. */
async function besiege(connect: Connect): Promise<Initiator[]> {
  const hostile: Initiator[] = [];
  for (const address of hostileAddresses) {
    for (let n = 0; n < 3; n += 1) {
      const initiator = await logIn(connect, address, `hostile-${address}-${n}`, solicited);
      hostile.push(initiator);
      for (const bytes of [4 * MiB, 512 * KiB, 64 * KiB, 4 * KiB]) await announce(initiator, bytes);
    }
  }
  return hostile;
}

t.test(
  '24 sessions of 8 addresses hold all the memory; another writes beside them without waiting',
  async (t) => {
    const clock = new ManualClock();
    const { connect, portal } = await openPortal(t, {}, { clock, maxTransferMemoryBytes: 64 * MiB });
    await besiege(connect);
    t.ok(portal.transferMemoryBytes >= 63 * MiB, `${portal.transferMemoryBytes} bytes are held`);
    const healthy = await logIn(connect, '127.0.0.100', 'healthy', solicited);
    let slowestMs = 0;
    for (let n = 0; n < 200; n += 1) {
      const beganMs = performance.now();
      t.equal(await write(healthy, 128 * KiB), goodStatus);
      slowestMs = Math.max(slowestMs, performance.now() - beganMs);
    }
    t.ok(slowestMs < 2000, `the slowest write took ${slowestMs} ms`);
    t.equal(portal.sessions().length, 25, 'and no time has passed for the others');
  },
);

t.test(
  'when somebody waits, who sends nothing loses its memory in seconds, and does not get it back',
  async (t) => {
    const clock = new ManualClock();
    const { connect, portal } = await openPortal(t, {}, { clock, maxTransferMemoryBytes: 64 * MiB });
    const hostile = await besiege(connect);
    const healthy = await logIn(connect, '127.0.0.100', 'healthy', solicited);
    t.equal(await write(healthy, MiB), taskSetFull, 'more than is reserved for it');
    clock.pass(8_000);
    t.equal(portal.transferMemoryBytes, 0);
    await until(
      () => hostile.filter(({ isClosed }) => isClosed).length >= 3,
      'those that held it to be gone',
    );
    t.equal(await write(healthy, MiB), goodStatus);
    const again = await besiege(connect);
    t.ok(portal.transferMemoryBytes <= 8 * 2.25 * MiB, `${portal.transferMemoryBytes} bytes are held again`);
    t.equal(await write(healthy, MiB), goodStatus);
    t.equal(again.filter(({ isClosed }) => isClosed).length, 0);
  },
);

t.test('while nobody waits, an initiator has its minute', async (t) => {
  const clock = new ManualClock();
  const { connect, portal } = await openPortal(t, {}, { clock, maxTransferMemoryBytes: 64 * MiB });
  const slow = await logIn(connect, '127.0.0.2', 'slow', solicited);
  slow.command(writeCdb(0, 2048), { write: MiB });
  await slow.next();
  for (let n = 0; n < 3; n += 1) {
    clock.pass(14_000);
    t.match(await slow.collect(slow.command(testUnitReady)), { status: goodStatus });
  }
  t.equal(portal.sessions().length, 1);
});

t.test('who gets on keeps its memory, however many wait', async (t) => {
  const clock = new ManualClock();
  const { connect, portal } = await openPortal(t, {}, { clock, maxTransferMemoryBytes: 2 * MiB });
  const slow = await logIn(connect, '127.0.0.2', 'slow', solicited);
  const waiting = await logIn(connect, '127.0.0.3', 'waiting', solicited);
  const itt = slow.command(writeCdb(0, 2048), { write: MiB });
  const ttt = (await slow.next())!.header.readUInt32BE(20);
  const part = 64 * KiB;
  for (let n = 0; n < 15; n += 1) {
    t.equal(await write(waiting, 2 * MiB), taskSetFull);
    slow.dataOut(itt, ttt, n, n * part, Buffer.alloc(part), false);
    t.match(await slow.collect(slow.command(testUnitReady)), { status: goodStatus });
    clock.pass(4_000);
  }
  t.equal(portal.sessions().length, 2);
  slow.dataOut(itt, ttt, 15, 15 * part, Buffer.alloc(part), true);
  t.match(await slow.collect(itt), { status: goodStatus });
  t.equal(await write(waiting, 2 * MiB), goodStatus);
});

t.test('what hides memory another way loses it, too', async (t) => {
  const cases: Record<string, (initiator: Initiator) => void> = {
    'commands behind one that never comes': (initiator) => {
      initiator.cmdSn += 1;
      initiator.command(writeCdb(0, 1024), { write: 512 * KiB, data: Buffer.alloc(KiB) });
    },
    'a command whose immediate data never ends': (initiator) => {
      const pdu = initiator.encode({
        opcode: 0x01,
        flags: 0xa1,
        words: { 20: 512 * KiB, 24: initiator.cmdSn },
        cdb: writeCdb(0, 1024),
        data: Buffer.alloc(64 * KiB),
      });
      initiator.socket.write(pdu.subarray(0, 32 * KiB));
    },
  };
  for (const [what, hide] of Object.entries(cases)) {
    const clock = new ManualClock();
    const { connect, portal } = await openPortal(t, {}, { clock, maxTransferMemoryBytes: MiB });
    const hostile = await logIn(connect, '127.0.0.2', 'hostile');
    const waiting = await logIn(connect, '127.0.0.3', 'waiting', solicited);
    hide(hostile);
    await until(() => portal.transferMemoryBytes === 512 * KiB, what);
    t.equal(await write(waiting, MiB), taskSetFull, what);
    clock.pass(4_000);
    await until(() => hostile.isClosed, what);
    t.equal(portal.transferMemoryBytes, 0);
    t.equal(await write(waiting, MiB), goodStatus);
  }
});

t.test('writes that cannot begin because their initiator does not read are no shelter', async (t) => {
  const clock = new ManualClock();
  const { device, connect, portal } = await openPortal(t, {}, { clock, maxTransferMemoryBytes: MiB });
  const hostile = await logIn(connect, '127.0.0.2', 'hostile');
  const waiting = await logIn(connect, '127.0.0.3', 'waiting', solicited);
  hostile.socket.pause();
  for (let n = 0; n < 120; n += 1) hostile.command(readCdb(0, 512), { read: 256 * KiB });
  await until(() => device.unreleased === 64, 'all that moves at once');
  const data = Buffer.alloc(256 * KiB);
  hostile.command(writeCdb(0, 512), { write: data.length, data });
  await until(() => portal.transferMemoryBytes === data.length);
  t.equal(await write(waiting, MiB), taskSetFull);
  clock.pass(4_000);
  await until(() => portal.transferMemoryBytes === 0, 'its memory');
  t.equal(await write(waiting, MiB), goodStatus);
});

t.test(
  'sessions that read much and take nothing fill a bounded memory, and lose it when others wait',
  async (t) => {
    const clock = new ManualClock();
    const limits = { clock, maxDataInMemoryBytes: 16 * MiB };
    const { device, connect, portal } = await openPortal(t, {}, limits);
    const small = await logIn(connect, '127.0.0.100', 'small');
    const large = await logIn(connect, '127.0.0.101', 'large');
    const read = async (initiator: Initiator, bytes: number) =>
      (await initiator.collect(initiator.command(readCdb(0, bytes / 512), { read: bytes }))).status;
    for (let n = 0; n < 16; n += 1) {
      const hostile = await logIn(connect, `127.0.0.${n + 2}`, `hostile-${n}`);
      hostile.socket.pause();
      for (let count = 0; count < 4; count += 1) hostile.command(readCdb(0, 16384), { read: 8 * MiB });
      const { executed } = device;
      await until(() => device.executed > executed || device.unreleased >= 4, 'its first to begin');
    }
    await until(() => device.unreleased >= 4);
    t.equal(await read(small, 128 * KiB), goodStatus);
    t.ok(device.unreleased <= 8, `${device.unreleased} of 8 MiB are under way`);
    t.equal(await read(large, MiB), taskSetFull);
    clock.pass(8_000);
    await until(() => device.unreleased === 0);
    t.equal(await read(large, MiB), goodStatus);
    t.ok(portal.sessions().length < 18);
  },
);
