import t from 'tap';
import { openCredentials } from '../../daemon/control/access.ts';
import { volumeRecordSchema } from '../../daemon/control/documents.ts';
import { Secrets } from '../../daemon/control/secrets.ts';
import { sealingKeys, upgradeVolumeRecords } from '../../daemon/control/volume-upgrade.ts';
import { systemRandom } from '../../daemon/env/random.ts';
import { secretKey } from '../../daemon/format/secret-keys.ts';
import { MemoryControlState, MemoryControlStore } from '../simulation/memory-control-store.ts';

const oldKey = secretKey(Buffer.alloc(32, 1));
const newKey = secretKey(Buffer.alloc(32, 2));
const keyFile = '/etc/weft/secrets.key';

/** As the first version wrote it. */
const version1 =
  '{"schemaVersion":1,"id":"5c5b2a0e-5f0e-4b57-9d0a-111111111111","volumeKey":7,"name":"db","container":"default",' +
  '"sizeBytes":1073741824,"durability":"flush","chunkSizeBytes":16384,"chap":{"user":"weft-0a0b0c0d0e0f",' +
  '"secret":"bAcKuP-sEcReT-16"},"labels":{"fs":"ext4"},"filesystem":null,"state":"online",' +
  '"createdAt":"2026-11-01T00:00:00.000Z","createdBy":"admin","removedAt":null,"purgeAt":null,"claim":null,"epoch":3}';

/** As this version writes it; sealed with `oldKey`. */
const version2 =
  '{"schemaVersion":2,"id":"5c5b2a0e-5f0e-4b57-9d0a-111111111111","volumeKey":7,"name":"db","container":"default",' +
  '"sizeBytes":1073741824,"durability":"flush","chunkSizeBytes":16384,"physicalBlockBytes":4096,' +
  '"chap":{"user":"weft-0a0b0c0d0e0f",' +
  '"sealedSecret":"weft-sealed:1:72cd6e8422c407fb:ISEhISEhISEhISEh0dpOriy9E_wBTSbGiWSGkwAhE21orgEkP-mC_kQepAMPLMQ"},"mutualChap":{"user":"weft-target","sealedSecret":"weft-sealed:1:72cd6e8422c407fb:IiIiIiIiIiIiIiIinHMwwKrLJIp7TxSjE9NblY8JD9u_-v5SEM0O7pDk3S4QJoAW"},' +
  '"allowedInitiators":["iqn.2026-11.io.weft.host:*"],"labels":{"fs":"ext4"},"group":null,"filesystem":null,' +
  '"state":"online","createdAt":"2026-11-01T00:00:00.000Z","createdBy":"admin","removedAt":null,"purgeAt":null,' +
  '"claim":null,"epoch":3}';
const key = 'volume/5c5b2a0e-5f0e-4b57-9d0a-111111111111';

function storeWith(documents: Record<string, string>) {
  const state = new MemoryControlState();
  for (const [key, json] of Object.entries(documents)) state.documents.set(key, { json, revision: 1 });
  let purges = 0;
  class PurgeCountingStore extends MemoryControlStore {
    override async purgeHistory(): Promise<void> {
      purges += 1;
      await super.purgeHistory();
    }
  }
  const store = new PurgeCountingStore(state);
  const upgrade = (keys: [typeof oldKey, ...(typeof oldKey)[]], renewLost = false) =>
    upgradeVolumeRecords({
      store,
      secrets: new Secrets(keys, systemRandom),
      random: systemRandom,
      keyFile,
      renewLost,
    });
  const record = (name = key) =>
    volumeRecordSchema.parse(JSON.parse(state.documents.get(name)?.json ?? '{}'));
  return { state, store, upgrade, record, purges: () => purges };
}

const credentials = (record: ReturnType<ReturnType<typeof storeWith>['record']>, key: typeof oldKey) =>
  openCredentials(new Secrets([key], systemRandom), record);

t.test('a record of version 1 becomes one of version 2, with its secret sealed, once', async (t) => {
  const { state, upgrade, record, purges } = storeWith({ [key]: version1 });
  t.strictSame(await upgrade([oldKey]), { sealed: ['db'], resealed: [], renewed: [] });
  t.equal(purges(), 1, 'what was there in the clear is purged');
  const { chap, ...rest } = record();
  const { chap: _, schemaVersion, ...before } = JSON.parse(version1);
  const added = { group: null, physicalBlockBytes: 4096, mutualChap: null, allowedInitiators: [] };
  t.strictSame(rest, { ...before, schemaVersion: 2, ...added });
  t.equal(chap?.user, 'weft-0a0b0c0d0e0f');
  t.strictSame(credentials(record(), oldKey).chap, { user: 'weft-0a0b0c0d0e0f', secret: 'bAcKuP-sEcReT-16' });
  t.notMatch(JSON.stringify([...state.documents]), 'bAcKuP-sEcReT-16');
  const written = state.documents.get(key);
  t.strictSame(await upgrade([oldKey]), { sealed: [], resealed: [], renewed: [] });
  t.equal(purges(), 1);
  t.equal(state.documents.get(key), written);
});

