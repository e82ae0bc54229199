import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { encodeTransportId } from '../../../daemon/scsi/primary/transport-id.ts';
import { bench, cdb10, Initiator, pattern } from '../initiator.ts';
import {
  type Action,
  actions,
  keys,
  list,
  moveList,
  out,
  persistentIn,
  registered,
  transportIds,
} from './persistent-commands.ts';

const portOf = (nexus: string): string => nexus.replace(/,t,.*/, '');
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const specify = 0x08;
const allPorts = 0x04;
const aptpl = 0x01;

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
  t.equal(await first.result('16'), 'GOOD', 'RESERVE(6) of the holder changes nothing');
  t.equal(await first.result('17'), 'GOOD');
  t.equal(await second.result(cdb10(0x28, 0, 0, 1)), 'CONFLICT');
});

t.test('some commands are allowed in one form only (SPC-4 table 66, SBC-3 table 13)', async (t) => {
  const { first, second } = await registered();
  for (const type of [1, 3, 5, 6]) {
    t.equal(await out(first, 'reserve', type, list(0xan)), 'GOOD');
    const shared = type >= 5 ? 'GOOD' : 'CONFLICT';
    t.equal(await second.result('1b 00 00 00 01'), 'GOOD', 'START');
    t.equal(await second.result('1b 00 00 00 00'), shared, 'STOP');
    t.equal(await second.result('1e 00 00 00 00'), 'GOOD', 'ALLOW');
    t.equal(await second.result('1e 00 00 00 01'), shared, 'PREVENT');
    t.equal(await out(first, 'release', type, list(0xan)), 'GOOD');
    await second.result('00');
  }
});

