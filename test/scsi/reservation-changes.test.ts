import t from 'tap';
import * as changes from '../../daemon/scsi/reservation-changes.ts';
import {
  holds,
  noReservations,
  type ReservationState,
  type ReservationType,
} from '../../daemon/scsi/reservation-state.ts';
import { type SenseCode, sense } from '../../daemon/scsi/sense.ts';

const types: ReservationType[] = [1, 3, 5, 6, 7, 8];

/** Carries changes out as they come, and remembers who heard what. */
class Ledger {
  state: ReservationState = noReservations;
  heard: (readonly [string, SenseCode])[] = [];
  preempted: readonly string[] = [];

  apply(outcome: changes.ReservationOutcome): 'done' | 'good' | 'conflict' | SenseCode {
    if (typeof outcome === 'string' || 'asc' in outcome) return outcome;
    this.state = outcome.state;
    this.heard.push(...outcome.attentions);
    this.preempted = outcome.preempted;
    return 'done';
  }

  register(nexus: string, key: bigint, newKey: bigint, more: Partial<changes.RegisterRequest> = {}) {
    const plain = { ignoreKey: false, aptpl: false, otherPorts: [], specified: null };
    return this.apply(changes.register(this.state, nexus, { key, newKey, ...plain, ...more }));
  }

  reserve = (nexus: string, key: bigint, type: ReservationType) =>
    this.apply(changes.reserve(this.state, nexus, key, type));

  release = (nexus: string, key: bigint, type: ReservationType) =>
    this.apply(changes.release(this.state, nexus, key, type));

  clear = (nexus: string, key: bigint) => this.apply(changes.clear(this.state, nexus, key));

  preempt = (nexus: string, key: bigint, victimKey: bigint, type: ReservationType) =>
    this.apply(changes.preempt(this.state, nexus, key, victimKey, type));

  move(nexus: string, key: bigint, to: string, more: Partial<changes.MoveRequest> = {}) {
    const plain = { newKey: 0x99n, aptpl: false, unregister: false };
    return this.apply(changes.registerAndMove(this.state, nexus, { ...plain, key, to, ...more }));
  }

  keys(): Record<string, bigint> {
    return Object.fromEntries(this.state.registrations);
  }
}

function withTwo(): Ledger {
  const ledger = new Ledger();
  ledger.register('a', 0n, 0xan);
  ledger.register('b', 0n, 0xbn);
  return ledger;
}

t.test('a registration needs the key that is registered', async (t) => {
  const ledger = withTwo();
  t.equal(ledger.state.generation, 2);
  t.equal(ledger.register('c', 1n, 2n), 'conflict', 'not registered: the key must be zero');
  t.equal(ledger.register('a', 1n, 2n), 'conflict');
  t.equal(ledger.register('c', 0n, 0n), 'good', 'nothing to do');
  t.equal(ledger.register('c', 9n, 0n, { ignoreKey: true }), 'good', 'nothing to do');
  t.equal(ledger.state.generation, 2);
  t.equal(ledger.register('a', 0xan, 2n), 'done');
  t.equal(ledger.register('a', 99n, 3n, { ignoreKey: true }), 'done', 'the existing key is ignored');
  t.equal(ledger.state.registrations.get('a'), 3n);
  t.equal(ledger.register('a', 3n, 0n), 'done');
  t.notOk(ledger.state.registrations.has('a'));
  t.equal(ledger.state.generation, 5);
});

t.test('registrations have a limit', async (t) => {
  const ledger = withTwo();
  for (let index = 2; index < changes.maxRegistrations; index += 1) ledger.register(`n${index}`, 0n, 1n);
  const before = ledger.state;
  t.equal(ledger.register('late', 0n, 1n), sense.insufficientRegistrationResources);
  ledger.reserve('a', 0xan, 1);
  t.equal(ledger.move('a', 0xan, 'late'), sense.insufficientRegistrationResources);
  t.equal(ledger.state.registrations, before.registrations);
  t.equal(ledger.move('a', 0xan, 'late', { unregister: true }), 'done', 'one comes, one goes');
  t.equal(ledger.register('b', 0xbn, 5n), 'done', 'a change of key needs no room');
});

