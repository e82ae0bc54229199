/**
 * The PDUs of iSCSI, RFC 7143 §11: what initiators send, decoded; what targets send, encoded.
 *
 * Every PDU starts with a basic header segment (BHS) of 48 bytes, big-endian (§11.2.1):
 *
 *   byte  0      . I opcode      bit 6: immediate delivery; bits 0-5: opcode
 *   byte  1      flags           bit 7: F (final) or T (transit); the rest by opcode
 *   bytes 2-3    by opcode
 *   byte  4      TotalAHSLength  in words of four bytes
 *   bytes 5-7    DataSegmentLength, in bytes, without padding
 *   bytes 8-15   LUN, or by opcode
 *   bytes 16-19  Initiator Task Tag (ITT)
 *   bytes 20-47  by opcode
 *
 * then [AHS] [header digest, 4] [data, padded to four bytes] [data digest, 4].
 *
 * Encoders expect 48 zeroed bytes at `at`; the data segment's length is filled in by whoever adds the data.
 */

export const bhsBytes = 48;
export const digestBytes = 4;
/** "No tag" for ITT and TTT (§11.2.1.8, §11.7.4). */
export const noTag = 0xffffffff;

/** §11.2.1.2 */
export const Opcode = {
  nopOut: 0x00,
  scsiCommand: 0x01,
  taskManagement: 0x02,
  login: 0x03,
  text: 0x04,
  dataOut: 0x05,
  logout: 0x06,
  snack: 0x10,
  nopIn: 0x20,
  scsiResponse: 0x21,
  taskManagementResponse: 0x22,
  loginResponse: 0x23,
  textResponse: 0x24,
  dataIn: 0x25,
  logoutResponse: 0x26,
  r2t: 0x31,
  asyncMessage: 0x32,
  reject: 0x3f,
} as const;

/** §11.17.1 */
export const RejectReason = {
  dataDigest: 0x02,
  snack: 0x03,
  protocolError: 0x04,
  commandNotSupported: 0x05,
  tooManyImmediate: 0x06,
  taskInProgress: 0x07,
  invalidField: 0x09,
  waitingForLogout: 0x0c,
} as const;

/** §11.9.1 */
export const AsyncEvent = { requestLogout: 1, dropAllConnections: 3 } as const;

/** §11.14.1 */
export const LogoutReason = { closeSession: 0, closeConnection: 1 } as const;

/** §11.15.1 */
export const LogoutResponse = { closed: 0, noSuchConnection: 1, recoveryUnsupported: 2 } as const;

/** §11.5.1 */
export const TaskManagementFunction = {
  abortTask: 1,
  abortTaskSet: 2,
  clearAca: 3,
  clearTaskSet: 4,
  logicalUnitReset: 5,
  targetWarmReset: 6,
  targetColdReset: 7,
  taskReassign: 8,
} as const;

/** §11.6.1 */
export const TaskManagementStatus = {
  complete: 0,
  noSuchTask: 1,
  noSuchLun: 2,
  reassignUnsupported: 4,
  unsupported: 5,
  unauthorized: 6,
  rejected: 255,
} as const;

/** §11.3.1 */
export const TaskAttribute = { untagged: 0, simple: 1, ordered: 2, headOfQueue: 3, aca: 4 } as const;

// The fields every initiator PDU has.

export const opcodeOf = (bhs: Buffer): number => bhs[0]! & 0x3f;
export const isImmediate = (bhs: Buffer): boolean => (bhs[0]! & 0x40) !== 0;
export const isFinal = (bhs: Buffer): boolean => (bhs[1]! & 0x80) !== 0;
export const ahsLengthOf = (bhs: Buffer): number => bhs[4]! * 4;
export const dataLengthOf = (bhs: Buffer): number => (bhs[5]! << 16) | (bhs[6]! << 8) | bhs[7]!;
export const ittOf = (bhs: Buffer): number => bhs.readUInt32BE(16);
/** Bytes 20-23: Target Transfer Tag of NOP-Out, Data-Out, Text; Referenced Task Tag of task management. */
export const tagAt20 = (bhs: Buffer): number => bhs.readUInt32BE(20);
/** Bytes 24-27, but for Data-Out and SNACK, which have none. */
export const cmdSnOf = (bhs: Buffer): number => bhs.readUInt32BE(24);
/** The eight bytes, copied: the BHS is reused for the next PDU. */
export const lunOf = (bhs: Buffer): Buffer => Buffer.from(bhs.subarray(8, 16));

