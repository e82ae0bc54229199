/** Bytes of an initiator's PDU (RFC 7143 §11.2), and what damage makes of them. */
import { digestOf } from '../iscsi/initiator.ts';
import type { Damage } from './conversation.ts';

export interface RequestFields {
  bytes01: readonly [number, number];
  byte2: number;
  byte3: number;
  /** Bytes 8-15 in hexadecimal. */
  lun: string;
  itt: number;
  /** Bytes 20-23. */
  tag: number;
  cmdSn: number;
  expStatSn: number;
  /** Bytes 32-47. */
  rest: Buffer;
  ahs: Buffer;
  data: Buffer;
  headerDigest: boolean;
  dataDigest: boolean;
  damage: readonly Damage[];
}

/** What most requests have. */
export const plainRequest = {
  byte2: 0,
  byte3: 0,
  lun: '0'.repeat(16),
  cmdSn: 0,
  rest: Buffer.alloc(16),
  ahs: Buffer.alloc(0),
  data: Buffer.alloc(0),
  damage: [],
} as const;

/** `isFramed`: the target can tell where the next PDU begins. */
export function encodeRequest(fields: RequestFields): { bytes: Buffer; isFramed: boolean } {
  const { data, ahs, damage } = fields;
  const header = Buffer.alloc(48 + ahs.length);
  header.set([...fields.bytes01, fields.byte2, fields.byte3], 0);
  header[4] = ahs.length / 4;
  header.writeUIntBE(data.length % 2 ** 24, 5, 3);
  header.write(fields.lun, 8, 8, 'hex');
  header.writeUInt32BE(fields.itt, 16);
  header.writeUInt32BE(fields.tag, 20);
  header.writeUInt32BE(fields.cmdSn, 24);
  header.writeUInt32BE(fields.expStatSn, 28);
  fields.rest.copy(header, 32);
  ahs.copy(header, 48);
  const lengths = header.readUInt32BE(4);
  const body = Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
  // Digests are made of what is damaged already: they hide nothing from the parts behind them.
  for (const one of damage) {
    if (one.how !== 'flip' && one.how !== 'set') continue;
    const at = one.at % (header.length + body.length);
    const [bytes, index] = at < header.length ? [header, at] : [body, at - header.length];
    if (one.how === 'flip') bytes[index]! ^= 1 << one.bit;
    else bytes[index] = one.value;
  }
  const parts: Buffer[] = [header];
  if (fields.headerDigest) parts.push(spoiled(digestOf(header), damage, 'header digest'));
  if (body.length > 0) parts.push(body);
  if (fields.dataDigest && body.length > 0) parts.push(spoiled(digestOf(body), damage, 'data digest'));
  let bytes = Buffer.concat(parts);
  let isFramed = header.readUInt32BE(4) === lengths;
  for (const one of damage) {
    if (one.how === 'twice') bytes = Buffer.concat([bytes, bytes]);
    if (one.how !== 'cut') continue;
    bytes = bytes.subarray(0, one.at % bytes.length);
    isFramed = false;
  }
  return { bytes, isFramed };
}

function spoiled(digest: Buffer, damage: readonly Damage[], which: 'header digest' | 'data digest'): Buffer {
  if (damage.some(({ how }) => how === which)) digest[0]! ^= 0x10;
  return digest;
}