t.test('a start that was interrupted before the purge purges', async (t) => {
  const { state, upgrade, purges } = storeWith({ [key]: version1 });
  await upgrade([oldKey]);
  state.documents.delete('secrets/purged');
  await upgrade([oldKey]);
  t.equal(purges(), 2);
});

t.test('a record of version 2 is read as it was written', async (t) => {
  const { upgrade, record, state } = storeWith({ [key]: version2 });
  t.strictSame(await upgrade([oldKey]), { sealed: [], resealed: [], renewed: [] });
  t.equal(state.documents.get(key)?.json, version2);
  t.equal(JSON.stringify(record()), version2, 'and is written as it was read');
  t.strictSame(credentials(record(), oldKey), {
    chap: { user: 'weft-0a0b0c0d0e0f', secret: 'secret-of-initiator' },
    mutualChap: { user: 'weft-target', secret: 'secret-of-the-target' },
  });
});

t.test('a key put in front seals everything anew, and the old one can go', async (t) => {
  const { upgrade, record, store, purges } = storeWith({ [key]: version2 });
  t.strictSame(await sealingKeys(store), new Set([oldKey.id]));
  t.strictSame(await upgrade([newKey, oldKey]), { sealed: [], resealed: ['db'], renewed: [] });
  t.strictSame(await sealingKeys(store), new Set([newKey.id]));
  t.equal(credentials(record(), newKey).mutualChap?.secret, 'secret-of-the-target');
  t.equal(purges(), 1);
  t.strictSame(await upgrade([newKey]), { sealed: [], resealed: [], renewed: [] });
});

t.test(
  'without its key the start is refused and nothing is changed, until it is said to be lost',
  async (t) => {
    const { upgrade, record, state } = storeWith({ [key]: version2 });
    const before = JSON.stringify([...state.documents]);
    await t.rejects(upgrade([newKey]), {
      code: 'CONFIG_INVALID',
      message:
        /\/etc\/weft\/secrets\.key has not the key .* 1 volumes \(db\).*--secrets-key-file.*--secrets-lost renew/,
    });
    t.equal(JSON.stringify([...state.documents]), before);
    t.strictSame(await upgrade([newKey], true), { sealed: [], resealed: [], renewed: ['db'] });
    const { chap, mutualChap } = credentials(record(), newKey);
    t.equal(chap?.user, 'weft-0a0b0c0d0e0f', 'the user stays');
    t.match(chap?.secret, /^[\w-]{16}$/);
    t.not(chap?.secret, mutualChap?.secret);
  },
);

t.test('a newer or damaged record stops the start in words, before anything is changed', async (t) => {
  const other = key.replace('1111', '2222');
  for (const [json, expected] of [
    ['{"schemaVersion":3}', { code: 'FORMAT_TOO_NEW', message: /volume\/5c5b2a0e-.*has version 3/ }],
    [version2.replace('"db"', '5'), { code: 'CORRUPT', message: /volume\/5c5b2a0e-.*damaged: name: / }],
  ] as const) {
    const { state, upgrade } = storeWith({ [other]: version1, [key]: json });
    await t.rejects(upgrade([newKey, oldKey]), expected);
    t.equal(state.documents.get(other)?.json, version1);
  }
});

t.test('volumes of a group that lost their key still have one secret in common', async (t) => {
  const first = version2.replace('"group":null', '"group":{"name":"g","lun":0}');
  const id = '5c5b2a0e-5f0e-4b57-9d0a-222222222222';
  const second = version2
    .replace('-111111111111', '-222222222222')
    .replace('"group":null', '"group":{"name":"g","lun":1}');
  const { upgrade, record } = storeWith({ [key]: first, [`volume/${id}`]: second });
  t.equal((await upgrade([newKey], true)).renewed.length, 2);
  t.strictSame(credentials(record(), newKey), credentials(record(`volume/${id}`), newKey));
});

t.test('a sealed secret that was moved to another volume or field stops the start', async (t) => {
  const id = '5c5b2a0e-5f0e-4b57-9d0a-222222222222';
  const moved = version2.replace('-111111111111', '-222222222222');
  await t.rejects(storeWith({ [`volume/${id}`]: moved }).upgrade([oldKey]), {
    code: 'CORRUPT',
    message:
      /sealed chap secret of iqn\.2026-11\.io\.weft:volume-5c5b2a0e-5f0e-4b57-9d0a-222222222222 does not open/,
  });
  const { chap, mutualChap, ...rest } = JSON.parse(version2);
  const swapped = JSON.stringify({ ...rest, chap: mutualChap, mutualChap: chap });
  await t.rejects(storeWith({ [key]: swapped }).upgrade([oldKey]), { code: 'CORRUPT' });
  await t.rejects(storeWith({ [`volume/${id}`]: version2 }).upgrade([oldKey]), { code: 'CORRUPT' });
});