t.test('APTPL is what the last registration said, and nothing else changes it', async (t) => {
  const ledger = new Ledger();
  ledger.register('a', 0n, 0xan, { aptpl: true });
  t.ok(ledger.state.aptpl);
  ledger.reserve('a', 0xan, 1);
  ledger.release('a', 0xan, 1);
  t.ok(ledger.state.aptpl);
  t.equal(ledger.register('c', 0n, 0n), 'good');
  t.ok(ledger.state.aptpl, 'a registration that does nothing says nothing');
  ledger.register('b', 0n, 0xbn);
  t.notOk(ledger.state.aptpl);
  ledger.reserve('b', 0xbn, 1);
  ledger.move('b', 0xbn, 'c', { aptpl: true });
  t.ok(ledger.state.aptpl);
  ledger.clear('c', 0x99n);
  t.ok(ledger.state.aptpl);
});

t.test('ALL_TG_PT registers the initiator port with every target port, or with none', async (t) => {
  const ledger = new Ledger();
  const otherPorts = ['a1', 'a2', 'a3'];
  t.equal(ledger.register('a1', 0n, 5n, { otherPorts }), 'done');
  t.same(ledger.keys(), { a1: 5n, a2: 5n, a3: 5n });
  t.equal(ledger.state.generation, 1);
  t.equal(ledger.register('a2', 5n, 6n), 'done', 'one of them alone');
  t.equal(ledger.register('a1', 5n, 7n, { otherPorts }), 'conflict', 'another key with one of them');
  t.same(ledger.keys(), { a1: 5n, a2: 6n, a3: 5n });
  t.equal(ledger.register('a1', 0n, 7n, { otherPorts, ignoreKey: true }), 'done');
  t.same(ledger.keys(), { a1: 7n, a2: 7n, a3: 7n });
  ledger.reserve('a3', 7n, 5);
  ledger.register('b', 0n, 0xbn);
  t.equal(ledger.register('a1', 7n, 0n, { otherPorts }), 'done');
  t.same(ledger.keys(), { b: 0xbn });
  t.equal(ledger.state.reservation, null, 'the holder was one of them');
  t.same(ledger.heard, [['b', sense.reservationsReleased]]);
});

t.test('SPEC_I_PT registers others too, or nobody', async (t) => {
  const ledger = withTwo();
  t.equal(ledger.register('c', 0n, 7n, { specified: ['d', 'b'] }), 'conflict', '"b" has another key');
  t.same(ledger.keys(), { a: 0xan, b: 0xbn });
  t.equal(ledger.register('c', 0n, 7n, { specified: ['d', 'c'] }), 'done');
  t.same(ledger.keys(), { a: 0xan, b: 0xbn, c: 7n, d: 7n });
  t.equal(ledger.register('c', 7n, 8n, { specified: ['e'] }), sense.invalidFieldInCdb, 'registered already');
  const many = Array.from({ length: changes.maxRegistrations }, (_, index) => `n${index}`);
  t.equal(ledger.register('e', 0n, 7n, { specified: many }), sense.insufficientRegistrationResources);
  t.equal(ledger.state.registrations.size, 4);
});

