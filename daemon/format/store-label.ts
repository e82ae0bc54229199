/**
 * The label of a node's data directory: `label.json`, one JSON object on one line.
 *
 *   magic      "WEFT-NODE"
 *   version    1; a newer one is refused
 *   nodeId     UUID, given once
 *   starts     how often a daemon has opened the directory; only rises. On a fabric of one node it is the epoch of
 *              every volume: a record of an earlier life of the daemon can always be told from one of this life
 *   createdAt  ISO 8601, UTC
 *   crc32c     of the line's bytes with this field set to 0, as eight hex digits
 */
import { crc32c } from '@node-rs/crc32';
import { WeftError } from '../base/errors.ts';

export const labelMagic = 'WEFT-NODE';
export const labelVersion = 1;

export interface StoreLabel {
  nodeId: string;
  starts: number;
  createdAt: string;
}

function line(label: StoreLabel, checksum: string): string {
  const { nodeId, starts, createdAt } = label;
  return JSON.stringify({
    magic: labelMagic,
    version: labelVersion,
    nodeId,
    starts,
    createdAt,
    crc32c: checksum,
  });
}

function checksumOf(label: StoreLabel): string {
  return crc32c(line(label, '00000000')).toString(16).padStart(8, '0');
}

export function encodeStoreLabel(label: StoreLabel): Buffer {
  return Buffer.from(`${line(label, checksumOf(label))}\n`);
}

/** Throws CORRUPT or FORMAT_TOO_NEW; `path` is for the message. */
export function decodeStoreLabel(bytes: Buffer, path: string): StoreLabel {
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>;
  } catch (error) {
    throw new WeftError('CORRUPT', `${path} is not a label of Weft (no JSON): restore it from a backup`, {
      cause: error,
    });
  }
  if (value === null || typeof value !== 'object' || value['magic'] !== labelMagic) {
    throw new WeftError('CORRUPT', `${path} is not a label of Weft: is this the right data directory?`);
  }
  if (typeof value['version'] === 'number' && value['version'] > labelVersion) {
    throw new WeftError(
      'FORMAT_TOO_NEW',
      `${path} has format version ${value['version']}, this weftd knows up to ${labelVersion}: run the newer weftd`,
    );
  }
  const { nodeId, starts, createdAt } = value;
  if (typeof nodeId !== 'string' || typeof createdAt !== 'string' || !Number.isSafeInteger(starts)) {
    throw new WeftError('CORRUPT', `${path} lacks a field: restore it from a backup`);
  }
  const label: StoreLabel = { nodeId, starts: starts as number, createdAt };
  if (value['crc32c'] !== checksumOf(label)) {
    throw new WeftError('CORRUPT', `${path} fails its checksum: restore it from a backup`);
  }
  return label;
}
