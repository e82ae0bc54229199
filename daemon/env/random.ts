import { randomBytes } from 'node:crypto';

/** Where chance comes from: the machine's, or a seed. */
export interface Random {
  bytes(count: number): Buffer;
}

export const systemRandom: Random = { bytes: (count) => randomBytes(count) };
