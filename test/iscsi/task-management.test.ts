import { randomBytes } from 'node:crypto';
import t from 'tap';
import { iqn, openPortal, until } from './fixture.ts';
import { type Initiator, noTag } from './initiator.ts';
import { inquiryCdb, readCdb, writeCdb } from './memory-device.ts';

const testUnitReady = Buffer.alloc(16);
const lun0 = Buffer.alloc(8);

/** Sends a task management request; the answer comes by itself. */
function manage(
  initiator: Initiator,
  fn: number,
  words: { 20?: number; 24?: number; 32?: number } = {},
  lun = lun0,
): number {
  const itt = initiator.itt();
  const all = { 20: noTag, 24: initiator.cmdSn, ...words };
  initiator.send({ opcode: 0x02, immediate: true, flags: 0x80 | fn, lun, itt, words: all });
  return itt;
}

async function answerTo(initiator: Initiator, itt: number): Promise<number> {
  const pdu = (await initiator.next())!;
  if (pdu.opcode !== 0x22 || pdu.itt !== itt) throw new Error(`opcode ${pdu.opcode} for ${pdu.itt}`);
  return pdu.header[2]!;
}

/** The target has taken everything sent so far. */
async function settle(initiator: Initiator): Promise<void> {
  initiator.send({ opcode: 0x00, immediate: true, itt: 0x7000, words: { 20: noTag, 24: initiator.cmdSn } });
  const pdu = (await initiator.next())!;
  if (pdu.opcode !== 0x20) throw new Error(`opcode ${pdu.opcode} before the NOP-In`);
}

t.test('a task on its way counts as received and aborted; what comes of it later is ignored', async (t) => {
  const { device, session } = await openPortal(t);
  const initiator = await session();
  const base = initiator.cmdSn;
  initiator.cmdSn = base + 3;
  const abort = manage(initiator, 1, { 20: 500, 32: base + 1 });
  t.equal(await answerTo(initiator, abort), 0, 'function complete');
  initiator.command(inquiryCdb(36), { read: 36, cmdSn: base + 1, itt: 500 });
  const first = initiator.command(inquiryCdb(36), { read: 36, cmdSn: base });
  const third = initiator.command(inquiryCdb(36), { read: 36, cmdSn: base + 2 });
  t.match(await initiator.collect(first), { status: 0 });
  t.match(await initiator.collect(third), { status: 0 }, 'the ones after it are not held up');
  t.equal(device.executed, 2);
});

t.test('a task answered already, and one outside the window, do not exist', async (t) => {
  const { session } = await openPortal(t);
  const initiator = await session();
  const answered = initiator.cmdSn;
  const itt = initiator.command(inquiryCdb(36), { read: 36 });
  await initiator.collect(itt);
  t.equal(await answerTo(initiator, manage(initiator, 1, { 20: itt, 32: answered })), 1);
  t.equal(await answerTo(initiator, manage(initiator, 1, { 20: 900, 32: initiator.cmdSn + 1000 })), 1);
  const same = { 20: 900, 32: initiator.cmdSn };
  t.equal(await answerTo(initiator, manage(initiator, 1, same)), 1, 'nor one that came after the request');
});

t.test('a task is aborted at its own logical unit only', async (t) => {
  const { device, session } = await openPortal(t);
  const initiator = await session();
  device.isHeld = true;
  const itt = initiator.command(testUnitReady);
  await until(() => device.heldCount === 1);
  const other = Buffer.from('0001000000000000', 'hex');
  t.equal(await answerTo(initiator, manage(initiator, 1, { 20: itt }, other)), 255);
  device.flow();
  t.match(await initiator.collect(itt), { status: 0 });
});

t.test('a reset that overtook commands waits for them, and ends them', async (t) => {
  const { device, session } = await openPortal(t);
  const initiator = await session();
  device.isHeld = true;
  const base = initiator.cmdSn;
  initiator.cmdSn = base + 1;
  const reset = manage(initiator, 5);
  await settle(initiator);
  t.same(device.resets, [], 'the command before it is not here');
  initiator.command(testUnitReady, { cmdSn: base });
  await until(() => device.heldCount === 1, 'the command');
  await settle(initiator);
  t.same(device.resets, [], 'nor before it has ended');
  device.flow();
  t.equal(await answerTo(initiator, reset), 0, 'the command is not answered');
  t.equal(device.resets.length, 1);
});

