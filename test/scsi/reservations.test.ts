import t from 'tap';
import {
  maxRegistrations,
  type ReservationAccess,
  Reservations,
  type ReservationType,
} from '../../daemon/scsi/reservations.ts';
import { sense } from '../../daemon/scsi/sense.ts';

const types: ReservationType[] = [1, 3, 5, 6, 7, 8];

function withTwo(): { reservations: Reservations; heard: [string, unknown][] } {
  const heard: [string, unknown][] = [];
  const reservations = new Reservations((nexus, what) => heard.push([nexus, what]));
  reservations.register('a', 0n, 0xan, false);
  reservations.register('b', 0n, 0xbn, false);
  return { reservations, heard };
}

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
    const { reservations } = withTwo();
    t.equal(reservations.reserve('a', 0xan, type), 'good');
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

t.test('a registration needs the key that is registered', async (t) => {
  const { reservations } = withTwo();
  t.equal(reservations.generation, 2);
  t.equal(reservations.register('c', 1n, 2n, false), 'conflict', 'not registered: the key must be zero');
  t.equal(reservations.register('a', 1n, 2n, false), 'conflict');
  t.equal(reservations.register('c', 0n, 0n, false), 'good', 'nothing to do');
  t.equal(reservations.generation, 2);
  t.equal(reservations.register('a', 0xan, 2n, false), 'good');
  t.equal(reservations.register('a', 99n, 3n, true), 'good', 'the existing key is ignored');
  t.equal(reservations.registrations.get('a'), 3n);
  t.equal(reservations.register('a', 3n, 0n, false), 'good');
  t.notOk(reservations.registrations.has('a'));
  t.equal(reservations.generation, 5);
});

t.test('registrations have a limit', async (t) => {
  const { reservations } = withTwo();
  for (let index = 2; index < maxRegistrations; index += 1) reservations.register(`n${index}`, 0n, 1n, false);
  t.equal(reservations.register('late', 0n, 1n, false), sense.insufficientRegistrationResources);
  t.equal(reservations.register('a', 0xan, 5n, false), 'good', 'a change of key needs no room');
});

t.test('only a registrant with its key reserves, releases and clears', async (t) => {
  const { reservations } = withTwo();
  t.equal(reservations.reserve('c', 0n, 1), 'conflict');
  t.equal(reservations.reserve('a', 0xbn, 1), 'conflict');
  t.equal(reservations.reserve('a', 0xan, 1), 'good');
  t.equal(reservations.reserve('a', 0xan, 1), 'good', 'again the same');
  t.equal(reservations.reserve('a', 0xan, 3), 'conflict', 'another type');
  t.equal(reservations.reserve('b', 0xbn, 1), 'conflict', 'held by another');
  t.equal(reservations.release('c', 0n, 1), 'conflict');
  t.equal(reservations.release('b', 0xbn, 1), 'good', 'not the holder: nothing happens');
  t.ok(reservations.holds('a'));
  t.equal(reservations.release('a', 0xan, 3), sense.invalidReleaseOfReservation);
  t.equal(reservations.release('a', 0xan, 1), 'good');
  t.equal(reservations.reservation, null);
  t.equal(reservations.clear('c', 0n), 'conflict');
});

t.test('a released reservation is told to those who shared it', async (t) => {
  for (const type of types) {
    const { reservations, heard } = withTwo();
    reservations.reserve('a', 0xan, type);
    reservations.release('a', 0xan, type);
    t.same(heard, type >= 5 ? [['b', sense.reservationsReleased]] : [], `type ${type}`);
  }
});

t.test('unregistering the holder ends the reservation unless all registrants hold it', async (t) => {
  for (const type of types) {
    const { reservations, heard } = withTwo();
    reservations.reserve('a', 0xan, type);
    reservations.register('a', 0xan, 0n, false);
    if (type < 7) {
      t.equal(reservations.reservation, null, `type ${type}`);
      t.same(heard, type >= 5 ? [['b', sense.reservationsReleased]] : []);
    } else {
      t.ok(reservations.holds('b'), `type ${type}`);
      t.notOk(reservations.holds('a'));
      reservations.register('b', 0xbn, 0n, false);
      t.equal(reservations.reservation, null, 'the last registrant is gone');
    }
  }
});

