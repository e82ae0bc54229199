/** Vital product data pages (SPC-4 7.8, SBC-3 6.6). Each page is one entry of `pages`. */
import { blockSizeBytes, maxTransferBytes, sectorSizeBytes } from '../../base/limits.ts';
import { thirdPartyCopyPage } from '../copy/copy-results.ts';
import {
  maxAtomicWriteBlocks,
  maxCompareAndWriteBlocks,
  maxUnmapBlocks,
  maxUnmapDescriptors,
  maxWriteSameBlocks,
} from '../limits.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { TargetFacts } from '../task.ts';
import { CodeSet, unitDesignators } from '../unit-designators.ts';
import { groupOfPort } from './target-port-groups.ts';

/** Who is asked: the unit, as part of a target, through one of its ports. */
interface Asked {
  unit: LogicalUnit;
  target: TargetFacts;
  /** RELATIVE TARGET PORT IDENTIFIER. */
  port: number;
}

const pages: ReadonlyMap<number, (asked: Asked) => Buffer> = new Map([
  [0x00, supportedPages],
  [0x80, unitSerialNumber],
  [0x83, deviceIdentification],
  [0x86, extendedInquiry],
  [0x87, modePagePolicy],
  [0x88, scsiPorts],
  [0x8f, thirdPartyCopy],
  [0xb0, blockLimits],
  [0xb1, blockDeviceCharacteristics],
  [0xb2, logicalBlockProvisioning],
]);

/** The page with its header, or null when there is no such page. */
export function vitalProductData(pageCode: number, asked: Asked): Buffer | null {
  const body = pages.get(pageCode)?.(asked);
  if (body === undefined) return null;
  const header = Buffer.from([0x00, pageCode, body.length >> 8, body.length & 0xff]);
  return Buffer.concat([header, body]);
}

function supportedPages(): Buffer {
  return Buffer.from([...pages.keys()]);
}

function unitSerialNumber({ unit }: Asked): Buffer {
  return Buffer.from(unit.identity.serial, 'latin1');
}

/** What a designator names (SPC-4 table 595). */
const Association = { unit: 0b00, port: 0b01, target: 0b10 } as const;
const iscsiProtocol = 0x5;
const protocolIdentifierValid = 0x80;

interface Designator {
  association: (typeof Association)[keyof typeof Association];
  codeSet: CodeSet;
  type: number;
  identifier: Buffer;
}

/**
 * 83h (SPC-4 7.8.6). Of the logical unit: its own names (unit-designators.ts). Of the port: its relative identifier, its
 * target port group, its name. Of the target: its name.
 */
function deviceIdentification({ unit, target, port }: Asked): Buffer {
  const ofUnit = unitDesignators(unit).map((own) => designator({ association: Association.unit, ...own }));
  const designators = [...ofUnit, ofPort(0x4, port)];
  const group = groupOfPort(target, port);
  if (group !== null) designators.push(ofPort(0x5, group));
  if (target.name !== null) {
    designators.push(portName(target.name, port));
    designators.push(nameString(Association.target, target.name));
  }
  return Buffer.concat(designators);
}

/** Relative target port (type 4h) and target port group (5h): two bytes, after two that are reserved. */
function ofPort(type: number, value: number): Buffer {
  const identifier = Buffer.from([0, 0, value >> 8, value & 0xff]);
  return designator({ association: Association.port, codeSet: CodeSet.binary, type, identifier });
}

/** The name of a target port: the target's, `,t,0x` and the portal group tag (RFC 7143 4.4.2). */
function portName(target: string, port: number): Buffer {
  return nameString(Association.port, `${target},t,0x${port.toString(16).padStart(4, '0')}`);
}

/** SCSI name string (SPC-4 7.8.6.11): UTF-8, ended by a zero, filled up to a multiple of four bytes. */
function nameString(association: Designator['association'], name: string): Buffer {
  const text = Buffer.from(name, 'utf8');
  const identifier = Buffer.alloc(4 * Math.ceil((text.length + 1) / 4));
  text.copy(identifier);
  return designator({ association, codeSet: CodeSet.utf8, type: 0x8, identifier });
}

/** PROTOCOL IDENTIFIER F0h, CODE SET; PIV 80h, ASSOCIATION 30h, DESIGNATOR TYPE; -; DESIGNATOR LENGTH (SPC-4 7.8.6.1). */
function designator({ association, codeSet, type, identifier }: Designator): Buffer {
  const ofUnit = association === Association.unit;
  const first = (ofUnit ? 0 : iscsiProtocol << 4) | codeSet;
  const second = (ofUnit ? 0 : protocolIdentifierValid) | (association << 4) | type;
  return Buffer.concat([Buffer.from([first, second, 0, identifier.length]), identifier]);
}

