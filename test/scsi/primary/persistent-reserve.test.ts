import t from 'tap';
import { iscsiTransportId } from '../../../daemon/scsi/primary/persistent-reserve.ts';
import { type Bench, bench, cdb10, type Initiator, pattern } from '../initiator.ts';

const actions = {
  register: 0,
  reserve: 1,
  release: 2,
  clear: 3,
  preempt: 4,
  preemptAndAbort: 5,
  registerIgnoring: 6,
};

function list(key: bigint, actionKey = 0n, flags = 0): Buffer {
  const bytes = Buffer.alloc(24);
  bytes.writeBigUInt64BE(key, 0);
  bytes.writeBigUInt64BE(actionKey, 8);
  bytes[20] = flags;
  return bytes;
}

function out(
  from: Initiator,
  action: keyof typeof actions,
  type: number,
  parameters: Buffer,
): Promise<string> {
  const cdb = Buffer.from([0x5f, actions[action], type, 0, 0, 0, 0, 0, parameters.length, 0]);
  return from.result(cdb, parameters);
}

function persistentIn(from: Initiator, action: number): Promise<Buffer> {
  return from.data(Buffer.from([0x5e, action, 0, 0, 0, 0, 0, 0x10, 0, 0]));
}

async function registered(): Promise<Bench> {
  const made = bench();
  t.equal(await out(made.first, 'register', 0, list(0n, 0xan)), 'GOOD');
  t.equal(await out(made.second, 'registerIgnoring', 0, list(99n, 0xbn)), 'GOOD');
  return made;
}

t.test('keys, the reservation and the full status are read back', async (t) => {
  const { first, second } = await registered();
  const a = '000000000000000a';
  const b = '000000000000000b';
  t.equal((await persistentIn(first, 0)).toString('hex'), `0000000200000010${a}${b}`);
  t.equal((await persistentIn(first, 1)).toString('hex'), '0000000200000000');
  t.equal(await out(second, 'reserve', 0x05, list(0xbn)), 'GOOD');
  t.equal((await persistentIn(first, 1)).toString('hex'), `0000000200000010${b}${'0000000000050000'}`);
  const status = await persistentIn(first, 3);
  const ids = [first, second].map(({ nexus }) => iscsiTransportId(nexus));
  const row = (key: string, holds: string, id: Buffer): string =>
    `${key}00000000${holds}000000000001${id.length.toString(16).padStart(8, '0')}${id.toString('hex')}`;
  t.equal(status.toString('hex', 8), row(a, '0000', ids[0]!) + row(b, '0105', ids[1]!));
  t.equal((await first.data('5e 00 00 00 00 00 00 00 08')).length, 8, 'cut');
  t.equal(await out(second, 'release', 0x05, list(0xbn)), 'GOOD');
  await first.result('00'); // the released reservation is told to the registrants
  t.equal(await out(first, 'reserve', 0x07, list(0xan)), 'GOOD');
  t.equal(
    (await persistentIn(first, 1)).toString('hex', 8),
    `${'00'.repeat(8)}0000000000070000`,
    'key 0: all hold it',
  );
});

t.test('capabilities: six types, and nothing that is refused', async (t) => {
  const { first } = bench();
  t.equal((await persistentIn(first, 2)).toString('hex'), '00080080ea010000');
});

t.test('an iSCSI TransportID is the initiator port name, or the name alone', async (t) => {
  const port = iscsiTransportId('iqn.a:b,i,0x00023d000001,t,0x1');
  t.equal(port[0], 0x45);
  t.equal(port.readUInt16BE(2), port.length - 4);
  t.equal(port.length % 4, 0);
  t.equal(port.toString('latin1', 4).replace(/\0+$/, ''), 'iqn.a:b,i,0x00023d000001');
  const device = iscsiTransportId('iqn.a:b');
  t.equal(device[0], 0x05);
  t.equal(device.length, 24, 'never shorter than 24 bytes');
});

t.test('commands of others end with RESERVATION CONFLICT as the type says', async (t) => {
  const { first, second } = await registered();
  await out(first, 'reserve', 0x01, list(0xan));
  t.equal(await second.write(0, pattern(1)), 'CONFLICT');
  t.equal((await second.read(0, 1)).length, 512);
  t.equal(await second.result('00'), 'GOOD');
  t.equal(await second.result('1a 08 3f 00 ff'), 'CONFLICT');
  t.equal(await second.result('25'), 'GOOD');
  await out(first, 'release', 0x01, list(0xan));
  await out(first, 'reserve', 0x03, list(0xan));
  t.equal(await second.result(cdb10(0x28, 0, 0, 1)), 'CONFLICT');
  t.equal(await first.write(0, pattern(1)), 'GOOD');
  t.equal(await second.result('16'), 'CONFLICT', 'RESERVE(6)');
});