t.test('only a registrant with its key reserves, releases and clears', async (t) => {
  const ledger = withTwo();
  t.equal(ledger.reserve('c', 0n, 1), 'conflict');
  t.equal(ledger.reserve('a', 0xbn, 1), 'conflict');
  t.equal(ledger.reserve('a', 0xan, 1), 'done');
  t.equal(ledger.reserve('a', 0xan, 1), 'good', 'again the same');
  t.equal(ledger.reserve('a', 0xan, 3), 'conflict', 'another type');
  t.equal(ledger.reserve('b', 0xbn, 1), 'conflict', 'held by another');
  t.equal(ledger.release('c', 0n, 1), 'conflict');
  t.equal(ledger.release('b', 0xbn, 1), 'good', 'not the holder: nothing happens');
  t.ok(holds(ledger.state, 'a'));
  t.equal(ledger.release('a', 0xan, 3), sense.invalidReleaseOfReservation);
  t.equal(ledger.release('a', 0xan, 1), 'done');
  t.equal(ledger.state.reservation, null);
  t.equal(ledger.clear('c', 0n), 'conflict');
  t.equal(ledger.state.generation, 2, 'none of it changed registrations');
});

t.test('a released reservation is told to those who shared it', async (t) => {
  for (const type of types) {
    const ledger = withTwo();
    ledger.reserve('a', 0xan, type);
    ledger.release('a', 0xan, type);
    t.same(ledger.heard, type >= 5 ? [['b', sense.reservationsReleased]] : [], `type ${type}`);
  }
});

t.test('any registrant releases what all registrants hold', async (t) => {
  for (const type of [7, 8] as const) {
    const ledger = withTwo();
    ledger.reserve('a', 0xan, type);
    t.equal(ledger.reserve('b', 0xbn, type), 'good', 'it has it already');
    t.equal(ledger.release('b', 0xbn, type), 'done');
    t.equal(ledger.state.reservation, null);
    t.same(ledger.heard, [['a', sense.reservationsReleased]]);
  }
});

t.test('unregistering the holder ends the reservation unless all registrants hold it', async (t) => {
  for (const type of types) {
    const ledger = withTwo();
    ledger.reserve('a', 0xan, type);
    ledger.register('a', 0xan, 0n);
    if (type < 7) {
      t.equal(ledger.state.reservation, null, `type ${type}`);
      t.same(ledger.heard, type >= 5 ? [['b', sense.reservationsReleased]] : []);
    } else {
      t.ok(holds(ledger.state, 'b'), `type ${type}`);
      t.notOk(holds(ledger.state, 'a'));
      ledger.register('b', 0xbn, 0n);
      t.equal(ledger.state.reservation, null, 'the last registrant is gone');
    }
  }
});

t.test('CLEAR ends everything and tells the others', async (t) => {
  const ledger = withTwo();
  ledger.reserve('a', 0xan, 3);
  t.equal(ledger.clear('b', 0xbn), 'done');
  t.equal(ledger.state.reservation, null);
  t.equal(ledger.state.registrations.size, 0);
  t.same(ledger.heard, [['a', sense.reservationsPreempted]]);
  t.equal(ledger.state.generation, 3);
});

t.test('PREEMPT without a reservation removes registrations', async (t) => {
  const ledger = withTwo();
  t.equal(ledger.preempt('a', 0xan, 0n, 1), sense.invalidFieldInParameterList);
  t.equal(ledger.preempt('a', 0xan, 0x77n, 1), 'conflict', 'nobody has that key');
  t.equal(ledger.preempt('c', 0n, 0xan, 1), 'conflict', 'not registered');
  t.equal(ledger.preempt('a', 0xan, 0xbn, 1), 'done');
  t.same(ledger.preempted, ['b']);
  t.same(ledger.heard, [['b', sense.registrationsPreempted]]);
  t.equal(ledger.state.reservation, null);
  t.equal(ledger.state.generation, 3);
});

t.test('PREEMPT of the own key removes the others that have it', async (t) => {
  const ledger = withTwo();
  ledger.register('c', 0n, 0xan);
  t.equal(ledger.preempt('a', 0xan, 0xan, 1), 'done');
  t.same(ledger.preempted, ['c']);
  t.same(ledger.keys(), { a: 0xan, b: 0xbn });
});

