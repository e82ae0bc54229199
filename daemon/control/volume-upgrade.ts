/**
 * Brings the volume records of the control store up to what this start writes, before anybody reads them:
 *
 *  - version 1 had secrets in the clear: they are sealed, and the store's files are purged of what they held before;
 *  - secrets that are sealed with a key that is not in use any more are sealed with the one that is;
 *  - secrets whose key is gone stop the start, or are replaced when it was said that the key is lost.
 */
import { z } from 'zod';
import { assert } from '../base/assert.ts';
import { WeftError } from '../base/errors.ts';
import type { Random } from '../env/random.ts';
import {
  type Credentials,
  type CredentialsField,
  credentialsFields,
  newCredentials,
  openCredentials,
  sealCredentials,
} from './access.ts';
import type { ControlDocument, ControlStore } from './control-store.ts';
import { iqnOf, type VolumeRecord, volumeRecordSchema, volumeRecordVersion } from './documents.ts';
import { decodeDocument } from './mirror.ts';
import type { Secrets } from './secrets.ts';

export interface UpgradeEnv {
  store: ControlStore;
  secrets: Secrets;
  random: Random;
  /** Where the keys come from, for messages. */
  keyFile: string;
  /** Secrets whose key is gone are replaced by new ones. */
  renewLost: boolean;
}

export interface Upgraded {
  /** Names of volumes whose secrets were in the clear. */
  sealed: string[];
  /** Names of volumes whose secrets have another key now. */
  resealed: string[];
  /** Names of volumes whose secrets are new: initiators need to be told. */
  renewed: string[];
}

const volumePrefix = 'volume/';
/** Says that the store's files hold no secret in the clear: written after they were purged. */
const purgedKey = 'secrets/purged';
/** Records in one transaction. */
const batchRecords = 500;

const volumeRecordV1Schema = volumeRecordSchema.omit({ mutualChap: true, allowedInitiators: true }).extend({
  schemaVersion: z.literal(1).default(1),
  chap: z.strictObject({ user: z.string(), secret: z.string() }).nullable(),
});

/** The ids of the keys that records are sealed with. */
export async function sealingKeys(store: ControlStore): Promise<Set<string>> {
  const text = JSON.stringify((await store.list(volumePrefix)).map((document) => document.value));
  return new Set(Array.from(text.matchAll(/"weft-sealed:\d+:([0-9a-f]+):/g), ([, id = '']) => id));
}

/** @throws WeftError CONFIG_INVALID (a key is not there), CORRUPT, FORMAT_TOO_NEW. Then nothing was changed. */
export async function upgradeVolumeRecords(env: UpgradeEnv): Promise<Upgraded> {
  const { store } = env;
  const documents = await store.list(volumePrefix);
  const upgraded: Upgraded = { sealed: [], resealed: [], renewed: [] };
  const renewed = new Map<string, Credentials>();
  const writes: { document: ControlDocument; record: VolumeRecord }[] = [];
  for (const document of documents) {
    const record = upgradedRecord(env, document, upgraded, renewed);
    if (record !== null) writes.push({ document, record });
  }
  if (upgraded.renewed.length > 0 && !env.renewLost) throw keyMissing(env, upgraded.renewed);
  for (let at = 0; at < writes.length; at += batchRecords) {
    const batch = writes.slice(at, at + batchRecords);
    const revision = await store.transact({
      conditions: batch.map(({ document: { key, revision } }) => ({ key, revision })),
      puts: batch.map(({ document: { key }, record }) => ({ key, value: record })),
      deletes: [],
    });
    assert(revision !== null, 'nobody else writes before the catalog is open');
  }
  if (writes.length > 0 || (await store.get(purgedKey)) === null) {
    await store.purgeHistory();
    const put = { key: purgedKey, value: { schemaVersion: 1 } };
    await store.transact({ conditions: [], puts: [put], deletes: [] });
  }
  return upgraded;
}

/** Null when it is as it should be. */
function upgradedRecord(
  env: UpgradeEnv,
  { key, value }: ControlDocument,
  upgraded: Upgraded,
  renewed: Map<string, Credentials>,
): VolumeRecord | null {
  const { secrets } = env;
  const old = volumeRecordV1Schema.safeParse(value).data;
  if (old !== undefined) {
    if (old.chap !== null) upgraded.sealed.push(old.name);
    const chap = old.chap === null ? null : sealCredentials(secrets, old, 'chap', old.chap);
    return { ...old, schemaVersion: volumeRecordVersion, chap, mutualChap: null, allowedInitiators: [] };
  }
  const record = decodeDocument(key, value, volumeRecordSchema, volumeRecordVersion);
  if (key !== volumePrefix + record.id) {
    throw new WeftError(
      'CORRUPT',
      `the control store's document ${key} is the record of volume ${record.id}`,
    );
  }
  const sealed = credentialsFields.filter((field) => record[field] !== null);
  const isLost = sealed.some((field) => !secrets.has(record[field]?.sealedSecret ?? ''));
  if (isLost) {
    upgraded.renewed.push(record.name);
    return { ...record, ...renewedCredentials(env, record, renewed) };
  }
  // Opened each time: a damaged one is found at the start, not at a login.
  const credentials = openCredentials(secrets, record);
  if (sealed.every((field) => secrets.isCurrent(record[field]?.sealedSecret ?? ''))) return null;
  upgraded.resealed.push(record.name);
  const reseal = (field: CredentialsField) => {
    const opened = credentials[field];
    return opened === null ? null : sealCredentials(secrets, record, field, opened);
  };
  return { ...record, chap: reseal('chap'), mutualChap: reseal('mutualChap') };
}

/** For the same users; the same for all volumes of a target. */
function renewedCredentials(
  { secrets, random }: UpgradeEnv,
  record: VolumeRecord,
  renewed: Map<string, Credentials>,
): Pick<VolumeRecord, CredentialsField> {
  const renew = (field: CredentialsField) => {
    const before = record[field];
    if (before === null) return null;
    const place = `${iqnOf(record)} ${field}`;
    const credentials = renewed.get(place) ?? newCredentials(random, before.user);
    renewed.set(place, credentials);
    return sealCredentials(secrets, record, field, credentials);
  };
  return { chap: renew('chap'), mutualChap: renew('mutualChap') };
}

function keyMissing({ keyFile }: UpgradeEnv, names: string[]): WeftError {
  const some = names.slice(0, 3).join(', ') + (names.length > 3 ? ', …' : '');
  return new WeftError(
    'CONFIG_INVALID',
    `${keyFile} has not the key that the CHAP secrets of ${names.length} volumes (${some}) are sealed with: put ` +
      'the right file there, or name it with --secrets-key-file. If it is lost for good, --secrets-lost renew gives ' +
      'these volumes new secrets; no data is lost',
    { details: { keyFile, volumes: names.length } },
  );
}
