/**
 * The documents of the REST API, under /api/v1. Server, CLI and plugin share these and nothing else.
 * Sizes are in bytes, times are ISO 8601 strings in UTC. Unknown keys are refused.
 */
import { z } from 'zod';
import {
  defaultVolumeSizeBytes,
  maxChunkSizeBytes,
  maxVolumeSizeBytes,
  minChunkSizeBytes,
} from '../base/limits.ts';

/** Letters, digits, '_', '.', '-', starting with a letter or digit: what Docker allows for its own volumes. */
export const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;
export const nameSchema = z
  .string()
  .regex(
    namePattern,
    'a name is 1 to 128 letters, digits, "_", "." or "-", and starts with a letter or digit',
  );

/** Part of an iSCSI name, so in lower case (RFC 7143 4.2.7.2). */
const groupSchema = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9.-]{0,62}$/,
    'a group is 1 to 63 lower-case letters, digits, "." or "-", and starts with a letter or digit',
  );

/** What travels as CHAP_N is text of up to 255 bytes; a space in it is not read alike by everybody. */
const userSchema = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/, 'a CHAP user is 1 to 255 printable ASCII characters without spaces');
/** RFC 7143 §9.2.1: at least 96 bits. Some initiators take 12 to 16 characters only. */
const secretSchema = z
  .string()
  .regex(/^[\x21-\x7e]{12,255}$/, 'a CHAP secret is 12 to 255 printable ASCII characters without spaces');
export const credentialsSchema = z.strictObject({ user: userSchema, secret: secretSchema });
export type Credentials = z.infer<typeof credentialsSchema>;

/**
 * 'auto': the fabric makes a secret of 96 random bits, and a user when there is none yet. 'none': none. An object:
 * these.
 */
const wantedCredentialsSchema = z.union([z.enum(['auto', 'none']), credentialsSchema], {
  error:
    'allowed: "auto", "none", or {user, secret}: 1 to 255 and 12 to 255 printable ASCII characters without spaces',
});
export type WantedCredentials = z.infer<typeof wantedCredentialsSchema>;

/** iSCSI names, compared in lower case; with a * at the end, every name that begins so. None: any initiator. */
const allowedInitiatorsSchema = z
  .array(
    z
      .string()
      .toLowerCase()
      .regex(
        /^(iqn|eui|naa)\.[\x21-\x29\x2b-\x7e]{0,218}[\x21-\x7e]$/,
        'an entry is an iqn., eui. or naa. name, or the beginning of one with a "*" at its end',
      ),
  )
  .max(64);

export const durabilitySchema = z.enum(['flush', 'sync']);
export type Durability = z.infer<typeof durabilitySchema>;

const trashRetentionSchema = z.int().min(0).max(31_536_000);

export const containerCreateSchema = z.strictObject({
  name: nameSchema,
  chunkSizeBytes: z
    .int()
    .min(minChunkSizeBytes)
    .max(maxChunkSizeBytes)
    .refine((size) => (size & (size - 1)) === 0, 'a chunk size is a power of two')
    .optional(),
  /** Only 1 on a fabric of one node. */
  replicationFactor: z.literal(1).optional(),
  /** For volumes that name none. */
  durability: durabilitySchema.optional(),
  /** Largest sum of volume sizes; null: none. */
  quotaBytes: z.int().positive().nullable().optional(),
  /** How long a removed volume can be restored. */
  trashRetentionSeconds: trashRetentionSchema.optional(),
});
export type ContainerCreate = z.infer<typeof containerCreateSchema>;

/** PATCH /containers/NAME: what is not given stays. */
export const containerUpdateSchema = z.strictObject({
  /** Of volumes made from now on. */
  durability: durabilitySchema.optional(),
  /** Below what is provisioned: nothing more is. */
  quotaBytes: z.int().positive().nullable().optional(),
  /** Of volumes removed from now on. */
  trashRetentionSeconds: trashRetentionSchema.optional(),
});
export type ContainerUpdate = z.infer<typeof containerUpdateSchema>;