t.test('PREEMPT with the key of the holder takes the reservation over', async (t) => {
  const ledger = withTwo();
  ledger.register('c', 0n, 0xcn);
  ledger.reserve('b', 0xbn, 5);
  t.equal(ledger.preempt('a', 0xan, 0xbn, 3), 'done');
  t.same(ledger.state.reservation, { type: 3, holder: 'a' });
  t.same(ledger.preempted, ['b']);
  t.same(ledger.heard, [
    ['b', sense.registrationsPreempted],
    ['c', sense.reservationsReleased],
  ]);
});

t.test('PREEMPT that keeps the type tells nobody that a reservation was released', async (t) => {
  const ledger = withTwo();
  ledger.register('c', 0n, 0xcn);
  ledger.reserve('b', 0xbn, 5);
  t.equal(ledger.preempt('a', 0xan, 0xbn, 5), 'done');
  t.same(ledger.state.reservation, { type: 5, holder: 'a' });
  t.same(ledger.heard, [['b', sense.registrationsPreempted]]);
});

t.test('PREEMPT with the key of another than the holder leaves the reservation', async (t) => {
  const ledger = withTwo();
  ledger.register('c', 0n, 0xcn);
  ledger.reserve('b', 0xbn, 1);
  t.equal(ledger.preempt('a', 0xan, 0xcn, 1), 'done');
  t.ok(holds(ledger.state, 'b'));
  t.notOk(ledger.state.registrations.has('c'));
});

t.test('PREEMPT of an all-registrants reservation: key zero takes over from everybody', async (t) => {
  for (const type of [7, 8] as const) {
    const ledger = withTwo();
    ledger.register('c', 0n, 0xcn);
    ledger.reserve('b', 0xbn, type);
    t.equal(ledger.preempt('a', 0xan, 0xcn, type), 'done', 'one key: only its registration goes');
    t.ok(holds(ledger.state, 'b'));
    t.equal(ledger.preempt('a', 0xan, 0n, 1), 'done');
    t.same(ledger.state.reservation, { type: 1, holder: 'a' });
    t.same([...ledger.state.registrations.keys()], ['a']);
  }
});

t.test('REGISTER AND MOVE gives the reservation, and a registration, to another nexus', async (t) => {
  const ledger = withTwo();
  t.equal(ledger.move('a', 0xan, 'c'), 'conflict', 'there is none');
  ledger.reserve('a', 0xan, 6);
  t.equal(ledger.move('c', 0n, 'a'), 'conflict', 'not registered');
  t.equal(ledger.move('a', 0xbn, 'c'), 'conflict', 'not its key');
  t.equal(ledger.move('b', 0xbn, 'c'), 'conflict', 'not the holder');
  t.equal(ledger.move('a', 0xan, 'c', { newKey: 0n }), sense.invalidFieldInParameterList);
  t.equal(ledger.move('a', 0xan, 'a'), sense.invalidFieldInParameterList, 'to itself');
  t.equal(ledger.state.generation, 2);
  t.equal(ledger.move('a', 0xan, 'c'), 'done');
  t.same(ledger.state.reservation, { type: 6, holder: 'c' });
  t.same(ledger.keys(), { a: 0xan, b: 0xbn, c: 0x99n });
  t.equal(ledger.state.generation, 3);
  t.equal(ledger.move('c', 0x99n, 'b', { newKey: 0x77n, unregister: true }), 'done');
  t.same(ledger.keys(), { a: 0xan, b: 0x77n }, 'the registered one has the new key');
  t.same(ledger.state.reservation, { type: 6, holder: 'b' });
  t.same(ledger.heard, [], 'nobody lost anything');
});

t.test('what all registrants hold cannot be moved', async (t) => {
  for (const type of [7, 8] as const) {
    const ledger = withTwo();
    ledger.reserve('a', 0xan, type);
    t.equal(ledger.move('a', 0xan, 'c'), 'conflict');
  }
});

t.test('the generation wraps after 32 bits', async (t) => {
  const ledger = new Ledger();
  ledger.state = { ...noReservations, generation: 0xffffffff };
  ledger.register('a', 0n, 1n);
  t.equal(ledger.state.generation, 0);
});
