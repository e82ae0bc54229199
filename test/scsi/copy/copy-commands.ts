/** Parameter lists of EXTENDED COPY, and its CDB, as an initiator builds them. */

import type { LogicalUnit } from '../../../daemon/scsi/logical-unit.ts';
import { unitDesignators } from '../../../daemon/scsi/unit-designators.ts';

export interface Segment {
  source?: number;
  target?: number;
  from: number;
  to: number;
  blocks: number;
}

/** The unit's NAA name as an identification descriptor. */
export function naaTarget(unit: LogicalUnit): Buffer {
  const naa = unitDesignators(unit).find(({ type }) => type === 3)!;
  return identificationTarget(naa.codeSet, naa.type, naa.identifier);
}

export function identificationTarget(codeSet: number, type: number, identifier: Buffer): Buffer {
  const descriptor = Buffer.alloc(32);
  descriptor[0] = 0xe4;
  descriptor[4] = codeSet;
  descriptor[5] = type;
  descriptor[7] = identifier.length;
  identifier.copy(descriptor, 8);
  descriptor.writeUIntBE(512, 29, 3);
  return descriptor;
}

export function segmentDescriptor({ source = 0, target = 0, from, to, blocks }: Segment): Buffer {
  const descriptor = Buffer.alloc(28);
  descriptor[0] = 0x02;
  descriptor.writeUInt16BE(24, 2);
  descriptor.writeUInt16BE(source, 4);
  descriptor.writeUInt16BE(target, 6);
  descriptor.writeUInt16BE(blocks, 10);
  descriptor.writeBigUInt64BE(BigInt(from), 12);
  descriptor.writeBigUInt64BE(BigInt(to), 20);
  return descriptor;
}

export function copyList(
  targets: readonly Buffer[],
  segments: readonly Buffer[],
  { listId = 1, usage = 0, inlineBytes = 0 } = {},
): Buffer {
  const header = Buffer.alloc(16);
  const [targetList, segmentList] = [Buffer.concat(targets), Buffer.concat(segments)];
  header[0] = listId;
  header[1] = usage << 3;
  header.writeUInt16BE(targetList.length, 2);
  header.writeUInt32BE(segmentList.length, 8);
  header.writeUInt32BE(inlineBytes, 12);
  return Buffer.concat([header, targetList, segmentList, Buffer.alloc(inlineBytes)]);
}

export function extendedCopyCdb(listBytes: number): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x83;
  cdb.writeUInt32BE(listBytes, 10);
  return cdb;
}

export function copyResultsCdb(serviceAction: number, listId: number, allocationLengthBytes = 1024): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x84;
  cdb[1] = serviceAction;
  cdb[2] = listId;
  cdb.writeUInt32BE(allocationLengthBytes, 10);
  return cdb;
}
