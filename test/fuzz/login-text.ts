/** The text of a login request, with what only the target can tell filled in: names, secrets, challenges. */
import { chapResponse } from '../iscsi/initiator.ts';
import type { LoginKey } from './conversation.ts';

/** Whom the fuzzer speaks to. */
export interface Addressee {
  port: number;
  /** By volume. */
  targets: { iqn: string; chap: { user: string; secret: string } | null; designator: Buffer }[];
}

/** @param answered the keys the target has sent so far. */
export function keyText(
  keys: readonly LoginKey[],
  { targets }: Addressee,
  volume: number,
  answered: ReadonlyMap<string, string>,
): Buffer {
  const target = targets[volume]!;
  const challenge = Buffer.from((answered.get('CHAP_C') ?? '0x00').slice(2), 'hex');
  const fill = (value: string): string => {
    switch (value) {
      case '@target':
        return target.iqn;
      case '@other':
        return targets[(volume + 1) % targets.length]!.iqn;
      case '@user':
        return target.chap?.user ?? 'nobody';
      case '@challenge':
        return `0x${challenge.toString('hex')}`;
      case '@response': {
        const hash = answered.get('CHAP_A') === '7' ? 'sha256' : 'md5';
        const secret = target.chap?.secret ?? 'none';
        return `0x${chapResponse(hash, Number(answered.get('CHAP_I') ?? 0), secret, challenge).toString('hex')}`;
      }
      default:
        return value;
    }
  };
  return Buffer.from(keys.map(([key, value]) => `${key}=${fill(value)}\0`).join(''));
}