export interface Container {
  name: string;
  chunkSizeBytes: number;
  replicationFactor: number;
  durability: Durability;
  quotaBytes: number | null;
  trashRetentionSeconds: number;
  createdAt: string;
  volumeCount: number;
  /** Sum of the sizes of its volumes, trash included. */
  provisionedBytes: number;
  usedBytes: number;
}

/** What a new fabric starts with. */
export const defaultContainerName = 'default';

export const volumeCreateSchema = z.strictObject({
  name: nameSchema,
  sizeBytes: z.int().min(1_048_576).max(maxVolumeSizeBytes).default(defaultVolumeSizeBytes),
  container: nameSchema.optional(),
  durability: durabilitySchema.optional(),
  /**
   * The physical block initiators are told of; 4096 when not given. 512 is for initiators that refuse larger ones; they
   * write parts of blocks then, which costs a read each.
   */
  physicalBlockBytes: z.union([z.literal(512), z.literal(4096)]).optional(),
  /** What initiators must know to log in; 'none': nothing. */
  chap: wantedCredentialsSchema.default('auto'),
  /** What the volume proves itself with to initiators that ask for it; only with chap, and with another secret. */
  mutualChap: wantedCredentialsSchema.optional(),
  /** Who may log in, and knows that the volume is there. */
  allowedInitiators: allowedInitiatorsSchema.optional(),
  /**
   * Volumes of one group are logical units of one iSCSI target, and share its credentials: 'auto' makes them with the
   * group's first volume, and takes them over for the others. The LUN is the lowest that is free.
   */
  group: groupSchema.optional(),
  /** Free for the client: the plugin keeps its volume options here. */
  labels: z.record(z.string().max(128), z.string().max(1024)).optional(),
});
export type VolumeCreate = z.input<typeof volumeCreateSchema>;

export const volumeUpdateSchema = z.strictObject({
  /** Only larger than now. */
  sizeBytes: z.int().positive().max(maxVolumeSizeBytes).optional(),
  /**
   * As when it is made; 'auto' is a new secret for the same user. Of all volumes of its group. Sessions logged in with
   * other credentials are dropped.
   */
  chap: wantedCredentialsSchema.optional(),
  mutualChap: wantedCredentialsSchema.optional(),
  /** The whole list; sessions of others are dropped. */
  allowedInitiators: allowedInitiatorsSchema.optional(),
  /** With chap: sessions stay until they end by themselves, a lost connection included. */
  keepSessions: z.boolean().optional(),
  /** The record of the filesystem on it, see FilesystemRecord. */
  filesystem: z
    .strictObject({
      type: z.enum(['ext4', 'xfs']),
      uuid: z.uuid(),
      state: z.enum(['making', 'ready']),
    })
    .optional(),
});
export type VolumeUpdate = z.infer<typeof volumeUpdateSchema>;

/**
 * What was made of the volume. 'making' is written before mkfs starts and proves that nothing else was ever on it;
 * 'ready' after it ended. making -> ready (same uuid), and making -> making, are the only changes allowed.
 */
export interface FilesystemRecord {
  type: 'ext4' | 'xfs';
  uuid: string;
  state: 'making' | 'ready';
}

/** The one host a volume may be used on. Lapses at `expiresAt` unless renewed; then another holder may take it. */
export interface VolumeClaim {
  holder: string;
  initiator: string;
  epoch: number;
  expiresAt: string;
}

/** POST /trash/ID/restore and POST /volumes/NAME/restore. */
export const restoreSchema = z.strictObject({
  /** Another name to come back under. */
  as: nameSchema.optional(),
});

/** An initiator logged in to the volume now. */
export interface VolumeSession {
  initiator: string;
  address: string;
  since: string;
}

