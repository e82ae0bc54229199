/** Addresses of logical units (SAM-5 4.7): peripheral and flat addressing, and the REPORT LUNS well known unit. */

/** The well known logical unit REPORT LUNS: C1 01 and six zeros (SAM-5 4.7.7.5.1, SPC-4 8.2). */
export const reportLunsWellKnown = 'report-luns';

/** The number a LUN field addresses, `reportLunsWellKnown`, or null for an addressing nobody here answers to. */
export function decodeLun(lun: Buffer): number | typeof reportLunsWellKnown | null {
  if (lun.length !== 8) return null;
  // Only one level: the six bytes of the lower levels are zero (SAM-5 4.7.6.2).
  if (lun.readUInt32BE(2) !== 0 || lun.readUInt16BE(6) !== 0) return null;
  const first = lun[0]!;
  const second = lun[1]!;
  switch (first >> 6) {
    case 0b00:
      // Peripheral device addressing; the bus identifier is zero for the target itself.
      return first === 0 ? second : null;
    case 0b01:
      return ((first & 0x3f) << 8) | second;
    case 0b11:
      return first === 0xc1 && second === 0x01 ? reportLunsWellKnown : null;
    default:
      return null;
  }
}

/** Whether two LUN fields address the same logical unit: a number may be written in two ways. */
export function isSameUnit(one: Buffer, other: Buffer): boolean {
  if (one.equals(other)) return true;
  const number = decodeLun(one);
  return number !== null && number === decodeLun(other);
}

/** Peripheral addressing below 256, flat addressing above, as REPORT LUNS shows them. */
export function encodeLun(number: number | typeof reportLunsWellKnown): Buffer {
  const lun = Buffer.alloc(8);
  if (number === reportLunsWellKnown) {
    lun[0] = 0xc1;
    lun[1] = 0x01;
  } else if (number < 256) {
    lun[1] = number;
  } else {
    lun.writeUInt16BE(0x4000 | number, 0);
  }
  return lun;
}

/** Flat addressing has 14 bits. */
export const maxLun = 0x3fff;
