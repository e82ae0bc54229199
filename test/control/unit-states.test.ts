/** What logical units keep, through the catalog and the control store it runs on. */
import { join } from 'node:path';
import Database from 'better-sqlite3';
import t, { type Test } from 'tap';
import { WeftError } from '../../daemon/base/errors.ts';
import { Catalog, type CatalogEnvironment } from '../../daemon/control/catalog.ts';
import type {
  ControlDocument,
  ControlStore,
  ControlTransaction,
} from '../../daemon/control/control-store.ts';
import { openSqliteControlStore } from '../../daemon/control/sqlite-control-store.ts';
import { unitRecordSchema } from '../../daemon/control/unit-states.ts';
import { systemRandom } from '../../daemon/env/random.ts';
import { maxRegistrations } from '../../daemon/scsi/reservation-changes.ts';
import { noReservations, savedReservations } from '../../daemon/scsi/reservation-state.ts';
import type { UnitState, UnitStateStore } from '../../daemon/scsi/unit-state-store.ts';
import { FakeVolumeHost } from '../api/fake-volume-host.ts';
import { MemoryControlStore } from '../simulation/memory-control-store.ts';
import { ManualClock } from './manual-clock.ts';
import { testSecrets } from './test-secrets.ts';

const wanted = { sizeBytes: 1_048_576, chap: 'auto', createdBy: 'admin' } as const;

const holder = 'iqn.2026-01.test:b,i,0x800000000002,t,0x0001';
const reserved: UnitState = {
  persistentReservations: savedReservations({
    generation: 7,
    registrations: new Map([
      ['iqn.2026-01.test:a,i,0x800000000001,t,0x0002', 0x0123456789abcdefn],
      [holder, 0xbn],
    ]),
    reservation: { type: 5, holder },
    aptpl: true,
  }),
  modeParameters: { descriptorSense: false, softwareWriteProtect: true },
};

/** The document of `reserved`, byte for byte as JSON. */
const golden =
  '{"schemaVersion":1,"persistentReservations":{"registrations":[' +
  '{"initiatorPort":"iqn.2026-01.test:a,i,0x800000000001","targetPort":2,"key":"0123456789abcdef"},' +
  '{"initiatorPort":"iqn.2026-01.test:b,i,0x800000000002","targetPort":1,"key":"000000000000000b"}],' +
  '"reservation":{"type":5,"holder":1}},' +
  '"modeParameters":{"descriptorSense":false,"softwareWriteProtect":true}}';

async function open(store: ControlStore, more: Partial<CatalogEnvironment> = {}): Promise<Catalog> {
  const catalog = new Catalog({
    store,
    host: new FakeVolumeHost(),
    clock: new ManualClock(),
    random: systemRandom,
    secrets: testSecrets,
    onFault: (error) => {
      throw error;
    },
    ...more,
  });
  await catalog.start();
  return catalog;
}

/** Resolves with the code it was called back with, 'saved' when with none. */
function save(store: UnitStateStore, state: UnitState): Promise<string> {
  return new Promise((resolve) =>
    store.save(state, (error: WeftError | null) => resolve(error?.code ?? 'saved')),
  );
}

t.test('a saved state is there after a restart, and its document is as it always was', async (t) => {
  const filename = join(t.testdir(), 'control.db');
  const first = await openSqliteControlStore(filename);
  const catalog = await open(first);
  const { id } = await catalog.volumes.create({ ...wanted, name: 'a' });
  const other = await catalog.volumes.create({ ...wanted, name: 'b' });
  const unit = catalog.unitStates.of(id);
  t.equal(unit.load(), null);
  t.equal(await save(unit, { persistentReservations: null, modeParameters: null }), 'saved');
  t.equal(await save(unit, reserved), 'saved');
  t.equal(JSON.stringify((await first.get(`unit/${id}`))?.value), golden);
  await catalog.stop();
  await first.close();

  const second = await openSqliteControlStore(filename);
  t.teardown(() => second.close());
  const again = await open(second);
  t.same(again.unitStates.of(id).load(), reserved);
  t.equal(again.unitStates.of(other.id).load(), null);
});