/** 8Fh: the service actions of EXTENDED COPY and RECEIVE COPY RESULTS there are, and what a copy may consist of. */
function thirdPartyCopy({ target }: Asked): Buffer {
  const actionsOf = (opcode: number): number[] =>
    target.commands.filter((entry) => entry.opcode === opcode).map((entry) => entry.serviceAction!);
  return thirdPartyCopyPage([0x83, 0x84].map((opcode) => ({ opcode, actions: actionsOf(opcode) })));
}

/** 86h (SPC-4 7.8.7). No protection information, no groups of LBAs, no microcode to download, no power conditions. */
function extendedInquiry({ unit }: Asked): Buffer {
  const body = Buffer.alloc(60);
  body[1] = 0x01; // SIMPSUP
  body[2] = unit.device.durability === 'flush' ? 0x01 : 0x00; // V_SUP: a volatile cache
  body[3] = 0x01; // LUICLR: LUN reset clears unit attentions of all nexuses
  return body;
}

/** 87h (SPC-4 7.8.8): every mode page (3Fh, FFh) is one for all nexuses (MODE PAGE POLICY 00b). */
function modePagePolicy(): Buffer {
  return Buffer.from([0x3f, 0xff, 0x00, 0x00]);
}

/**
 * 88h (SPC-4 7.8.13), a port: - (2), RELATIVE PORT IDENTIFIER (2), - (2), INITIATOR PORT TRANSPORTID LENGTH (2, none),
 * - (2), TARGET PORT DESCRIPTORS LENGTH (2), the port's name.
 */
function scsiPorts({ target }: Asked): Buffer {
  const { name } = target;
  return Buffer.concat(
    target.ports().map((port) => {
      const descriptors = name === null ? Buffer.alloc(0) : portName(name, port);
      const header = Buffer.alloc(12);
      header.writeUInt16BE(port, 2);
      header.writeUInt16BE(descriptors.length, 10);
      return Buffer.concat([header, descriptors]);
    }),
  );
}

/** B0h (SBC-4 6.6.4). WSNZ 0: WRITE SAME takes zero for "to the end". */
function blockLimits({ unit }: Asked): Buffer {
  const body = Buffer.alloc(60);
  body[1] = maxCompareAndWriteBlocks;
  body.writeUInt16BE(blockSizeBytes / sectorSizeBytes, 2); // OPTIMAL TRANSFER LENGTH GRANULARITY
  body.writeUInt32BE(maxTransferBytes / sectorSizeBytes, 4); // MAXIMUM TRANSFER LENGTH
  // OPTIMAL TRANSFER LENGTH stays zero: file systems would align their stripes to it, and no length is special here.
  // MAXIMUM PREFETCH LENGTH stays zero: not limited.
  body.writeUInt32BE(maxUnmapBlocks, 16);
  body.writeUInt32BE(maxUnmapDescriptors, 20);
  body.writeUInt32BE(unit.device.allocationUnitBytes / sectorSizeBytes, 24); // OPTIMAL UNMAP GRANULARITY
  body.writeUInt32BE(0x80000000, 28); // UGAVALID, alignment 0
  body.writeBigUInt64BE(BigInt(maxWriteSameBlocks), 32);
  body.writeUInt32BE(maxAtomicWriteBlocks, 40); // MAXIMUM ATOMIC TRANSFER LENGTH
  body.writeUInt32BE(blockSizeBytes / sectorSizeBytes, 44); // ATOMIC ALIGNMENT
  body.writeUInt32BE(blockSizeBytes / sectorSizeBytes, 48); // ATOMIC TRANSFER LENGTH GRANULARITY
  // No atomic boundaries (56, 60): a write is atomic as a whole.
  return body;
}

/** B1h (SBC-4 6.6.2). */
function blockDeviceCharacteristics(): Buffer {
  const body = Buffer.alloc(60);
  body.writeUInt16BE(1, 0); // MEDIUM ROTATION RATE: non-rotating
  return body;
}

/**
 * B2h (SBC-4 6.6.6): THRESHOLD EXPONENT 0 (no thresholds); LBPU, LBPWS, LBPWS10: all three unmap; LBPRZ 001b: unmapped
 * blocks read as zeros; ANC_SUP 000b: nothing is anchored; PROVISIONING TYPE 2: thin.
 */
function logicalBlockProvisioning(): Buffer {
  return Buffer.from([0x00, 0x80 | 0x40 | 0x20 | 0x04, 0x02, 0x00]);
}
