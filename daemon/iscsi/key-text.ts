/** The text of login and text PDUs: `key=value` pairs, each ended by a zero byte (RFC 7143 §6.1). */
import { KiB } from '../base/limits.ts';

export type KeyPair = readonly [key: string, value: string];

/** All the text of one negotiation step, over its continuation PDUs. SendTargets and CHAP need a fraction of it. */
export const maxTextBytes = 64 * KiB;
/** Keys in one step. RFC 7143 defines fewer than 40. */
const maxPairs = 128;
/** §6.1: a key name has at most 63 bytes. */
const maxKeyLength = 63;

/** The pairs in order, or null when the text is malformed. */
export function parseKeyText(text: Buffer): KeyPair[] | null {
  if (text.length === 0) return [];
  const pairs: KeyPair[] = [];
  for (const item of text.toString('utf8').split('\0')) {
    // Text is padded with zero bytes by some initiators.
    if (item === '') continue;
    const equals = item.indexOf('=');
    if (equals < 1 || equals > maxKeyLength || pairs.length === maxPairs) return null;
    pairs.push([item.slice(0, equals), item.slice(equals + 1)]);
  }
  return pairs;
}

export function encodeKeyText(pairs: readonly KeyPair[]): Buffer {
  return Buffer.from(pairs.map(([key, value]) => `${key}=${value}\0`).join(''), 'utf8');
}

/** A number in decimal or 0x notation (§6.1 numerical-value), or null. */
export function parseNumber(value: string): number | null {
  if (!/^(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})$/.test(value)) return null;
  return Number(value);
}

/**
 * A binary value in 0x (hexadecimal) or 0b (base64, RFC 4648 §4) notation, or null. Hexadecimal is a number: of an odd
 * count of digits the first byte has one (§6.1).
 */
export function parseBinary(value: string): Buffer | null {
  if (/^0[xX][0-9a-fA-F]+$/.test(value)) {
    const digits = value.slice(2);
    return Buffer.from(digits.length % 2 === 0 ? digits : `0${digits}`, 'hex');
  }
  if (/^0[bB]([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}(==|[A-Za-z0-9+/]=))?$/.test(value) && value.length > 2) {
    return Buffer.from(value.slice(2), 'base64');
  }
  return null;
}

export const encodeBinary = (value: Buffer): string => `0x${value.toString('hex')}`;