export function setDataLength(target: Buffer, at: number, length: number): void {
  target[at + 5] = length >>> 16;
  target[at + 6] = length >>> 8;
  target[at + 7] = length;
}

/** Serial number arithmetic on 32 bits (RFC 1982): whether a comes before b. */
export const serialBefore = (a: number, b: number): boolean => ((a - b) | 0) < 0;
export const serialAfterBy = (a: number, count: number): number => (a + count) >>> 0;

/**
 * SCSI Command, §11.3. Byte 1: F R W . . ATTR(3); bytes 20-23 Expected Data Transfer Length; 24-27 CmdSN;
 * 28-31 ExpStatSN; 32-47 CDB. Data segment: immediate data.
 */
export interface ScsiCommandPdu {
  final: boolean;
  reads: boolean;
  writes: boolean;
  attribute: number;
  lun: Buffer;
  itt: number;
  expectedBytes: number;
  cdb: Buffer;
}

export const commandReads = (bhs: Buffer): boolean => (bhs[1]! & 0x40) !== 0;
export const commandWrites = (bhs: Buffer): boolean => (bhs[1]! & 0x20) !== 0;
export const expectedBytesOf = (bhs: Buffer): number => bhs.readUInt32BE(20);

export function decodeScsiCommand(bhs: Buffer): ScsiCommandPdu {
  const kept = Buffer.allocUnsafe(24);
  bhs.copy(kept, 0, 8, 16);
  bhs.copy(kept, 8, 32, 48);
  return {
    final: isFinal(bhs),
    reads: commandReads(bhs),
    writes: commandWrites(bhs),
    attribute: bhs[1]! & 0x07,
    lun: kept.subarray(0, 8),
    itt: ittOf(bhs),
    expectedBytes: expectedBytesOf(bhs),
    cdb: kept.subarray(8, 24),
  };
}

/** SCSI Data-Out, §11.7. Byte 1: F; 20-23 TTT (noTag: unsolicited); 36-39 DataSN; 40-43 Buffer Offset. */
export const dataSnOf = (bhs: Buffer): number => bhs.readUInt32BE(36);
export const bufferOffsetOf = (bhs: Buffer): number => bhs.readUInt32BE(40);

/** Task Management Function Request, §11.5. Byte 1: 1 function(7); 20-23 Referenced Task Tag; 32-35 RefCmdSN. */
export const taskManagementFunctionOf = (bhs: Buffer): number => bhs[1]! & 0x7f;
export const refCmdSnOf = (bhs: Buffer): number => bhs.readUInt32BE(32);

/** Logout Request, §11.14. Byte 1: 1 reason(7); 20-21 CID. */
export const logoutReasonOf = (bhs: Buffer): number => bhs[1]! & 0x7f;
export const logoutCidOf = (bhs: Buffer): number => bhs.readUInt16BE(20);

/** Text Request, §11.10. Byte 1: F C; 20-23 TTT. */
export const isContinued = (bhs: Buffer): boolean => (bhs[1]! & 0x40) !== 0;

/**
 * Login Request, §11.12. Byte 1: T C . . CSG(2) NSG(2); 2 Version-max; 3 Version-min; 8-13 ISID; 14-15 TSIH;
 * 20-21 CID; 24-27 CmdSN; 28-31 ExpStatSN. Data segment: text.
 */
export interface LoginRequestPdu {
  transit: boolean;
  continued: boolean;
  currentStage: number;
  nextStage: number;
  versionMin: number;
  /** Six bytes in hexadecimal. */
  isid: string;
  tsih: number;
  itt: number;
  cid: number;
  cmdSn: number;
}

