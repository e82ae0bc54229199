/** The names of a logical unit that are its own (SPC-4 7.8.6): in VPD page 83h, and to find it by. */
import type { LogicalUnit } from './logical-unit.ts';

/** Binary, ASCII, UTF-8. */
export const CodeSet = { binary: 0x1, ascii: 0x2, utf8: 0x3 } as const;
export type CodeSet = (typeof CodeSet)[keyof typeof CodeSet];

export interface UnitDesignator {
  codeSet: CodeSet;
  type: number;
  identifier: Buffer;
}

/** ASCII, left-aligned, filled with spaces (SPC-4 4.3.1). */
export function paddedAscii(text: string, lengthBytes: number): string {
  return text.slice(0, lengthBytes).padEnd(lengthBytes, ' ');
}

/**
 * NAA locally assigned (what /dev/disk/by-id/wwn-* shows), the UUID (SPC-5 type Ah), and T10 vendor identification with
 * the serial number.
 */
export function unitDesignators({ identity }: LogicalUnit): UnitDesignator[] {
  const { uuid, vendor, serial } = identity;
  const uuidBytes = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  const vendorSerial = Buffer.from(paddedAscii(vendor, 8) + serial, 'latin1');
  return [
    { codeSet: CodeSet.binary, type: 0x3, identifier: locallyAssignedName(uuidBytes) },
    { codeSet: CodeSet.binary, type: 0xa, identifier: Buffer.concat([Buffer.from([0x10, 0x00]), uuidBytes]) },
    { codeSet: CodeSet.ascii, type: 0x1, identifier: vendorSerial },
  ];
}

/** Whether it is the unit's own (association 00b), as page 83h has it. */
export function isDesignatorOf(
  unit: LogicalUnit,
  asked: { codeSet: number; association: number; type: number; identifier: Buffer },
): boolean {
  if (asked.association !== 0) return false;
  return unitDesignators(unit).some(({ codeSet, type, identifier }) => {
    return codeSet === asked.codeSet && type === asked.type && identifier.equals(asked.identifier);
  });
}

/** NAA 3h and 60 bits: the last of the UUID, random in versions 4 and 7. */
function locallyAssignedName(uuidBytes: Buffer): Buffer {
  const name = Buffer.from(uuidBytes.subarray(8));
  name[0] = 0x30 | (name[0]! & 0x0f);
  return name;
}
