/**
 * Sense data (SPC-4 4.5): the codes Weft answers with, their two formats, and the only map from WeftError to sense.
 */
import { asWeftError, type ErrorCode } from '../base/errors.ts';
import { sectorSizeBytes } from '../base/limits.ts';

/** Sense key, additional sense code and qualifier. */
export interface SenseCode {
  readonly key: number;
  readonly asc: number;
  readonly ascq: number;
}

function code(key: number, asc: number, ascq: number): SenseCode {
  return Object.freeze({ key, asc, ascq });
}

/** SPC-4 tables 49 (keys) and F.2 (additional codes). */
export const sense = {
  noSense: code(0x0, 0x00, 0x00),
  becomingReady: code(0x2, 0x04, 0x01),
  writeError: code(0x3, 0x0c, 0x00),
  unrecoveredReadError: code(0x3, 0x11, 0x00),
  selfTestFailed: code(0x4, 0x3e, 0x03),
  internalTargetFailure: code(0x4, 0x44, 0x00),
  operationInProgress: code(0x5, 0x00, 0x16),
  parameterListLengthError: code(0x5, 0x1a, 0x00),
  invalidOpcode: code(0x5, 0x20, 0x00),
  lbaOutOfRange: code(0x5, 0x21, 0x00),
  invalidFieldInCdb: code(0x5, 0x24, 0x00),
  logicalUnitNotSupported: code(0x5, 0x25, 0x00),
  invalidFieldInParameterList: code(0x5, 0x26, 0x00),
  invalidReleaseOfReservation: code(0x5, 0x26, 0x04),
  tooManyTargetDescriptors: code(0x5, 0x26, 0x06),
  unsupportedTargetDescriptorType: code(0x5, 0x26, 0x07),
  tooManySegmentDescriptors: code(0x5, 0x26, 0x08),
  unsupportedSegmentDescriptorType: code(0x5, 0x26, 0x09),
  inlineDataLengthExceeded: code(0x5, 0x26, 0x0b),
  savingParametersNotSupported: code(0x5, 0x39, 0x00),
  insufficientRegistrationResources: code(0x5, 0x55, 0x04),
  logicalUnitReset: code(0x6, 0x29, 0x03),
  modeParametersChanged: code(0x6, 0x2a, 0x01),
  reservationsPreempted: code(0x6, 0x2a, 0x03),
  reservationsReleased: code(0x6, 0x2a, 0x04),
  registrationsPreempted: code(0x6, 0x2a, 0x05),
  capacityChanged: code(0x6, 0x2a, 0x09),
  reportedLunsChanged: code(0x6, 0x3f, 0x0e),
  writeProtected: code(0x7, 0x27, 0x00),
  spaceAllocationFailed: code(0x7, 0x27, 0x07),
  copyAborted: code(0xa, 0x00, 0x00),
  unreachableCopyTarget: code(0xa, 0x08, 0x04),
  thirdPartyDeviceFailure: code(0xa, 0x0d, 0x01),
  copyTargetNotReachable: code(0xa, 0x0d, 0x02),
  incorrectCopyTargetDeviceType: code(0xa, 0x0d, 0x03),
  miscompareDuringVerify: code(0xe, 0x1d, 0x00),
} as const;

/** Which bit is wrong (SPC-4 4.5.2.4.2): its byte, and the left-most bit of the field when that is known. */
export interface CdbField {
  byte: number;
  bit: number | null;
  /** Of what; the CDB when not given. */
  of?: 'CDB' | 'parameter list';
}

/** What was done to the device when it failed. */
export type DeviceOperation = 'read' | 'write';

/**
 * NOT READY, BECOMING READY is what the Linux initiator retries with a delay until the command's time is up; an
 * ABORTED COMMAND it gives up on after five immediate tries. So everything that passes by itself, or by logging in
 * again at the volume's new owner, is "becoming ready".
 */
const senseOfCode: Partial<Record<ErrorCode, (operation: DeviceOperation) => SenseCode>> = {
  NO_SPACE: () => sense.spaceAllocationFailed,
  CORRUPT: () => sense.unrecoveredReadError,
  IO_ERROR: (operation) => (operation === 'read' ? sense.unrecoveredReadError : sense.writeError),
  FENCED: () => sense.becomingReady,
  UNAVAILABLE: () => sense.becomingReady,
  TIMEOUT: () => sense.becomingReady,
  SHUTTING_DOWN: () => sense.becomingReady,
};

