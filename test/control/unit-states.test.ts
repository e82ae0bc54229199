/** What logical units keep, through the catalog and the control store it runs on. */
import { join } from 'node:path';
import t from 'tap';
import type { WeftError } from '../../daemon/base/errors.ts';
import { Catalog } from '../../daemon/control/catalog.ts';
import type { ControlStore } from '../../daemon/control/control-store.ts';
import { openSqliteControlStore } from '../../daemon/control/sqlite-control-store.ts';
import { unitRecordSchema } from '../../daemon/control/unit-states.ts';
import { systemRandom } from '../../daemon/env/random.ts';
import { maxRegistrations } from '../../daemon/scsi/reservation-changes.ts';
import { noReservations, savedReservations } from '../../daemon/scsi/reservation-state.ts';
import type { UnitState, UnitStateStore } from '../../daemon/scsi/unit-state-store.ts';
import { FakeVolumeHost } from '../api/fake-volume-host.ts';
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

async function open(store: ControlStore): Promise<Catalog> {
  const catalog = new Catalog({
    store,
    host: new FakeVolumeHost(),
    clock: new ManualClock(),
    random: systemRandom,
    secrets: testSecrets,
    onFault: (error) => {
      throw error;
    },
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

t.test('a document that is newer or damaged is refused, with its name', async (t) => {
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
    const store = await openSqliteControlStore(join(t.testdir(), `${what}.db`));
    await store.transact({ conditions: [], puts: [{ key: 'unit/x', value }], deletes: [] });
    const code = what === 'a newer version' ? 'FORMAT_TOO_NEW' : 'CORRUPT';
    await t.rejects(open(store), { code, message: /unit\/x/ }, what);
    await store.close();
  }
});