t.test('the most registrations there can be fit', async (t) => {
  const store = await openSqliteControlStore(join(t.testdir(), 'control.db'));
  t.teardown(() => store.close());
  const catalog = await open(store);
  const { id } = await catalog.volumes.create({ ...wanted, name: 'a' });
  const nexuses = Array.from({ length: maxRegistrations }, (_, index) => {
    // The character takes two in JSON.
    const name = `iqn.${String(index).padStart(219, '"')}`;
    return [`${name},i,0x800000000001,t,0xffff`, 2n ** 64n - 1n] as const;
  });
  const state = { ...noReservations, registrations: new Map(nexuses), aptpl: true };
  const full = { ...reserved, persistentReservations: savedReservations(state) };
  t.equal(await save(catalog.unitStates.of(id), full), 'saved');
  t.same(catalog.unitStates.of(id).load(), full);
});

t.test('claims and other changes of the volume do not disturb a save', async (t) => {
  const store = await openSqliteControlStore(join(t.testdir(), 'control.db'));
  t.teardown(() => store.close());
  const catalog = await open(store);
  const { id } = await catalog.volumes.create({ ...wanted, name: 'a' });
  const unit = catalog.unitStates.of(id);
  const claim = { holder: 'h', initiator: 'iqn.a:b', ttlMs: 60_000 };
  for (let round = 0; round < 10; round += 1) {
    const both = await Promise.all([catalog.claims.take(id, 'a', claim), save(unit, reserved)]);
    t.equal(both[1], 'saved');
  }
});

t.test('a unit that is not the last one of its volume saves no more', async (t) => {
  const store = await openSqliteControlStore(join(t.testdir(), 'control.db'));
  t.teardown(() => store.close());
  const catalog = await open(store);
  const { id } = await catalog.volumes.create({ ...wanted, name: 'a' });
  const older = catalog.unitStates.of(id);
  const newer = catalog.unitStates.of(id);
  t.equal(await save(newer, reserved), 'saved');
  t.equal(await save(older, { persistentReservations: null, modeParameters: null }), 'FENCED');
  t.equal(await save(newer, reserved), 'saved');
  t.same(catalog.unitStates.of(id).load(), reserved);
});

t.test('the state stays in the trash with its volume, and goes with it', async (t) => {
  const store = await openSqliteControlStore(join(t.testdir(), 'control.db'));
  t.teardown(() => store.close());
  const catalog = await open(store);
  const { id } = await catalog.volumes.create({ ...wanted, name: 'a' });
  const unit = catalog.unitStates.of(id);
  await save(unit, reserved);
  await catalog.trash.remove(id, 'a', { force: false, purge: false });
  t.equal(await save(unit, reserved), 'NOT_FOUND', 'nobody changes it there');
  await catalog.trash.restore(id, null);
  t.same(catalog.unitStates.of(id).load(), reserved);
  await catalog.trash.remove(id, 'a', { force: false, purge: true });
  t.equal(await store.get(`unit/${id}`), null);
  t.equal(await save(unit, reserved), 'NOT_FOUND', 'nor does it come back');
  t.same(await store.list('unit/'), []);
});

t.test('a control store that is closed fails the save', async (t) => {
  const store = await openSqliteControlStore(join(t.testdir(), 'control.db'));
  const catalog = await open(store);
  const { id } = await catalog.volumes.create({ ...wanted, name: 'a' });
  await store.close();
  t.equal(await save(catalog.unitStates.of(id), reserved), 'SHUTTING_DOWN');
});