/** The sense of a failed device operation, and the first bad LBA when the error knows it (details.offsetBytes). */
export function senseOfError(
  thrown: unknown,
  operation: DeviceOperation,
): { code: SenseCode; information: number | null } {
  const error = asWeftError(thrown);
  const mapped = senseOfCode[error.code]?.(operation) ?? sense.internalTargetFailure;
  const offsetBytes = error.details.offsetBytes;
  const known = mapped.key === 0x3 && typeof offsetBytes === 'number' && offsetBytes >= 0;
  return { code: mapped, information: known ? Math.floor(offsetBytes / sectorSizeBytes) : null };
}

/**
 * The sense of a command whose effect had to be made durable and could not be: to be sent again when what is wrong
 * passes by itself, else a fault of the target.
 */
export function senseOfFailedSave(thrown: unknown): SenseCode {
  const { code } = senseOfError(thrown, 'write');
  return code === sense.becomingReady ? code : sense.internalTargetFailure;
}

const fixedLengthBytes = 18;
const descriptorHeaderBytes = 8;
const informationDescriptorBytes = 12;
const fieldDescriptorBytes = 8;

/**
 * The sense key specific bytes with ILLEGAL REQUEST (4.5.2.4.2): SKSV 80h, C/D 40h (of the CDB), BPV 08h with the bit
 * pointer, then the field pointer in two bytes.
 */
function writeFieldPointer(bytes: Buffer, at: number, field: CdbField): void {
  bytes[at] = 0x80 | (field.of === 'parameter list' ? 0 : 0x40) | (field.bit === null ? 0 : 0x08 | field.bit);
  bytes.writeUInt16BE(field.byte, at + 1);
}

/**
 * Current-error sense data. `information`: an LBA, or an offset with MISCOMPARE.
 * Fixed format (4.5.3): 70h, 0, key, INFORMATION(4), length 10, ..., ASC at 12, ASCQ at 13; VALID (80h) when
 * INFORMATION fits into 32 bits; the field pointer at 15. Descriptor format (4.5.2): 72h, key, ASC, ASCQ, 0, 0, 0,
 * length, descriptors.
 */
export function encodeSense(
  what: SenseCode,
  information: number | null,
  descriptorFormat: boolean,
  field: CdbField | null = null,
): Buffer {
  if (descriptorFormat) return encodeDescriptorSense(what, information, field);
  const bytes = Buffer.alloc(fixedLengthBytes);
  bytes[0] = 0x70;
  bytes[2] = what.key;
  bytes[7] = fixedLengthBytes - 8;
  bytes[12] = what.asc;
  bytes[13] = what.ascq;
  if (field !== null) writeFieldPointer(bytes, 15, field);
  if (information !== null && information <= 0xffffffff) {
    bytes[0] = 0xf0;
    bytes.writeUInt32BE(information, 3);
  }
  return bytes;
}

/** Descriptors: information (00h), sense key specific (02h), each only when there is something to say. */
function encodeDescriptorSense(what: SenseCode, information: number | null, field: CdbField | null): Buffer {
  const informationBytes = information === null ? 0 : informationDescriptorBytes;
  const extra = informationBytes + (field === null ? 0 : fieldDescriptorBytes);
  const bytes = Buffer.alloc(descriptorHeaderBytes + extra);
  bytes[0] = 0x72;
  bytes[1] = what.key;
  bytes[2] = what.asc;
  bytes[3] = what.ascq;
  bytes[7] = extra;
  if (information !== null) {
    bytes[8] = 0x00;
    bytes[9] = informationDescriptorBytes - 2;
    bytes[10] = 0x80;
    bytes.writeBigUInt64BE(BigInt(information), 12);
  }
  if (field !== null) {
    const at = descriptorHeaderBytes + informationBytes;
    bytes[at] = 0x02;
    bytes[at + 1] = fieldDescriptorBytes - 2;
    writeFieldPointer(bytes, at + 4, field);
  }
  return bytes;
}