export function decodeLoginRequest(bhs: Buffer): LoginRequestPdu {
  const flags = bhs[1]!;
  return {
    transit: (flags & 0x80) !== 0,
    continued: (flags & 0x40) !== 0,
    currentStage: (flags >> 2) & 3,
    nextStage: flags & 3,
    versionMin: bhs[3]!,
    isid: bhs.toString('hex', 8, 14),
    tsih: bhs.readUInt16BE(14),
    itt: ittOf(bhs),
    cid: bhs.readUInt16BE(20),
    cmdSn: cmdSnOf(bhs),
  };
}

/** Bytes 24-35 of every target PDU: StatSN, ExpCmdSN, MaxCmdSN. */
export interface Numbers {
  statSn: number;
  expCmdSn: number;
  maxCmdSn: number;
}

function common(b: Buffer, at: number, opcode: number, flags: number, itt: number, numbers: Numbers): void {
  b[at] = opcode;
  b[at + 1] = flags;
  b.writeUInt32BE(itt, at + 16);
  b.writeUInt32BE(numbers.statSn, at + 24);
  b.writeUInt32BE(numbers.expCmdSn, at + 28);
  b.writeUInt32BE(numbers.maxCmdSn, at + 32);
}

/** How the transferred length differs from the expected one (§11.4.5): 0, or one of the flags below with its count. */
export const residualOverflow = 0x04;
export const residualUnderflow = 0x02;

/**
 * SCSI Response, §11.4. Byte 1: 1 . . o u O U .; 2 Response (0: completed at target); 3 Status; 36-39 ExpDataSN;
 * 44-47 Residual Count. Data segment: SenseLength (2 bytes), sense data.
 */
export function encodeScsiResponse(
  b: Buffer,
  at: number,
  itt: number,
  numbers: Numbers,
  fields: { status: number; residualFlag: number; residualBytes: number; expDataSn: number },
): void {
  common(b, at, Opcode.scsiResponse, 0x80 | fields.residualFlag, itt, numbers);
  b[at + 3] = fields.status;
  b.writeUInt32BE(fields.expDataSn, at + 36);
  b.writeUInt32BE(fields.residualBytes, at + 44);
}

/**
 * SCSI Data-In, §11.7. Byte 1: F A . . . O U S; 3 Status (with S); 20-23 TTT (none: no acknowledgement asked);
 * 24-27 StatSN (with S); 36-39 DataSN; 40-43 Buffer Offset; 44-47 Residual Count (with S).
 */
export function encodeDataIn(
  b: Buffer,
  at: number,
  itt: number,
  numbers: Numbers,
  fields: {
    final: boolean;
    /** Good status rides on the last Data-In. */
    withStatus: boolean;
    residualFlag: number;
    residualBytes: number;
    dataSn: number;
    offset: number;
  },
): void {
  const flags = (fields.final ? 0x80 : 0) | (fields.withStatus ? 0x01 | fields.residualFlag : 0);
  common(b, at, Opcode.dataIn, flags, itt, numbers);
  b.writeUInt32BE(noTag, at + 20);
  if (!fields.withStatus) b.writeUInt32BE(0, at + 24);
  b.writeUInt32BE(fields.dataSn, at + 36);
  b.writeUInt32BE(fields.offset, at + 40);
  if (fields.withStatus) b.writeUInt32BE(fields.residualBytes, at + 44);
}

/**
 * Ready To Transfer, §11.8. Byte 1: 1; 8-15 LUN; 20-23 TTT; 24-27 next StatSN; 36-39 R2TSN; 40-43 Buffer Offset;
 * 44-47 Desired Data Transfer Length.
 */