t.test(
  'a document that is damaged keeps everybody from its volume, and nobody from others; one that is newer stops the start',
  async (t) => {
    const document = JSON.parse(golden);
    const registrations = document.persistentReservations.registrations;
    const withReservation = (reservation: object) => ({
      ...document,
      persistentReservations: { registrations, reservation },
    });
    const bad: Record<string, unknown> = {
      'a newer version': { ...document, schemaVersion: 2 },
      'no version': { ...document, schemaVersion: undefined },
      'a field nobody knows': { ...document, more: 1 },
      'a holder that is not registered': withReservation({ type: 5, holder: 2 }),
      'a holder where all are': withReservation({ type: 7, holder: 0 }),
      'no holder': withReservation({ type: 1, holder: null }),
      'a type that does not exist': withReservation({ type: 2, holder: 0 }),
      'a key of another length': {
        ...document,
        persistentReservations: { registrations: [{ ...registrations[0], key: '1' }], reservation: null },
      },
      'one nexus twice': {
        ...document,
        persistentReservations: { registrations: [registrations[0], registrations[0]], reservation: null },
      },
      'no object': 'text',
    };
    t.ok(unitRecordSchema.safeParse(document).success, 'the golden one is not');
    for (const [what, value] of Object.entries(bad)) {
      const filename = join(t.testdir(), 'control.db');
      const { store, catalog, a, b } = await twoVolumes(filename);
      t.equal(await save(catalog.unitStates.of(b), reserved), 'saved');
      await catalog.stop();
      t.equal(await save(catalog.unitStates.of(a), reserved), 'saved');
      await store.close();
      overwrite(filename, `unit/${a}`, JSON.stringify(value));

      const reopened = await openSqliteControlStore(filename);
      if (what === 'a newer version') {
        await t.rejects(open(reopened), { code: 'FORMAT_TOO_NEW', message: /unit\// }, what);
        await reopened.close();
        continue;
      }
      const again = await open(reopened);
      await refusesOnly(t, again, what);
      t.same(again.unitStates.of(b).load(), reserved);
      await again.trash.remove(a, 'a', { force: false, purge: true });
      t.same(await reopened.get(`unit/${a}`), null, 'it goes with its volume');
      await again.stop();
      await reopened.close();
    }
  },
);

function overwrite(filename: string, key: string, json: string): void {
  const database = new Database(filename);
  database.prepare('UPDATE documents SET json = ? WHERE key = ?').run(json, key);
  database.close();
}

/** Volume a is refused to everybody in words that tell what to do; b is not. */
async function refusesOnly(t: Test, catalog: Catalog, what: string): Promise<void> {
  const [a, b] = [catalog.volumes.find('a'), catalog.volumes.find('b')];
  const told = /volume a is not served: .*unit\/.* is damaged.*--reservations-lost forget/;
  t.match(catalog.volumes.admit(a, 'iqn.test:a'), told, what);
  t.match(catalog.volumes.fault(a), { code: 'CORRUPT', message: told });
  const claim = { holder: 'h', initiator: 'iqn.test:a', ttlMs: 60_000 };
  await t.rejects(catalog.claims.take(a.id, 'a', claim), { code: 'CORRUPT', message: told });
  t.equal(await save(catalog.unitStates.of(a.id), reserved), 'CORRUPT', 'nothing is written over it');
  t.equal(catalog.volumes.admit(b, 'iqn.test:a'), null);
  t.equal(catalog.volumes.fault(b), null);
  await catalog.claims.take(b.id, 'b', claim);
}

async function twoVolumes(
  filename: string,
): Promise<{ store: ControlStore; catalog: Catalog; a: string; b: string }> {
  const store = await openSqliteControlStore(filename);
  const catalog = await open(store);
  const { id: a } = await catalog.volumes.create({ ...wanted, name: 'a' });
  const { id: b } = await catalog.volumes.create({ ...wanted, name: 'b' });
  return { store, catalog, a, b };
}

t.test('a document that is no JSON does the same, and is forgotten when that is asked for', async (t) => {
  const filename = join(t.testdir(), 'control.db');
  const { store, catalog, a, b } = await twoVolumes(filename);
  for (const id of [a, b]) t.equal(await save(catalog.unitStates.of(id), reserved), 'saved');
  await catalog.stop();
  await store.close();
  overwrite(filename, `unit/${a}`, '{"x');

  const reopened = await openSqliteControlStore(filename);
  t.teardown(() => reopened.close());
  const again = await open(reopened);
  await refusesOnly(t, again, 'no JSON');
  await again.stop();
  const forgetful = await open(reopened, { forgetsDamagedUnits: true });
  t.equal(forgetful.volumes.admit(forgetful.volumes.find('a'), 'iqn.test:a'), null);
  t.equal(forgetful.unitStates.of(a).load(), null);
  t.same(forgetful.unitStates.of(b).load(), reserved, 'what can be read stays');
  t.equal(await save(forgetful.unitStates.of(a), reserved), 'saved');
});

/** A store whose next transactions fail in the way asked for. */
class FaultyStore extends MemoryControlStore {
  readonly faults: ('before' | 'after')[] = [];
  failingReads = 0;

  override async transact(transaction: ControlTransaction): Promise<number | null> {
    const fault = this.faults.shift();
    if (fault === undefined) return super.transact(transaction);
    // Its watchers are not told.
    if (fault === 'after') await new MemoryControlStore(this.state).transact(transaction);
    throw new WeftError('IO_ERROR', 'the disk said no');
  }

  override async get(key: string): Promise<ControlDocument | null> {
    if (this.failingReads > 0) {
      this.failingReads -= 1;
      throw new WeftError('IO_ERROR', 'the disk said no');
    }
    return super.get(key);
  }
}

async function faulty(): Promise<{ store: FaultyStore; catalog: Catalog; clock: ManualClock; id: string }> {
  const store = new FaultyStore();
  const clock = new ManualClock();
  const catalog = await open(store, { clock });
  const { id } = await catalog.volumes.create({ ...wanted, name: 'a' });
  return { store, catalog, clock, id };
}

const other: UnitState = { ...reserved, modeParameters: null };

t.test('a save that failed and has happened is a save', async (t) => {
  const { store, catalog, id } = await faulty();
  const unit = catalog.unitStates.of(id);
  for (const state of [reserved, other, reserved]) {
    store.faults.push('after');
    t.equal(await save(unit, state), 'saved');
    t.same(catalog.unitStates.of(id).load(), state);
  }
  store.faults.push('before');
  t.equal(await save(unit, other), 'IO_ERROR');
  t.same((await open(new MemoryControlStore(store.state))).unitStates.of(id).load(), reserved);
  t.equal(await save(unit, other), 'saved');
});

t.test('a save of which nobody knows fails, and what it left is taken back', async (t) => {
  const { store, catalog, clock, id } = await faulty();
  const unit = catalog.unitStates.of(id);
  const stored = async () => (await open(new MemoryControlStore(store.state))).unitStates.of(id).load();
  for (const before of [null, reserved]) {
    if (before !== null) t.equal(await save(unit, before), 'saved');
    store.faults.push('after');
    store.failingReads = 1;
    t.equal(await save(unit, other), 'IO_ERROR');
    t.same(await stored(), other, 'it has happened');
    store.failingReads = 1;
    clock.pass(5);
    await new Promise(setImmediate);
    t.same(await stored(), other);
    clock.pass(5);
    await new Promise(setImmediate);
    t.same(await stored(), before, 'and is taken back when the store answers');
  }
  t.equal(await save(unit, other), 'saved');
});

t.test('the next save after one of which nobody knows goes on from what is there', async (t) => {
  const { store, catalog, clock, id } = await faulty();
  const unit = catalog.unitStates.of(id);
  store.faults.push('after');
  store.failingReads = 1;
  t.equal(await save(unit, reserved), 'IO_ERROR');
  t.equal(await save(unit, other), 'saved');
  clock.pass(5);
  await new Promise(setImmediate);
  t.same((await open(new MemoryControlStore(store.state))).unitStates.of(id).load(), other);
});

t.test("a change of the catalog that failed and has happened is in nobody's way", async (t) => {
  const { store, catalog, id } = await faulty();
  store.faults.push('after');
  await t.rejects(catalog.volumes.update('a', { sizeBytes: 4_194_304 }), { code: 'IO_ERROR' });
  const { volume } = await catalog.volumes.update('a', { sizeBytes: 8_388_608 });
  t.match(volume, { id, sizeBytes: 8_388_608 });
});
