import t from 'tap';
import { commands } from '../../daemon/scsi/command-table.ts';
import {
  noReservations,
  type ReservationAccess,
  type ReservationState,
  type ReservationType,
  restoredReservations,
  savedReservations,
} from '../../daemon/scsi/reservation-state.ts';
import { Reservations } from '../../daemon/scsi/reservations.ts';
import { type SenseCode, sense } from '../../daemon/scsi/sense.ts';

const types: ReservationType[] = [1, 3, 5, 6, 7, 8];

const registered = new Map([
  ['a', 0xan],
  ['b', 0xbn],
]);

/** "a" and "b" are registered, and "a" has reserved; no type: nobody has. */
function reservedBy(holder: string, type: ReservationType | null): ReservationState {
  const reservation = type === null ? null : { type, holder: type >= 7 ? null : holder };
  return { ...noReservations, registrations: registered, reservation };
}

const quiet = (): void => {};

t.test('who may do what under a reservation of "a" (SPC-4 table 66)', async (t) => {
  // Columns: read and write by the registered "b", by the unregistered "c".
  const table: Record<ReservationType, string> = {
    1: 'read - read -',
    3: '- - - -',
    5: 'read write read -',
    6: 'read write - -',
    7: 'read write read -',
    8: 'read write - -',
  };
  for (const type of types) {
    const reservations = new Reservations(quiet, reservedBy('a', type));
    const may = (nexus: string, access: ReservationAccess): string =>
      reservations.conflicts(nexus, access) ? '-' : access;
    const row = [may('b', 'read'), may('b', 'write'), may('c', 'read'), may('c', 'write')].join(' ');
    t.equal(row, table[type], `type ${type}`);
    for (const nexus of ['a', 'b', 'c']) {
      t.notOk(reservations.conflicts(nexus, 'exempt'));
      t.notOk(reservations.conflicts(nexus, 'status'));
    }
    for (const access of ['read', 'write'] as const)
      t.notOk(reservations.conflicts('a', access), 'the holder');
  }
});

t.test('every command has the access the standards give it (SPC-4 table 66, SBC-3 table 13)', async (t) => {
  // Allowed under every persistent reservation of others (some in one form only, which their handlers tell apart).
  const always = [
    ...['INQUIRY', 'REQUEST SENSE', 'TEST UNIT READY', 'REPORT LUNS', 'LOG SENSE', 'START STOP UNIT'],
    ...[
      'READ CAPACITY(10)',
      'READ CAPACITY(16)',
      'PREVENT ALLOW MEDIUM REMOVAL',
      'REPORT TARGET PORT GROUPS',
    ],
    ...['RESERVE(6)', 'RESERVE(10)', 'RELEASE(6)', 'RELEASE(10)'],
    ...['READ KEYS', 'READ RESERVATION', 'REPORT CAPABILITIES', 'READ FULL STATUS'],
    ...['REGISTER', 'RESERVE', 'RELEASE', 'CLEAR', 'PREEMPT', 'PREEMPT AND ABORT'],
    ...['REGISTER AND IGNORE EXISTING KEY', 'REGISTER AND MOVE'],
    ...[
      'REPORT SUPPORTED OPERATION CODES',
      'REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS',
      'OPERATING PARAMETERS',
    ],
  ];
  // Allowed under Write Exclusive.
  const reads = [
    ...['READ(6)', 'READ(10)', 'READ(12)', 'READ(16)', 'VERIFY(10)', 'VERIFY(12)', 'VERIFY(16)'],
    ...['PRE-FETCH(10)', 'PRE-FETCH(16)', 'GET LBA STATUS'],
  ];
  for (const { name, access } of commands) {
    if (always.includes(name)) t.match(access, /^(exempt|status)$/, name);
    else
      t.equal(access, reads.includes(name) ? 'read' : 'write', `${name}: whatever is not listed is kept out`);
  }
});

t.test('while a change is being saved, the old and the new reservation keep others out', async (t) => {
  const reservations = new Reservations(quiet, reservedBy('a', 3));
  reservations.propose({ state: reservedBy('b', 1), attentions: [], preempted: [] });
  t.ok(reservations.conflicts('b', 'write'), 'not yet its own');
  t.ok(reservations.conflicts('a', 'write'), 'fenced already');
  t.notOk(reservations.conflicts('a', 'read'), 'write exclusive');
  t.ok(reservations.conflicts('c', 'read'));
  t.ok(reservations.holds('a'), 'as it is reported');
  reservations.commit();
  t.notOk(reservations.conflicts('b', 'write'));
  t.ok(reservations.conflicts('a', 'write'));
  t.notOk(reservations.conflicts('c', 'read'));
});