export function encodeR2t(
  b: Buffer,
  at: number,
  itt: number,
  numbers: Numbers,
  fields: { lun: Buffer; ttt: number; r2tSn: number; offset: number; lengthBytes: number },
): void {
  common(b, at, Opcode.r2t, 0x80, itt, numbers);
  fields.lun.copy(b, at + 8, 0, 8);
  b.writeUInt32BE(fields.ttt, at + 20);
  b.writeUInt32BE(fields.r2tSn, at + 36);
  b.writeUInt32BE(fields.offset, at + 40);
  b.writeUInt32BE(fields.lengthBytes, at + 44);
}

/** Task Management Function Response, §11.6. Byte 1: 1; 2 Response. */
export function encodeTaskManagementResponse(
  b: Buffer,
  at: number,
  itt: number,
  numbers: Numbers,
  response: number,
): void {
  common(b, at, Opcode.taskManagementResponse, 0x80, itt, numbers);
  b[at + 2] = response;
}

/**
 * Login Response, §11.13. Byte 1: T C . . CSG NSG; 2 Version-max; 3 Version-active (0x00); 8-13 ISID; 14-15 TSIH;
 * 36 Status-Class; 37 Status-Detail.
 */
export function encodeLoginResponse(
  b: Buffer,
  at: number,
  request: LoginRequestPdu,
  numbers: Numbers,
  fields: { transit: boolean; stage: number; nextStage: number; tsih: number; status: number },
): void {
  const flags = (fields.transit ? 0x80 | fields.nextStage : 0) | (fields.stage << 2);
  common(b, at, Opcode.loginResponse, flags, request.itt, numbers);
  b.write(request.isid, at + 8, 'hex');
  b.writeUInt16BE(fields.tsih, at + 14);
  b.writeUInt16BE(fields.status, at + 36);
}

/** Text Response, §11.11. Byte 1: F C; 8-15 LUN; 20-23 TTT (noTag with F). */
export function encodeTextResponse(
  b: Buffer,
  at: number,
  itt: number,
  numbers: Numbers,
  fields: { final: boolean; continued: boolean; ttt: number },
): void {
  common(b, at, Opcode.textResponse, (fields.final ? 0x80 : 0) | (fields.continued ? 0x40 : 0), itt, numbers);
  b.writeUInt32BE(fields.ttt, at + 20);
}

/** Logout Response, §11.15. Byte 1: 1; 2 Response; 40-41 Time2Wait; 42-43 Time2Retain. */
export function encodeLogoutResponse(
  b: Buffer,
  at: number,
  itt: number,
  numbers: Numbers,
  response: number,
): void {
  common(b, at, Opcode.logoutResponse, 0x80, itt, numbers);
  b[at + 2] = response;
}

/** NOP-In, §11.19. Byte 1: 1; 8-15 LUN; 20-23 TTT: noTag in an answer, ours in a ping (then ITT is noTag). */
export function encodeNopIn(b: Buffer, at: number, itt: number, numbers: Numbers, ttt: number): void {
  common(b, at, Opcode.nopIn, 0x80, itt, numbers);
  b.writeUInt32BE(ttt, at + 20);
}

/**
 * Asynchronous Message, §11.9. Byte 1: 1; 16-19 noTag; 36 AsyncEvent; 38-43 Parameters 1 to 3 (by event; for a
 * requested logout Parameter3 is the time to do it in, in seconds).
 */
export function encodeAsyncMessage(
  b: Buffer,
  at: number,
  numbers: Numbers,
  event: number,
  parameters: readonly [number, number, number],
): void {
  common(b, at, Opcode.asyncMessage, 0x80, noTag, numbers);
  b[at + 36] = event;
  b.writeUInt16BE(parameters[0], at + 38);
  b.writeUInt16BE(parameters[1], at + 40);
  b.writeUInt16BE(parameters[2], at + 42);
}

/** Reject, §11.17. Byte 1: 1; 2 Reason; 16-19 noTag; 36-39 DataSN. Data segment: the header refused. */
export function encodeReject(b: Buffer, at: number, numbers: Numbers, reason: number): void {
  common(b, at, Opcode.reject, 0x80, noTag, numbers);
  b[at + 2] = reason;
}
