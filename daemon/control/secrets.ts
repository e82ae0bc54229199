/** Seals and opens what must not be in the control store in the clear. */
import { WeftError } from '../base/errors.ts';
import type { Random } from '../env/random.ts';
import {
  nonceBytes,
  openSecret,
  type SecretPlace,
  sealingKeyId,
  sealSecret,
} from '../format/sealed-secret.ts';
import type { SecretKey } from '../format/secret-keys.ts';

export class Secrets {
  readonly #keys: readonly [SecretKey, ...SecretKey[]];
  readonly #random: Random;

  /** @param keys the first seals, all open. */
  constructor(keys: readonly [SecretKey, ...SecretKey[]], random: Random) {
    this.#keys = keys;
    this.#random = random;
  }

  seal(secret: string, place: SecretPlace): string {
    return sealSecret(secret, this.#keys[0], place, this.#random.bytes(nonceBytes));
  }

  /** @throws WeftError CORRUPT, also when no key here opens it: `has` asks before. */
  open(sealed: string, place: SecretPlace): string {
    const id = sealingKeyId(sealed);
    const key = this.#keys.find((candidate) => candidate.id === id);
    if (key !== undefined) return openSecret(sealed, key, place);
    throw new WeftError('CORRUPT', `the key ${id} that seals a secret of ${place.owner} is not there`);
  }

  /** Whether the key that opens it is there. */
  has(sealed: string): boolean {
    return this.#keys.some((key) => key.id === sealingKeyId(sealed));
  }

  /** Whether it is sealed with the key that is in use. */
  isCurrent(sealed: string): boolean {
    return this.#keys[0].id === sealingKeyId(sealed);
  }
}