t.test('CLEAR ends everything and tells the others', async (t) => {
  const { reservations, heard } = withTwo();
  reservations.reserve('a', 0xan, 3);
  t.equal(reservations.clear('b', 0xbn), 'good');
  t.equal(reservations.reservation, null);
  t.equal(reservations.registrations.size, 0);
  t.same(heard, [['a', sense.reservationsPreempted]]);
  t.equal(reservations.generation, 3);
});

t.test('PREEMPT without a reservation removes registrations', async (t) => {
  const { reservations, heard } = withTwo();
  const preempted: string[] = [];
  t.equal(reservations.preempt('a', 0xan, 0n, 1, preempted), sense.invalidFieldInParameterList);
  t.equal(reservations.preempt('a', 0xan, 0x77n, 1, preempted), 'conflict', 'nobody has that key');
  t.equal(reservations.preempt('c', 0n, 0xan, 1, preempted), 'conflict', 'not registered');
  t.equal(reservations.preempt('a', 0xan, 0xbn, 1, preempted), 'good');
  t.same(preempted, ['b']);
  t.same(heard, [['b', sense.registrationsPreempted]]);
  t.equal(reservations.reservation, null);
  t.equal(reservations.generation, 3);
});

t.test('PREEMPT with the key of the holder takes the reservation over', async (t) => {
  const { reservations, heard } = withTwo();
  reservations.register('c', 0n, 0xcn, false);
  reservations.reserve('b', 0xbn, 5);
  const preempted: string[] = [];
  t.equal(reservations.preempt('a', 0xan, 0xbn, 3, preempted), 'good');
  t.same(reservations.reservation, { type: 3, holder: 'a' });
  t.same(preempted, ['b']);
  t.same(heard, [
    ['b', sense.registrationsPreempted],
    ['c', sense.reservationsReleased],
  ]);
});

t.test('PREEMPT with the key of another than the holder leaves the reservation', async (t) => {
  const { reservations } = withTwo();
  reservations.register('c', 0n, 0xcn, false);
  reservations.reserve('b', 0xbn, 1);
  t.equal(reservations.preempt('a', 0xan, 0xcn, 1, []), 'good');
  t.ok(reservations.holds('b'));
  t.notOk(reservations.registrations.has('c'));
});

t.test('PREEMPT of an all-registrants reservation: key zero takes over from everybody', async (t) => {
  for (const type of [7, 8] as const) {
    const { reservations } = withTwo();
    reservations.register('c', 0n, 0xcn, false);
    reservations.reserve('b', 0xbn, type);
    t.equal(reservations.preempt('a', 0xan, 0xcn, type, []), 'good', 'one key: only its registration goes');
    t.ok(reservations.holds('b'));
    t.equal(reservations.preempt('a', 0xan, 0n, 1, []), 'good');
    t.same(reservations.reservation, { type: 1, holder: 'a' });
    t.same([...reservations.registrations.keys()], ['a']);
  }
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
      const reservations = new Reservations(() => {});
      t.equal(reservations.legacyReserve('a'), 'good');
      t.equal(reservations.legacyReserve('a'), 'good', 'again');
      t.equal(reservations.legacyReserve('b'), 'conflict');
      t.equal(reservations.legacyRelease('b'), 'good', 'does nothing');
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

t.test('registrations and reservations outlive the nexus and a reset', async (t) => {
  const { reservations } = withTwo();
  reservations.reserve('a', 0xan, 1);
  reservations.nexusLost('a');
  reservations.reset();
  t.ok(reservations.holds('a'));
  t.equal(reservations.legacyReserve('b'), 'conflict', 'persistent and legacy exclude each other');
  t.equal(reservations.legacyRelease('b'), 'conflict');
});
