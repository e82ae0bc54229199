/**
 * Who may log in to a volume's target: those who know its credentials, and of them those that are on its list. The
 * volumes of a group share their credentials, because they share the target; each has a list of its own.
 *
 * A name on the list is one that an initiator gives itself: the list keeps hosts apart that mean well, the credentials
 * keep out those that do not.
 */
import { WeftError } from '../base/errors.ts';
import type { Random } from '../env/random.ts';
import { type CredentialsRecord, iqnOf, type VolumeRecord } from './documents.ts';
import type { Secrets } from './secrets.ts';

export interface Credentials {
  user: string;
  secret: string;
}

/** What a volume's target asks of initiators, and what it proves itself with. */
export interface TargetCredentials {
  chap: Credentials | null;
  mutualChap: Credentials | null;
}

/** 'auto': a new secret that nobody can guess, for the user there is or a new one. 'none': none. */
export type WantedCredentials = 'auto' | 'none' | Credentials;

/** What is not given stays. */
export interface WantedAccess {
  chap?: WantedCredentials | undefined;
  mutualChap?: WantedCredentials | undefined;
  /** The whole list; empty: any initiator. */
  allowedInitiators?: readonly string[] | undefined;
}

export type AccessRecord = Pick<VolumeRecord, 'chap' | 'mutualChap' | 'allowedInitiators'>;
export type CredentialsField = 'chap' | 'mutualChap';
export const credentialsFields: readonly CredentialsField[] = ['chap', 'mutualChap'];

export const openAccess: AccessRecord = { chap: null, mutualChap: null, allowedInitiators: [] };

export interface AccessEnv {
  secrets: Secrets;
  random: Random;
}

/** iSCSI names compare in lower case (RFC 7143 §4.2.7.2). */
export function isListed({ allowedInitiators: list }: AccessRecord, initiator: string): boolean {
  if (list.length === 0) return true;
  const name = initiator.toLowerCase();
  return list.some((entry) => (entry.endsWith('*') ? name.startsWith(entry.slice(0, -1)) : name === entry));
}

/** @throws WeftError CORRUPT: a sealed secret is damaged, or another target's. */
export function openCredentials(
  secrets: Secrets,
  volume: Pick<VolumeRecord, 'id' | 'group' | CredentialsField>,
): TargetCredentials {
  const open = (field: CredentialsField): Credentials | null => {
    const record = volume[field];
    if (record === null) return null;
    return { user: record.user, secret: secrets.open(record.sealedSecret, { owner: iqnOf(volume), field }) };
  };
  return { chap: open('chap'), mutualChap: open('mutualChap') };
}

/**
 * The access a volume has after a change.
 * @throws WeftError INVALID_ARGUMENT.
 */
export function nextAccess(
  env: AccessEnv,
  volume: Pick<VolumeRecord, 'id' | 'group'> & AccessRecord,
  wanted: WantedAccess,
): AccessRecord {
  const access: AccessRecord = {
    chap: nextCredentials(env, volume, 'chap', wanted.chap),
    mutualChap: nextCredentials(env, volume, 'mutualChap', wanted.mutualChap),
    allowedInitiators: listOf(wanted.allowedInitiators) ?? volume.allowedInitiators,
  };
  if (access.mutualChap === null) return access;
  if (access.chap === null) {
    throw new WeftError(
      'INVALID_ARGUMENT',
      'mutual CHAP comes after CHAP: give chap too, or set mutualChap to none',
    );
  }
  const { chap, mutualChap } = openCredentials(env.secrets, { ...volume, ...access });
  // RFC 7143 §9.2.1: else the target could be made to answer its own challenge.
  if (chap?.secret === mutualChap?.secret) {
    throw new WeftError(
      'INVALID_ARGUMENT',
      'the secrets of chap and mutualChap must differ: whoever knows one must not be able to stand in for the other',
    );
  }
  return access;
}

function nextCredentials(
  env: AccessEnv,
  volume: Pick<VolumeRecord, 'id' | 'group'> & AccessRecord,
  field: CredentialsField,
  wanted: WantedCredentials | undefined,
): CredentialsRecord | null {
  if (wanted === undefined) return volume[field];
  if (wanted === 'none') return null;
  // Said once more, as a tool that sets the wanted state does, it is no change and costs nobody a session.
  if (wanted !== 'auto' && isSame(env.secrets, volume, field, wanted)) return volume[field];
  const credentials = wanted === 'auto' ? newCredentials(env.random, volume[field]?.user ?? null) : wanted;
  return sealCredentials(env.secrets, volume, field, credentials);
}

function isSame(
  secrets: Secrets,
  volume: Pick<VolumeRecord, 'id' | 'group'> & AccessRecord,
  field: CredentialsField,
  { user, secret }: Credentials,
): boolean {
  const record = volume[field];
  if (record === null || record.user !== user) return false;
  try {
    return secrets.open(record.sealedSecret, { owner: iqnOf(volume), field }) === secret;
  } catch {
    // What is damaged is replaced by what is wanted.
    return false;
  }
}

export function sealCredentials(
  secrets: Secrets,
  volume: Pick<VolumeRecord, 'id' | 'group'>,
  field: CredentialsField,
  { user, secret }: Credentials,
): CredentialsRecord {
  return { user, sealedSecret: secrets.seal(secret, { owner: iqnOf(volume), field }) };
}

/** RFC 7143 §9.2.1 wants at least 96 random bits; some initiators take 16 characters at most. */
export function newCredentials(random: Random, user: string | null): Credentials {
  return {
    user: user ?? `weft-${random.bytes(6).toString('hex')}`,
    secret: random.bytes(12).toString('base64url'),
  };
}

function listOf(wanted: readonly string[] | undefined): string[] | undefined {
  if (wanted === undefined) return undefined;
  return [...new Set(wanted.map((name) => name.toLowerCase()))].sort();
}
