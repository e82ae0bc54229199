/** Vital product data pages (SPC-4 7.8, SBC-3 6.6). Each page is one entry of `pages`. */
import { blockSizeBytes, maxTransferBytes, sectorSizeBytes } from '../../base/limits.ts';
import {
  maxCompareAndWriteBlocks,
  maxUnmapBlocks,
  maxUnmapDescriptors,
  maxWriteSameBlocks,
} from '../limits.ts';
import type { LogicalUnit } from '../logical-unit.ts';

const pages: ReadonlyMap<number, (unit: LogicalUnit) => Buffer> = new Map([
  [0x00, supportedPages],
  [0x80, unitSerialNumber],
  [0x83, deviceIdentification],
  [0x86, extendedInquiry],
  [0xb0, blockLimits],
  [0xb1, blockDeviceCharacteristics],
  [0xb2, logicalBlockProvisioning],
]);

/** The page with its header, or null when there is no such page. */
export function vitalProductData(pageCode: number, unit: LogicalUnit): Buffer | null {
  const body = pages.get(pageCode)?.(unit);
  if (body === undefined) return null;
  const header = Buffer.from([0x00, pageCode, body.length >> 8, body.length & 0xff]);
  return Buffer.concat([header, body]);
}

/** ASCII, left-aligned, filled with spaces (SPC-4 4.3.1). */
export function paddedAscii(text: string, lengthBytes: number): string {
  return text.slice(0, lengthBytes).padEnd(lengthBytes, ' ');
}

function supportedPages(): Buffer {
  return Buffer.from([...pages.keys()]);
}

function unitSerialNumber(unit: LogicalUnit): Buffer {
  return Buffer.from(unit.identity.serial, 'latin1');
}

/**
 * Designators of the logical unit (SPC-4 7.8.6): NAA locally assigned (what /dev/disk/by-id/wwn-* shows), the UUID
 * (SPC-5 type Ah), and T10 vendor identification with the serial number.
 */
function deviceIdentification(unit: LogicalUnit): Buffer {
  const { uuid, vendor, serial } = unit.identity;
  const uuidBytes = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  const vendorSerial = Buffer.from(paddedAscii(vendor, 8) + serial, 'latin1');
  return Buffer.concat([
    designator(0x1, 0x3, locallyAssignedName(uuidBytes)),
    designator(0x1, 0xa, Buffer.concat([Buffer.from([0x10, 0x00]), uuidBytes])),
    designator(0x2, 0x1, vendorSerial),
  ]);
}

/** NAA 3h and 60 bits: the last of the UUID, random in versions 4 and 7. */
function locallyAssignedName(uuidBytes: Buffer): Buffer {
  const name = Buffer.from(uuidBytes.subarray(8));
  name[0] = 0x30 | (name[0]! & 0x0f);
  return name;
}

/** Code set 1h is binary, 2h ASCII; association 0, the logical unit. */
function designator(codeSet: number, type: number, identifier: Buffer): Buffer {
  return Buffer.concat([Buffer.from([codeSet, type, 0, identifier.length]), identifier]);
}

function extendedInquiry(unit: LogicalUnit): Buffer {
  const body = Buffer.alloc(60);
  body[1] = 0x01; // SIMPSUP
  body[2] = unit.device.durability === 'flush' ? 0x01 : 0x00; // V_SUP: a volatile cache
  body[3] = 0x01; // LUICLR: LUN reset clears unit attentions of all nexuses
  return body;
}

function blockLimits(unit: LogicalUnit): Buffer {
  const body = Buffer.alloc(60);
  body[0] = 0x01; // WSNZ: WRITE SAME takes no zero for "to the end"
  body[1] = maxCompareAndWriteBlocks;
  body.writeUInt16BE(blockSizeBytes / sectorSizeBytes, 2); // OPTIMAL TRANSFER LENGTH GRANULARITY
  body.writeUInt32BE(maxTransferBytes / sectorSizeBytes, 4); // MAXIMUM TRANSFER LENGTH
  // OPTIMAL TRANSFER LENGTH and MAXIMUM PREFETCH LENGTH stay zero: not reported.
  body.writeUInt32BE(maxUnmapBlocks, 16);
  body.writeUInt32BE(maxUnmapDescriptors, 20);
  body.writeUInt32BE(unit.device.allocationUnitBytes / sectorSizeBytes, 24); // OPTIMAL UNMAP GRANULARITY
  body.writeUInt32BE(0x80000000, 28); // UGAVALID, alignment 0
  body.writeBigUInt64BE(BigInt(maxWriteSameBlocks), 32);
  return body;
}

function blockDeviceCharacteristics(): Buffer {
  const body = Buffer.alloc(60);
  body.writeUInt16BE(1, 0); // MEDIUM ROTATION RATE: non-rotating
  return body;
}

function logicalBlockProvisioning(): Buffer {
  // LBPU, LBPWS, LBPWS10: all three unmap; LBPRZ 001b: unmapped blocks read as zeros; PROVISIONING TYPE 2: thin.
  return Buffer.from([0x00, 0x80 | 0x40 | 0x20 | 0x04, 0x02, 0x00]);
}