/** The answer to PATCH /volumes/NAME. */
export interface UpdatedVolume extends Volume {
  /** How many sessions ended because they are not allowed any more. */
  droppedSessions: number;
}

export interface Volume {
  id: string;
  name: string;
  container: string;
  sizeBytes: number;
  /** Bytes of data it holds (whole allocation units). */
  usedBytes: number;
  /** Bytes it takes on the stores. */
  allocatedBytes: number;
  durability: Durability;
  chunkSizeBytes: number;
  physicalBlockBytes: 512 | 4096;
  state: 'online' | 'trash';
  /** Why nobody may use it although it is online, and what to do; null: it is served. */
  fault: string | null;
  createdAt: string;
  /** Name of the token that created it. */
  createdBy: string;
  labels: Record<string, string>;
  filesystem: FilesystemRecord | null;
  /** Those of one group are logical units of one target. */
  group: string | null;
  iqn: string;
  lun: number;
  portals: string[];
  authentication: 'mutual-chap' | 'chap' | 'none';
  /** None: any initiator. */
  allowedInitiators: string[];
  claim: VolumeClaim | null;
  sessions: VolumeSession[];
  /** The node that serves it. */
  node: string;
  /** Only in the trash. */
  removedAt: string | null;
  purgeAt: string | null;
}

/** GET /volumes/NAME/attachment: what an initiator needs to log in. For administrators and the volume's creator. */
export interface Attachment {
  portals: string[];
  iqn: string;
  lun: number;
  chap: Credentials | null;
  /** What the target proves itself with, for initiators that can ask for it. */
  mutualChap: Credentials | null;
}

/** PUT /volumes/NAME/claim: takes or renews the claim. 409 IN_USE names the holder. */
export const claimSchema = z.strictObject({
  /** The host's name, or whatever tells its people where to look. */
  holder: z.string().min(1).max(255),
  /** The iSCSI name that will log in; while claimed, no other may. */
  initiator: z
    .string()
    .regex(/^(iqn|eui|naa)\.[a-z0-9.:-]{1,219}$/, 'an initiator name is an iqn., eui. or naa. name'),
  /** How long it holds without being renewed. */
  ttlSeconds: z.int().min(10).max(3600).default(60),
});
export type ClaimRequest = z.input<typeof claimSchema>;

export const roleSchema = z.enum(['admin', 'plugin', 'viewer']);
/** admin: everything. plugin: creates volumes and manages those it created. viewer: reads all but secrets. */
export type Role = z.infer<typeof roleSchema>;

export const tokenCreateSchema = z.strictObject({ name: nameSchema, role: roleSchema });
export type TokenCreate = z.infer<typeof tokenCreateSchema>;
export interface TokenInfo {
  name: string;
  role: Role;
  createdAt: string;
}
/** The answer to POST /tokens, the only time the token itself is shown. */
export interface TokenCreated extends TokenInfo {
  token: string;
}

export interface Status {
  version: string;
  node: { id: string; name: string };
  state: 'ready' | 'draining';
  startedAt: string;
  portals: string[];
  capacity: { totalBytes: number; freeBytes: number; usedBytes: number };
  journal: { usedBytes: number; capacityBytes: number };
  /** Of those online, `faulty` are not served: their `fault` says why. */
  volumes: { online: number; faulty: number; trash: number; sessions: number };
  /** Of initiators, since the start. `throttled` of the failed ones were refused for the many before them. */
  logins: { succeeded: number; failed: number; throttled: number };
}

/** GET /logins/failed: who could not log in since the start, the last first; the same again is counted. */
export interface FailedLogin {
  /** An IPv6 one as the /64 it is in. */
  address: string;
  /** As they were given; empty: not at all. */
  initiator: string;
  target: string;
  reason: string;
  count: number;
  lastAt: string;
}

/** The body of every answer that is not 2xx. `code` is one of base/errors.ts. */
export interface ErrorBody {
  error: { code: string; message: string; details: Record<string, unknown> };
}