t.test('parameter lists and CDBs are checked', async (t) => {
  const { first } = await registered();
  const plain = (Object.keys(actions) as Action[]).filter((action) => actions[action] < 7);
  for (const action of plain) {
    t.equal(await out(first, action, 0x01, list(0xan).subarray(0, 20)), '05/1a/00', action);
    t.equal(await out(first, action, 0x01, Buffer.alloc(28)), '05/1a/00', action);
    for (const flag of [0x02, 0x10, 0x80])
      t.equal(await out(first, action, 0x01, list(0xan, 0n, flag)), '05/26/00', `${action}, reserved bits`);
    if (action !== 'register') t.equal(await out(first, action, 0x01, list(0xan, 0n, specify)), '05/26/00');
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
  t.equal(await out(first, 'reserve', 0x01, list(0xan, 0n, aptpl | allPorts)), 'GOOD', 'not for this action');
  t.equal(await out(first, 'release', 0x03, list(0xan)), '05/26/04');
  t.equal(await out(first, 'replaceLost', 0x01, list(0xan)), '05/24/00', 'REPLACE LOST RESERVATION');
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

t.test('a registered initiator that was logged out hears of it when it comes back', async (t) => {
  const { server, first, second } = await registered();
  await out(first, 'reserve', 0x05, list(0xan));
  server.nexusLost(second.nexus);
  await out(first, 'release', 0x05, list(0xan));
  await out(first, 'release', 0x05, list(0xan));
  t.same(await keys(first), [0xan, 0xbn], 'its registration stays');
  t.equal(await second.result('00'), '06/2a/04');
  t.equal(await second.result('00'), 'GOOD', 'once');
  server.nexusLost(second.nexus);
  await out(first, 'preempt', 0x05, list(0xan, 0xbn));
  t.equal(await second.result('12 00 00 00 ff'), 'GOOD', 'INQUIRY does not report it');
  server.nexusLost(second.nexus);
  t.equal(await second.result('00'), 'GOOD', 'what was not reported is lost with the nexus');
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
    await turn();
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

t.test(
  'PREEMPT AND ABORT ends the tasks of every preempted nexus, and answers when they have ended',
  async (t) => {
    const asked: string[] = [];
    const waiting: (() => void)[] = [];
    const abortTasks = (nexus: string, lun: Buffer, done: () => void): void => {
      asked.push(`${nexus} ${lun.toString('hex')}`);
      waiting.push(done);
    };
    const { server, first, second } = await registered({ abortTasks });
    const third = new Initiator(server, 'iqn.2026-01.test:c,i,0x800000000003,t,0x0001');
    await out(third, 'register', 0, list(0n, 0xan));
    let answer = '';
    const preempted = out(second, 'preemptAndAbort', 0x01, list(0xbn, 0xan)).then((result) => {
      answer = result;
    });
    await turn();
    t.same(asked, [`${first.nexus} ${'00'.repeat(8)}`, `${third.nexus} ${'00'.repeat(8)}`]);
    waiting[0]!();
    await turn();
    t.equal(answer, '', 'not before both');
    t.equal(await out(second, 'reserve', 0x01, list(0xbn)), 'GOOD', 'others go on meanwhile');
    waiting[1]!();
    await preempted;
    t.equal(answer, 'GOOD');
    asked.length = 0;
    t.equal(await out(second, 'preemptAndAbort', 0x01, list(0xbn, 0xbn)), 'GOOD', 'nobody but itself');
    t.same(asked, []);
  },
);

t.test('SPEC_I_PT registers the initiator ports of the TransportIDs', async (t) => {
  const { server, first, second } = bench({ ports: () => [1, 2] });
  await second.result('00');
  const known = new Initiator(server, 'iqn.2026-01.test:b,i,0x800000000007,t,0x0002');
  await known.result('00');
  const absent = encodeTransportId('iqn.2026-01.test:z,i,0x80000000000f');
  const byName = encodeTransportId('iqn.2026-01.test:b');
  t.equal(await out(first, 'register', 0, list(0n, 5n, specify, transportIds(absent, byName))), 'GOOD');
  const status = (await persistentIn(first, 3)).toString('latin1');
  for (const port of [portOf(first.nexus), 'iqn.2026-01.test:z,i,0x80000000000f', portOf(second.nexus)])
    t.ok(status.includes(port), port);
  t.ok(status.includes(portOf(known.nexus)), 'each port of an initiator that is known here');
  t.same(await keys(first), [5n, 5n, 5n, 5n]);
  t.equal((await persistentIn(first, 0)).readUInt32BE(0), 1, 'one change');
  t.equal(await out(second, 'reserve', 0x01, list(5n)), 'GOOD', 'it may use it');
  t.equal(
    await out(first, 'register', 0, list(5n, 6n, specify, transportIds())),
    '05/24/00',
    'is registered',
  );
  const late = new Initiator(server, 'iqn.2026-01.test:l,i,0x800000000009,t,0x0002');
  const both = specify | allPorts;
  t.equal(
    await out(late, 'register', 0, list(0n, 7n, both, transportIds(absent))),
    'CONFLICT',
    'has another key',
  );
  const other = encodeTransportId('iqn.2026-01.test:y,i,0x80000000000e');
  t.equal(await out(late, 'register', 0, list(0n, 7n, both, transportIds(other))), 'GOOD');
  t.equal((await keys(first)).filter((key) => key === 7n).length, 4, 'both, with both ports');
});

t.test('the list of TransportIDs is checked, and then nobody is registered', async (t) => {
  const { first } = bench();
  const id = encodeTransportId('iqn.2026-01.test:z,i,0x80000000000f');
  const register = (more: Buffer): Promise<string> => out(first, 'register', 0, list(0n, 5n, specify, more));
  t.equal(await register(Buffer.alloc(0)), '05/1a/00', 'no length');
  t.equal(await register(transportIds(id).subarray(0, -1)), '05/1a/00', 'longer than what came');
  const sas = Buffer.from(id);
  sas[0] = 0x06;
  t.equal(await register(transportIds(sas)), '05/26/00', 'another protocol');
  const cut = Buffer.from(id);
  cut.writeUInt16BE(id.length, 2);
  t.equal(await register(transportIds(id, cut)), '05/26/00', 'the last one is cut');
  t.same(await keys(first), []);
});

t.test('ALL_TG_PT registers with every target port there is', async (t) => {
  const { server, first } = bench({ ports: () => [1, 2, 3] });
  t.equal(await out(first, 'register', 0, list(0n, 5n, allPorts)), 'GOOD');
  t.same(await keys(first), [5n, 5n, 5n]);
  const third = new Initiator(server, first.nexus.replace('0x0001', '0x0003'));
  t.equal(await out(third, 'reserve', 0x01, list(5n)), 'GOOD');
  t.equal(await first.write(0, pattern(1)), 'CONFLICT', 'another nexus is another holder');
  t.equal(await out(third, 'register', 0, list(5n, 0n)), 'GOOD', 'one path leaves');
  t.same(await keys(first), [5n, 5n]);
  t.equal(await out(first, 'registerIgnoring', 0, list(0n, 6n, allPorts)), 'GOOD');
  t.same(await keys(first), [6n, 6n, 6n]);
});

t.test('REGISTER AND MOVE hands the reservation to a nexus that may be absent', async (t) => {
  const { server, first, second } = await registered({ ports: () => [1, 2] });
  await out(first, 'reserve', 0x03, list(0xan));
  const third = new Initiator(server, 'iqn.2026-01.test:c,i,0x800000000003,t,0x0002');
  const id = encodeTransportId(portOf(third.nexus));
  const move = (from: Initiator, key: bigint, flags = 0, port = 2, to = id): Promise<string> =>
    out(from, 'move', 0, moveList(key, 0xcn, flags, port, to));
  t.equal(await move(second, 0xbn), 'CONFLICT', 'not the holder');
  t.equal(await move(first, 0xbn), 'CONFLICT', 'not its key');
  t.equal(await move(first, 0xan, 0, 3), '05/26/00', 'no such target port');
  t.equal(await move(first, 0xan, 0, 0), '05/26/00', 'no such target port');
  t.equal(await move(first, 0xan, 0x04), '05/26/00', 'a reserved bit');
  t.equal(await move(first, 0xan, 0, 2, encodeTransportId('iqn.2026-01.test:c')), '05/26/00', 'no port');
  t.equal(await move(first, 0xan, 0, 2, Buffer.alloc(24)), '05/26/00', 'no iSCSI TransportID');
  t.equal(await move(first, 0xan, 0, 2, Buffer.concat([id, Buffer.alloc(4)])), '05/26/00', 'more than one');
  t.equal(await move(first, 0xan, 0, 1, encodeTransportId(portOf(first.nexus))), '05/26/00', 'to itself');
  const longer = moveList(0xan, 0xcn, 0, 2, id);
  longer.writeUInt32BE(id.length + 4, 20);
  t.equal(await out(first, 'move', 0, longer), '05/1a/00');
  t.equal(await first.write(0, pattern(1)), 'GOOD', 'it is the holder still');
  t.equal((await persistentIn(first, 0)).readUInt32BE(0), 2);

  t.equal(await move(first, 0xan, 0x02), 'GOOD');
  t.same(await keys(first), [0xbn, 0xcn], 'UNREG');
  t.equal(await first.write(0, pattern(1)), 'CONFLICT');
  t.equal(await third.write(0, pattern(1)), 'GOOD');
  t.equal(await second.result('00'), 'GOOD', 'nobody lost anything to be told of');
  t.equal(await out(third, 'release', 0x03, list(0xcn)), 'GOOD');
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

t.test('with APTPL a restart keeps registrations and reservation; without it they are gone', async (t) => {
  for (const flags of [aptpl, 0]) {
    const { first, second, kept } = await registered({ flags });
    t.equal(await out(second, 'reserve', 0x06, list(0xbn)), 'GOOD');
    const again = bench({ kept });
    if (flags === 0) {
      t.equal(kept.saves, 0, 'nothing is saved');
      t.equal(kept.durable, null);
      t.same(await keys(again.first), []);
      t.equal(await again.first.write(0, pattern(1)), 'GOOD');
      continue;
    }
    t.equal(kept.saves, 3);
    t.equal((await persistentIn(again.first, 0)).readUInt32BE(0), 0, 'the generation begins again');
    t.same(await keys(again.first), [0xan, 0xbn]);
    t.equal((await persistentIn(again.first, 2))[3]! & 0x01, 1, 'PTPL_A');
    const stranger = new Initiator(again.server, 'iqn.2026-01.test:c,i,0x800000000003,t,0x0001');
    t.equal(await stranger.write(0, pattern(1)), 'CONFLICT');
    t.equal(await again.first.write(0, pattern(1)), 'GOOD', 'registered');
    t.equal(await out(again.second, 'release', 0x06, list(0xbn)), 'GOOD', 'the holder is the holder');
    t.equal(await again.first.result('00'), '06/2a/04');
    t.equal(await out(first, 'register', 0, list(0xan, 0xan)), 'GOOD', 'the old unit, without APTPL');
    t.equal(kept.durable?.persistentReservations, null, 'ends what was kept');
  }
});

t.test('a save that fails is answered so, and nothing has changed', async (t) => {
  const failures: [WeftError, string][] = [
    [new WeftError('IO_ERROR', 'x'), '04/44/00'],
    [new WeftError('NO_SPACE', 'x'), '04/44/00'],
    [new WeftError('UNAVAILABLE', 'x'), '02/04/01'],
    [new WeftError('FENCED', 'x'), '02/04/01'],
  ];
  for (const [failure, expected] of failures) {
    const { first, second, kept } = await registered({ flags: aptpl });
    await out(first, 'reserve', 0x05, list(0xan));
    const before = [await persistentIn(first, 0), await persistentIn(first, 1), await persistentIn(first, 3)];
    const durable = structuredClone(kept.durable);
    kept.failure = failure;
    t.equal(await out(second, 'register', 0, list(0xbn, 0n, aptpl)), expected);
    t.equal(await out(second, 'preempt', 0x03, list(0xbn, 0xan)), expected);
    t.equal(await out(second, 'preemptAndAbort', 0x03, list(0xbn, 0xan)), expected);
    t.equal(await out(first, 'release', 0x05, list(0xan)), expected);
    t.equal(await out(first, 'clear', 0, list(0xan)), expected);
    t.equal(await out(second, 'register', 0, list(0xbn, 0xbn)), expected, 'nor is APTPL given up');
    const after = [await persistentIn(first, 0), await persistentIn(first, 1), await persistentIn(first, 3)];
    t.same(after, before);
    t.same(kept.durable, durable);
    for (const each of [first, second]) t.equal(await each.result('00'), 'GOOD', 'nobody hears of it');
    kept.failure = null;
    t.equal(await out(second, 'preempt', 0x03, list(0xbn, 0xan)), 'GOOD');
    t.equal(await first.result('00'), '06/2a/05');
  }
});

t.test(
  'a failed save of the first registration leaves nothing behind that a later one would not clear',
  async (t) => {
    const { first, kept } = bench();
    kept.failure = new WeftError('IO_ERROR', 'x');
    t.equal(await out(first, 'register', 0, list(0n, 1n, aptpl)), '04/44/00');
    t.same(await keys(first), []);
    kept.failure = null;
    t.equal(await out(first, 'register', 0, list(0n, 1n)), 'GOOD', 'without APTPL');
    t.equal(kept.saves, 2, 'what the failed save may have left is overwritten');
    t.equal(kept.durable?.persistentReservations, null);
    t.equal(await out(first, 'register', 0, list(1n, 2n)), 'GOOD');
    t.equal(kept.saves, 2, 'and then there is nothing more to save');
  },
);

t.test('while a change is being saved: fenced already, not answered, and the next one waits', async (t) => {
  const { first, second, kept } = await registered({ flags: aptpl });
  await out(first, 'reserve', 0x03, list(0xan));
  kept.paused = true;
  const ended: string[] = [];
  const note = (what: string) => (result: string) => ended.push(`${what} ${result}`);
  const running = [
    out(second, 'preempt', 0x03, list(0xbn, 0xan)).then(note('preempt')),
    out(first, 'release', 0x03, list(0xan)).then(note('release of the preempted')),
    out(second, 'release', 0x03, list(0xbn)).then(note('release')),
  ];
  await turn();
  t.same(ended, [], 'durable first');
  t.equal(kept.waiting, 1, 'one at a time');
  t.equal(await first.write(0, pattern(1)), 'CONFLICT', 'the preempted is fenced at once');
  t.equal(await second.write(0, pattern(1)), 'CONFLICT', 'the old holder’s reservation holds until then');
  t.same(await keys(first), [0xan, 0xbn], 'what is reported is what was answered');
  t.equal(await first.result('00'), 'GOOD', 'nobody has lost anything yet');
  kept.release();
  await Promise.all(running);
  t.same(ended, ['preempt GOOD', 'release of the preempted CONFLICT', 'release GOOD']);
  t.same(await keys(second), [0xbn]);
});

t.test('two nexuses that preempt and abort each other both get an answer', async (t) => {
  const abortTasks = (_nexus: string, _lun: Buffer, done: () => void): void => {
    waiting.push(done);
  };
  const waiting: (() => void)[] = [];
  const { first, second, kept } = await registered({ flags: aptpl, abortTasks });
  kept.paused = true;
  const answers = [
    out(first, 'preemptAndAbort', 0x01, list(0xan, 0xbn)),
    out(second, 'preemptAndAbort', 0x01, list(0xbn, 0xan)),
  ];
  await turn();
  kept.release();
  t.equal(await answers[1], 'ABORTED', 'it had no effect, and what waits for it goes on');
  t.equal(waiting.length, 1);
  waiting[0]!();
  t.equal(await answers[0], 'GOOD');
  t.same(await keys(first), [0xan]);
});

t.test('more changes than may wait are asked to come again', async (t) => {
  const { first, kept } = await registered({ flags: aptpl });
  kept.paused = true;
  const answers = Array.from({ length: 514 }, () => out(first, 'register', 0, list(0xan, 0xan, aptpl)));
  t.equal(await answers[513], 'BUSY');
  kept.release();
  const others = new Set(await Promise.all(answers.slice(0, 513)));
  t.same([...others], ['GOOD']);
});

t.test('registrations survive I_T nexus loss, LOGICAL UNIT RESET and TARGET RESET', async (t) => {
  const { server, first, second } = await registered();
  await out(first, 'reserve', 0x01, list(0xan));
  server.nexusLost(first.nexus);
  server.resetUnit(Buffer.alloc(8));
  server.resetTarget(second.nexus);
  t.equal(await second.result('00'), '06/29/03');
  t.same(await keys(second), [0xan, 0xbn]);
  t.equal(await second.write(0, pattern(1)), 'CONFLICT');
  t.equal(await first.write(0, pattern(1)), 'GOOD', 'it is the holder when it comes back');
});
