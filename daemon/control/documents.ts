/**
 * The documents the catalog keeps in the control store, as JSON. Each carries the version of its layout; one that is
 * newer than this Weft is refused, one that is not as written here is refused as damaged.
 *
 *     container/<name>     ContainerRecord
 *     volume/<id>          VolumeRecord
 *     unit/<volume id>     UnitRecord (unit-states.ts)
 *     volume-name/<name>   NameRecord: which online volume has the name
 *     counter/<name>       CounterRecord
 *     token/<name>         TokenRecord
 */
import { z } from 'zod';
import { sealedPattern } from '../format/sealed-secret.ts';

const schemaVersion = z.literal(1).default(1);
const isoTime = z.iso.datetime();
const sizeBytes = z.int().nonnegative();

export const containerRecordSchema = z.strictObject({
  schemaVersion,
  name: z.string(),
  chunkSizeBytes: sizeBytes,
  replicationFactor: z.int().positive(),
  /** For volumes that name none. */
  durability: z.enum(['flush', 'sync']),
  /** Largest sum of volume sizes, trash included; null: none. */
  quotaBytes: sizeBytes.nullable(),
  trashRetentionSeconds: z.int().nonnegative(),
  createdAt: isoTime,
  /** Kept here, changed together with its volumes, so that a quota is exact whoever creates at the same time. */
  volumeCount: z.int().nonnegative(),
  provisionedBytes: sizeBytes,
});
export type ContainerRecord = z.infer<typeof containerRecordSchema>;

const claimRecordSchema = z.strictObject({
  holder: z.string(),
  initiator: z.string(),
  epoch: z.int().positive(),
  ttlMs: z.int().positive(),
  /** Wall clock when it was taken or renewed, plus the TTL. Tells renewals apart; see claims.ts for when it lapses. */
  expiresAtMs: z.int(),
});
export type ClaimRecord = z.infer<typeof claimRecordSchema>;

/** The user in the clear, the secret sealed for the target (access.ts). */
const credentialsRecordSchema = z.strictObject({
  user: z.string(),
  sealedSecret: z.string().regex(sealedPattern),
});
export type CredentialsRecord = z.infer<typeof credentialsRecordSchema>;

/** Version 1, with secrets in the clear, is rewritten at the start (volume-upgrade.ts). */
export const volumeRecordVersion = 2;

export const volumeRecordSchema = z.strictObject({
  schemaVersion: z.literal(volumeRecordVersion),
  id: z.uuid(),
  /** What the data path knows it by. Never used again. */
  volumeKey: z.int().positive(),
  name: z.string(),
  container: z.string(),
  sizeBytes,
  durability: z.enum(['flush', 'sync']),
  chunkSizeBytes: sizeBytes,
  /** The physical block initiators are told of. */
  physicalBlockBytes: z.union([z.literal(512), z.literal(4096)]).default(4096),
  /** What an initiator must know to log in; null: nothing. */
  chap: credentialsRecordSchema.nullable(),
  /** What the target proves itself with to an initiator that asks for it; only together with `chap`. */
  mutualChap: credentialsRecordSchema.nullable(),
  /** Names in lower case, or beginnings of names with a `*` behind; none: any initiator. */
  allowedInitiators: z.array(z.string()),
  labels: z.record(z.string(), z.string()),
  /** Behind one target with the other volumes of the group, which share its credentials; null: a target of its own. */
  group: z.strictObject({ name: z.string(), lun: z.int().nonnegative() }).nullable().default(null),
  filesystem: z
    .strictObject({ type: z.enum(['ext4', 'xfs']), uuid: z.uuid(), state: z.enum(['making', 'ready']) })
    .nullable(),
  state: z.enum(['online', 'trash', 'purging']),
  createdAt: isoTime,
  /** Name of the token that created it, and whose owner manages it. */
  createdBy: z.string(),
  removedAt: isoTime.nullable(),
  purgeAt: isoTime.nullable(),
  claim: claimRecordSchema.nullable(),
  /** Rises with every change of holder, and stays when the claim is given back. */
  epoch: z.int().positive(),
});
export type VolumeRecord = z.infer<typeof volumeRecordSchema>;

export const nameRecordSchema = z.strictObject({ schemaVersion, id: z.uuid() });
export type NameRecord = z.infer<typeof nameRecordSchema>;

export const counterRecordSchema = z.strictObject({ schemaVersion, next: z.int().positive() });
export type CounterRecord = z.infer<typeof counterRecordSchema>;

export const tokenRecordSchema = z.strictObject({
  schemaVersion,
  name: z.string(),
  role: z.enum(['admin', 'plugin', 'viewer']),
  /** sha256 of the token, in hex. The token itself is kept nowhere: it is 256 random bits, so no salt is needed. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  createdAt: isoTime,
});
export type TokenRecord = z.infer<typeof tokenRecordSchema>;

/**
 * The iSCSI name of a volume's target: its group's, or one of its id, so that neither a new name nor another node
 * changes it.
 */
export function iqnOf(volume: Pick<VolumeRecord, 'id' | 'group'>): string {
  const { id, group } = volume;
  return `iqn.2026-11.io.weft:${group === null ? `volume-${id}` : `group-${group.name}`}`;
}

/** The logical unit number of a volume behind its target. */
export function lunOf(volume: Pick<VolumeRecord, 'group'>): number {
  return volume.group?.lun ?? 0;
}
