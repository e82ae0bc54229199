/**
 * A secret as documents on disk hold it: encrypted with AES-256-GCM, and bound to what it is the secret of.
 *
 *     weft-sealed:1:<key id>:<base64url of nonce, ciphertext and tag>
 *
 * | part       | bytes            | what                                                      |
 * |------------|------------------|-----------------------------------------------------------|
 * | key id     | 16 hex digits    | which key of the key file opens it (secret-keys.ts)        |
 * | nonce      | 12               | random                                                    |
 * | ciphertext | as many as UTF-8 | the secret                                                |
 * | tag        | 16               | over the ciphertext and the associated data               |
 *
 * Associated data: the text before the base64url part, the owner and the field, with zero bytes between. So a sealed
 * secret that was moved to another owner or field does not open, whoever can write to the store.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { assert } from '../base/assert.ts';
import { WeftError } from '../base/errors.ts';
import { type SecretKey, secretKeyBytes } from './secret-keys.ts';

/** What a secret belongs to, and as what. */
export interface SecretPlace {
  owner: string;
  field: string;
}

export const nonceBytes = 12;
const tagBytes = 16;
const cipher = 'aes-256-gcm';
/** Matches what `seal` writes, and tells it from a secret in the clear: no CHAP secret is so long. */
export const sealedPattern = /^weft-sealed:1:([0-9a-f]{16}):([A-Za-z0-9_-]{38,})$/;

/** @param nonce random, never used before with this key. */
export function sealSecret(secret: string, key: SecretKey, place: SecretPlace, nonce: Buffer): string {
  assert(
    key.key.length === secretKeyBytes && nonce.length === nonceBytes,
    'key and nonce have their lengths',
  );
  const head = `weft-sealed:1:${key.id}:`;
  const sealing = createCipheriv(cipher, key.key, nonce, { authTagLength: tagBytes });
  sealing.setAAD(associated(head, place));
  const ciphertext = Buffer.concat([sealing.update(secret, 'utf8'), sealing.final()]);
  return head + Buffer.concat([nonce, ciphertext, sealing.getAuthTag()]).toString('base64url');
}

/** The id of the key that opens it. @throws WeftError CORRUPT. */
export function sealingKeyId(sealed: string): string {
  const [, id] = sealedPattern.exec(sealed) ?? [];
  if (id === undefined) throw new WeftError('CORRUPT', 'a sealed secret is not one of format 1');
  return id;
}

/** @throws WeftError CORRUPT: it was damaged, or sealed for another place. */
export function openSecret(sealed: string, key: SecretKey, place: SecretPlace): string {
  assert(sealingKeyId(sealed) === key.id, 'a secret is opened with its own key');
  const head = sealed.slice(0, sealed.lastIndexOf(':') + 1);
  const bytes = Buffer.from(sealed.slice(head.length), 'base64url');
  const opening = createDecipheriv(cipher, key.key, bytes.subarray(0, nonceBytes), {
    authTagLength: tagBytes,
  });
  opening.setAAD(associated(head, place));
  opening.setAuthTag(bytes.subarray(-tagBytes));
  try {
    const plain = opening.update(bytes.subarray(nonceBytes, -tagBytes));
    return Buffer.concat([plain, opening.final()]).toString('utf8');
  } catch (cause) {
    throw new WeftError(
      'CORRUPT',
      `the sealed ${place.field} secret of ${place.owner} does not open: it was damaged, or is another's`,
      { cause },
    );
  }
}

function associated(head: string, { owner, field }: SecretPlace): Buffer {
  return Buffer.from(`${head}\0${owner}\0${field}`, 'utf8');
}
