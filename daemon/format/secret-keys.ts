/**
 * The key file: the keys that secrets on disk are sealed with. Text, so that it can be kept in a vault and typed in.
 *
 *     weft-secret-keys 1
 *     <key id> <key>
 *
 * | part    | what                                                                                           |
 * |---------|------------------------------------------------------------------------------------------------|
 * | line 1  | magic and version                                                                              |
 * | key id  | 16 hex digits: the first 8 bytes of the SHA-256 of the key; its checksum. May be left out       |
 * | key     | 64 hex digits: 256 random bits                                                                 |
 *
 * The first key seals, all of them open: a new key is put in front, and the old one can go when nothing is sealed with
 * it any more. Empty lines and lines that begin with `#` mean nothing.
 */
import { createHash } from 'node:crypto';
import { WeftError } from '../base/errors.ts';

export interface SecretKey {
  /** Tells keys apart without telling the key. */
  id: string;
  key: Buffer;
}

export const secretKeyBytes = 32;
const magic = 'weft-secret-keys';
const version = 1;
/** One in use, and those of rotations that were never tidied up. */
const maxKeys = 16;

export function secretKey(key: Buffer): SecretKey {
  return { id: createHash('sha256').update(key).digest('hex').slice(0, 16), key };
}

export function encodeSecretKeys(keys: readonly SecretKey[]): string {
  const lines = keys.map(({ id, key }) => `${id} ${key.toString('hex')}`);
  return `${[`${magic} ${version}`, ...lines].join('\n')}\n`;
}

/**
 * @param name of the file, for messages. No message repeats a key.
 * @throws WeftError CORRUPT, FORMAT_TOO_NEW.
 */
export function decodeSecretKeys(text: string, name: string): SecretKey[] {
  const lines = text.split('\n').map((line) => line.trim());
  const [, digits] = /^weft-secret-keys (\d{1,9})$/.exec(lines[0] ?? '') ?? [];
  if (digits === undefined) throw corrupt(name, `its first line is not "${magic} ${version}"`);
  if (Number(digits) > version) {
    throw new WeftError('FORMAT_TOO_NEW', `${name} has version ${digits}: run the newer Weft that wrote it`);
  }
  const keys: SecretKey[] = [];
  for (const [index, line] of lines.entries()) {
    if (index === 0 || line === '' || line.startsWith('#')) continue;
    const [, id, hex] = /^(?:([0-9a-f]{16}) )?([0-9a-f]{64})$/.exec(line) ?? [];
    if (hex === undefined) throw corrupt(name, `line ${index + 1} is not a key of 64 hex digits`);
    const key = secretKey(Buffer.from(hex, 'hex'));
    if (id !== undefined && id !== key.id) throw corrupt(name, `the key on line ${index + 1} is damaged`);
    keys.push(key);
  }
  if (keys.length === 0 || keys.length > maxKeys) throw corrupt(name, `it has ${keys.length} keys`);
  return keys;
}

function corrupt(name: string, reason: string): WeftError {
  return new WeftError('CORRUPT', `${name} is no key file: ${reason}; restore it from where you keep it`);
}