t.test(
  'ABORT TASK SET ends the own tasks in silence; CLEAR TASK SET also those of others, who are told',
  async (t) => {
    const { device, session } = await openPortal(t);
    const initiator = await session();
    const other = await session({}, 'iqn.2026-11.test:host-b');
    device.isHeld = true;
    initiator.command(testUnitReady);
    const writing = initiator.command(writeCdb(0, 8), { write: 4096, final: false });
    const theirs = other.command(testUnitReady);
    await until(() => device.heldCount === 2);
    const set = manage(initiator, 2);
    await settle(initiator);
    device.flow();
    t.equal(await answerTo(initiator, set), 0);
    t.match(await other.collect(theirs), { status: 0 }, "others' tasks are not meant");
    initiator.dataOut(writing, noTag, 0, 0, Buffer.alloc(4096), true);

    device.isHeld = true;
    initiator.command(testUnitReady);
    const again = other.command(writeCdb(0, 8), { write: 4096, final: false });
    const running = other.command(testUnitReady);
    await until(() => device.heldCount === 2);
    const clear = manage(initiator, 4);
    t.match(await other.collect(again), { status: 0x40 }, 'TASK ABORTED at once for what had not begun');
    const later = initiator.command(testUnitReady);
    await settle(initiator);
    device.flow();
    t.match(await other.collect(running), { status: 0x40 });
    t.equal(await answerTo(initiator, clear), 0);
    t.match(await initiator.collect(later), { status: 0 }, 'what came after the request goes on');
    t.same(device.resets, []);
  },
);

t.test('only who may use every logical unit resets the target', async (t) => {
  const { device, session } = await openPortal(t);
  const guest = await session({}, 'iqn.2026-11.test:guest');
  t.equal(await answerTo(guest, manage(guest, 6)), 6, 'function authorization failed');
  t.equal(await answerTo(guest, manage(guest, 7)), 6);
  t.same(device.resets, []);
  t.match(await guest.collect(guest.command(testUnitReady)), { status: 0 });
});

t.test('functions that do not end pile up to a limit', async (t) => {
  const { device, session } = await openPortal(t);
  const initiator = await session();
  device.isHeld = true;
  const itt = initiator.command(testUnitReady);
  await until(() => device.heldCount === 1);
  for (let n = 0; n < 33; n += 1) manage(initiator, 1, { 20: itt });
  const rejected = (await initiator.next())!;
  t.same([rejected.opcode, rejected.header[2]], [0x3f, 6], 'too many immediate');
  device.flow();
  for (let n = 0; n < 32; n += 1) t.equal((await initiator.next())?.header[2], 0);
});

t.test(
  'who is preempted hears TASK ABORTED, and the preemptor goes on when nothing of it runs',
  async (t) => {
    const { device, session, portal } = await openPortal(t);
    const initiator = await session();
    const bystander = await session({}, 'iqn.2026-11.test:host-b');
    device.isHeld = true;
    const theirs = bystander.command(testUnitReady);
    const running = initiator.command(testUnitReady);
    const collecting = initiator.command(writeCdb(0, 8), { write: 4096, final: false });
    const elsewhere = initiator.command(testUnitReady, { lun: Buffer.from('0002000000000000', 'hex') });
    const reserving = initiator.command(readCdb(0, 0, 0x5f));
    await until(() => device.heldCount === 4);
    const nexus = `${initiator.name},i,0x${initiator.isid},t,0x0001`;
    let isDone = false;
    portal.abortTasks(iqn, nexus, lun0, () => {
      isDone = true;
    });
    t.match(await initiator.collect(collecting), { status: 0x40 });
    t.notOk(isDone, 'one is in the device');
    device.flow();
    t.ok(isDone);
    t.match(await initiator.collect(running), { status: 0x40 });
    t.match(await initiator.collect(elsewhere), { status: 0 }, 'another logical unit is not meant');
    await initiator.collect(reserving);
    t.match(await bystander.collect(theirs), { status: 0 }, 'nor another nexus');
    let isNobody = false;
    portal.abortTasks(iqn, 'iqn.nobody,i,0x800000000009,t,0x0001', lun0, () => {
      isNobody = true;
    });
    t.ok(isNobody, 'who is not logged in has no tasks');
    t.equal(portal.transferMemoryBytes, 0);
  },
);

t.test('data of an aborted write does no harm to a write that has its tag next', async (t) => {
  const { device, session } = await openPortal(t);
  const initiator = await session({ keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
  const itt = initiator.command(writeCdb(0, 8), { write: 4096 });
  const r2t = (await initiator.next())!;
  t.equal(await answerTo(initiator, manage(initiator, 1, { 20: itt })), 0);
  initiator.dataOut(itt, r2t.header.readUInt32BE(20), 0, 0, randomBytes(4096), true);
  const data = randomBytes(4096);
  initiator.command(writeCdb(0, 8), { write: 4096, itt });
  const second = (await initiator.next())!;
  t.not(second.header.readUInt32BE(20), r2t.header.readUInt32BE(20));
  initiator.dataOut(itt, second.header.readUInt32BE(20), 0, 0, data, true);
  t.match(await initiator.collect(itt), { status: 0 });
  t.ok(device.bytes.subarray(0, 4096).equals(data));
});

t.test('requests outside the window are ignored, and count for nothing', async (t) => {
  const { session } = await openPortal(t);
  const initiator = await session();
  for (let n = 0; n < 40; n += 1) {
    const words = { 20: noTag, 24: initiator.cmdSn - 1 };
    initiator.send({ opcode: 0x02, flags: 0x82, itt: initiator.itt(), words });
  }
  t.equal(await answerTo(initiator, manage(initiator, 2)), 0);
});
