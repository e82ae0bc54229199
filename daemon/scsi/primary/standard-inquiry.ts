/**
 * INQUIRY (SPC-4 6.6): the standard data, and the way to the vital product data pages.
 *
 *     12h | EVPD 01h | PAGE CODE | ALLOCATION LENGTH (2) | CONTROL
 */
import type { UnitIdentity } from '../logical-unit.ts';
import type { Task } from '../task.ts';
import { paddedAscii } from '../unit-designators.ts';
import { vitalProductData } from './vital-product-data.ts';

const standardLengthBytes = 96;
const directAccessBlock = 0x00;
const wellKnownLogicalUnit = 0x1e;
/** Peripheral qualifier 011b, type 1Fh: no such logical unit can be here (SPC-4 table 151). */
const noUnitHere = 0x7f;

/** SAM-5, SPC-4, SBC-3, iSCSI: no version claimed of each (SPC-4 table D.1). */
const versionDescriptors = [0x00a0, 0x0460, 0x04c0, 0x0960] as const;

export function inquiry(task: Task): void {
  const { cdb } = task;
  const allocationLengthBytes = cdb.readUInt16BE(3);
  if ((cdb[1]! & 0x01) === 0) {
    if (cdb[2] !== 0) return task.invalidField(2);
    const data = standardInquiry(directAccessBlock, task.unit.identity);
    data[5] = 0x10 | 0x08; // TPGS 01b: implicit asymmetric access; 3PC: third-party copy commands
    if (task.target.ports().length > 1) data[6] = 0x10; // MULTIP: reached by several ports
    task.parameterData(data, allocationLengthBytes);
    return;
  }
  const page = vitalProductData(cdb[2]!, { unit: task.unit, target: task.target, port: task.command.port });
  if (page === null) return task.invalidField(2);
  task.parameterData(page, allocationLengthBytes);
}

/** For a LUN without a unit. */
export function absentUnitInquiry(): Buffer {
  return standardInquiry(noUnitHere, {});
}

/** For the REPORT LUNS well known logical unit (SPC-4 8.2). */
export function wellKnownUnitInquiry(): Buffer {
  return standardInquiry(wellKnownLogicalUnit, {});
}

function standardInquiry(peripheral: number, identity: Partial<UnitIdentity>): Buffer {
  const data = Buffer.alloc(standardLengthBytes);
  data[0] = peripheral;
  data[2] = 0x06; // VERSION: SPC-4
  data[3] = 0x12; // HISUP: LUNs as SAM-5 has them; RESPONSE DATA FORMAT 2
  data[4] = standardLengthBytes - 5;
  data[7] = 0x02; // CMDQUE
  data.write(paddedAscii(identity.vendor ?? 'WEFT', 8), 8, 'latin1');
  data.write(paddedAscii(identity.product ?? 'Volume', 16), 16, 'latin1');
  data.write(paddedAscii(identity.revision ?? '1', 4), 32, 'latin1');
  for (const [index, descriptor] of versionDescriptors.entries())
    data.writeUInt16BE(descriptor, 58 + index * 2);
  return data;
}