t.test('parameter lists and CDBs are checked', async (t) => {
  const { first } = await registered();
  for (const action of Object.keys(actions) as (keyof typeof actions)[]) {
    t.equal(await out(first, action, 0x01, list(0xan).subarray(0, 20)), '05/1a/00', action);
    t.equal(await out(first, action, 0x01, Buffer.alloc(28)), '05/1a/00', action);
    for (const flag of [0x01, 0x04, 0x08])
      t.equal(await out(first, action, 0x01, list(0xan, 0n, flag)), '05/26/00');
  }
  const short = Buffer.from([0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
  t.equal(await first.result(short, Buffer.alloc(8)), '05/1a/00', 'less came than announced');
  for (const action of ['reserve', 'release', 'preempt', 'preemptAndAbort'] as const) {
    for (const type of [0x00, 0x02, 0x04, 0x09, 0x0f, 0x11]) {
      t.equal(await out(first, action, type, list(0xan)), '05/24/00', `${action} type ${type}`);
    }
  }
  t.equal(await out(first, 'release', 0x01, list(0xan)), 'GOOD');
  t.equal(await out(first, 'reserve', 0x01, list(0xbn)), 'CONFLICT');
  t.equal(await out(first, 'reserve', 0x01, list(0xan)), 'GOOD');
  t.equal(await out(first, 'release', 0x03, list(0xan)), '05/26/04');
});

t.test('a preempted initiator hears of it, and its reservation is the other one’s', async (t) => {
  const { first, second } = await registered();
  await out(first, 'reserve', 0x03, list(0xan));
  t.equal(await out(second, 'preempt', 0x03, list(0xbn, 0xan)), 'GOOD');
  t.equal(await first.result('00'), '06/2a/05');
  t.equal(await first.write(0, pattern(1)), 'CONFLICT');
  t.equal(await second.write(0, pattern(1)), 'GOOD');
  t.equal(await out(second, 'clear', 0, list(0xbn)), 'GOOD');
  t.equal(await first.write(0, pattern(1)), 'GOOD');
});

t.test('PREEMPT AND ABORT answers when nothing of the preempted is in the device any more', async (t) => {
  const { device, server, first, second } = await registered();
  await out(first, 'reserve', 0x01, list(0xan));
  for (const loses of [false, true]) {
    device.paused = true;
    const ended: string[] = [];
    const written = first.write(0, pattern(1)).then((result) => ended.push(`write ${result}`));
    if (loses) server.nexusLost(first.nexus);
    const preempted = out(second, 'preemptAndAbort', 0x01, list(0xbn, 0xan)).then((r) =>
      ended.push(`preempt ${r}`),
    );
    await new Promise(setImmediate);
    t.same(ended, []);
    t.equal(await first.result('00'), '06/2a/05', 'also when it comes back');
    device.release();
    await Promise.all([written, preempted]);
    t.same(ended, ['write GOOD', 'preempt GOOD']);
    t.equal(await first.write(0, pattern(1)), 'CONFLICT');
    await out(second, 'release', 0x01, list(0xbn));
    await first.result('00');
    await out(first, 'register', 0, list(0n, 0xan));
    await out(first, 'reserve', 0x01, list(0xan));
  }
  t.equal(await out(second, 'preemptAndAbort', 0x01, list(0xbn, 0x77n)), 'CONFLICT');
});

t.test('RESERVE(6) keeps persistent commands out, the holder’s own too', async (t) => {
  const { first, second } = bench();
  t.equal(await first.result('56'), 'GOOD');
  t.equal(await second.result('16'), 'CONFLICT');
  for (const from of [first, second]) {
    for (const action of [0, 1, 2, 3]) {
      t.equal(await from.result(Buffer.from([0x5e, action, 0, 0, 0, 0, 0, 0x10, 0, 0])), 'CONFLICT');
    }
    t.equal(await out(from, 'register', 0, list(0n, 1n)), 'CONFLICT');
    t.equal(await out(from, 'reserve', 1, list(0n, 1n)), 'CONFLICT');
  }
  t.equal(await second.result('17'), 'GOOD', 'releases nothing');
  t.equal(await second.write(0, pattern(1)), 'CONFLICT');
  t.equal(await first.result('57'), 'GOOD');
  t.equal(await second.write(0, pattern(1)), 'GOOD');
  await out(second, 'register', 0, list(0n, 1n));
  t.equal(await first.result('16'), 'CONFLICT');
  t.equal(await first.result('17'), 'CONFLICT');
});