t.test('unit attentions are raised when a change holds, and never for one that was abandoned', async (t) => {
  const heard: [string, SenseCode][] = [];
  const reservations = new Reservations((nexus, what) => heard.push([nexus, what]), reservedBy('a', 5));
  const change = {
    state: reservedBy('a', null),
    attentions: [['b', sense.reservationsReleased]] as const,
    preempted: [],
  };
  reservations.propose(change);
  t.same(heard, []);
  reservations.abandon();
  t.same(heard, []);
  t.ok(reservations.holds('a'), 'as it was');
  reservations.propose(change);
  reservations.commit();
  t.same(heard, [['b', sense.reservationsReleased]]);
  t.notOk(reservations.holds('a'));
});

t.test(
  'RESERVE(6) keeps all but exempt commands of others out until it is released, lost or reset',
  async (t) => {
    const endings: Record<string, (reservations: Reservations) => void> = {
      release: (reservations) => reservations.legacyRelease('a'),
      loss: (reservations) => reservations.nexusLost('a'),
      reset: (reservations) => reservations.reset(),
    };
    for (const [name, end] of Object.entries(endings)) {
      const reservations = new Reservations(quiet);
      t.ok(reservations.legacyReserve('a'));
      t.ok(reservations.legacyReserve('a'), 'again');
      t.notOk(reservations.legacyReserve('b'));
      t.ok(reservations.legacyRelease('b'), 'does nothing');
      reservations.nexusLost('b');
      t.ok(reservations.conflicts('b', 'status'));
      t.ok(reservations.conflicts('b', 'read'));
      t.notOk(reservations.conflicts('b', 'exempt'));
      t.notOk(reservations.conflicts('a', 'write'));
      end(reservations);
      t.notOk(reservations.conflicts('b', 'write'), name);
    }
  },
);

t.test('RESERVE(6) and RELEASE(6) change nothing under persistent reservations (SPC-3 5.6.3)', async (t) => {
  // Types, and for the holder "a", the registered "b" and the unregistered "c" whether they are GOOD.
  const table: [ReservationType | null, boolean, boolean, boolean][] = [
    [null, false, false, false],
    [1, true, false, false],
    [3, true, false, false],
    [5, true, true, false],
    [6, true, true, false],
    [7, true, true, false],
    [8, true, true, false],
  ];
  for (const [type, ...good] of table) {
    const reservations = new Reservations(quiet, reservedBy('a', type));
    for (const [index, nexus] of ['a', 'b', 'c'].entries()) {
      t.equal(reservations.legacyReserve(nexus), good[index], `RESERVE by ${nexus}, type ${type}`);
      t.equal(reservations.legacyRelease(nexus), good[index], `RELEASE by ${nexus}, type ${type}`);
    }
    t.notOk(reservations.legacyReserved);
  }
  const becoming = new Reservations(quiet);
  becoming.propose({ state: reservedBy('a', null), attentions: [], preempted: [] });
  t.notOk(becoming.legacyReserve('c'), 'somebody is about to be registered');
});

t.test('registrations and reservations outlive the nexus and a reset', async (t) => {
  const reservations = new Reservations(quiet, reservedBy('a', 1));
  reservations.nexusLost('a');
  reservations.reset();
  t.ok(reservations.holds('a'));
  t.equal(reservations.state.registrations.size, 2);
});

t.test('what is saved with APTPL comes back as it was, with generation zero', async (t) => {
  const registrations = new Map([
    ['iqn.a:one,i,0x800000000001,t,0x0001', 0x0123456789abcdefn],
    ['iqn.a:one,i,0x800000000001,t,0x0002', 1n],
    ['iqn.a:two,i,0x800000000002,t,0x0001', 0xffffffffffffffffn],
  ]);
  const holder = 'iqn.a:one,i,0x800000000001,t,0x0002';
  for (const reservation of [null, { type: 3, holder }, { type: 7, holder: null }] as const) {
    const state = { generation: 17, registrations, reservation, aptpl: true };
    const saved = JSON.parse(JSON.stringify(savedReservations(state)));
    t.same(restoredReservations(saved), { ...state, generation: 0 });
    t.equal(savedReservations({ ...state, aptpl: false }), null, 'not without APTPL');
  }
  t.equal(restoredReservations(null), noReservations);
});
