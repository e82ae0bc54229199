/**
 * The iSCSI TransportID (SPC-4 7.6.4.6): how persistent reservations name an initiator port.
 *
 *     0      TPID FORMAT (bits 7-6: 00b the initiator's name, 01b its name and ISID), PROTOCOL IDENTIFIER 5h
 *     1      reserved
 *     2-3    ADDITIONAL LENGTH: a multiple of four, at least 20
 *     4-     the name, with format 01b followed by ",i,0x" and the ISID in hexadecimal; zero-terminated and padded
 */
import { initiatorNameOf } from '../nexus-name.ts';

const iscsiProtocol = 0x05;
const nameAndIsid = 0x40;
const headerBytes = 4;
const minAdditionalBytes = 20;
/** As logins check it (RFC 7143 4.2.7.1): what cannot log in need not be remembered, however long it is. */
const namePattern = /^(iqn|eui|naa)\.[\x21-\x7e]{1,219}$/;
/** Hexadecimal digits of the six bytes of an ISID. */
const isidDigits = 12;

export interface TransportId {
  /** Name, ",i,0x", ISID; null when the TransportID has no ISID and means every port of the initiator. */
  initiatorPort: string | null;
  initiatorName: string;
  /** Of the whole TransportID. */
  lengthBytes: number;
}

export function encodeTransportId(initiatorPort: string): Buffer {
  const hasIsid = initiatorNameOf(initiatorPort) !== initiatorPort;
  const nameBytes = Buffer.byteLength(initiatorPort) + 1;
  const id = Buffer.alloc(headerBytes + Math.max(minAdditionalBytes, Math.ceil(nameBytes / 4) * 4));
  id[0] = (hasIsid ? nameAndIsid : 0) | iscsiProtocol;
  id.writeUInt16BE(id.length - headerBytes, 2);
  id.write(initiatorPort, headerBytes);
  return id;
}

/** The TransportID at the beginning of these bytes, or null when there is none, or one of another transport. */
export function decodeTransportId(bytes: Buffer): TransportId | null {
  if (bytes.length < headerBytes + minAdditionalBytes || (bytes[0]! & 0x3f) !== iscsiProtocol) return null;
  const format = bytes[0]! & 0xc0;
  const additionalBytes = bytes.readUInt16BE(2);
  const lengthBytes = headerBytes + additionalBytes;
  if (additionalBytes < minAdditionalBytes || additionalBytes % 4 !== 0 || bytes.length < lengthBytes)
    return null;
  const end = bytes.indexOf(0, headerBytes);
  if (end < 0 || end >= lengthBytes) return null;
  // Names compare in lower case (RFC 7143 4.2.7.2), and nexuses have theirs in it.
  const text = bytes.toString('latin1', headerBytes, end).toLowerCase();
  if (format === 0) {
    return namePattern.test(text) ? { initiatorPort: null, initiatorName: text, lengthBytes } : null;
  }
  const match = format === nameAndIsid ? /^(.+),i,0x([0-9a-f]{1,12})$/.exec(text) : null;
  if (match === null || !namePattern.test(match[1]!)) return null;
  const isid = match[2]!.padStart(isidDigits, '0');
  return { initiatorPort: `${match[1]!},i,0x${isid}`, initiatorName: match[1]!, lengthBytes };
}
