/**
 * One SCSI command on its way through the transport: its data-out as it arrives, its data-in and status as they leave.
 *
 *   collecting ──all data-out here, CmdSN's turn──> ready ──room──> executing ──> answered
 *        │                                            │                 │
 *        └──aborted: dropped                          └──dropped        └──aborted: runs to its end, not answered
 *
 * Data-out comes as immediate data, unsolicited Data-Out up to FirstBurstLength, and Data-Out asked for by R2T
 * (RFC 7143 §4.2.5.2, §11.7, §11.8). DataPDUInOrder and DataSequenceInOrder are always Yes, so each byte's place is
 * known beforehand and anything else is a protocol error.
 */
import { type ScsiReply, ScsiStatus } from '../scsi/command.ts';
import type { SessionParameters } from './negotiation.ts';
import type { Numbering } from './numbering.ts';
import type { Outbox } from './outbox.ts';
import {
  bufferOffsetOf,
  dataLengthOf,
  dataSnOf,
  encodeDataIn,
  encodeScsiResponse,
  isFinal,
  noTag,
  residualOverflow,
  residualUnderflow,
  type ScsiCommandPdu,
  tagAt20,
} from './pdu.ts';

/** Sense data the transport itself reports: fixed format, RFC 7143 §11.4.7.2. */
export const TransportSense = {
  /** ABORTED COMMAND, UNEXPECTED UNSOLICITED DATA. */
  unexpectedData: fixedSense(0x0b, 0x0c, 0x0c),
  /** ABORTED COMMAND, NOT ENOUGH UNSOLICITED DATA: the amount or order of data was wrong. */
  incorrectData: fixedSense(0x0b, 0x0c, 0x0d),
  /** ILLEGAL REQUEST, INVALID FIELD IN COMMAND INFORMATION UNIT. */
  invalidCommandUnit: fixedSense(0x05, 0x0e, 0x03),
} as const;

/** SPC-4 4.5.3. */
function fixedSense(key: number, asc: number, ascq: number): Buffer {
  const sense = Buffer.alloc(18);
  sense[0] = 0x70;
  sense[2] = key;
  sense[7] = 10;
  sense[12] = asc;
  sense[13] = ascq;
  return sense;
}

interface Solicitation {
  ttt: number;
  offset: number;
  lengthBytes: number;
}

export interface Failure {
  status: ScsiStatus;
  sense: Buffer | null;
}

export class Task {
  readonly pdu: ScsiCommandPdu;
  readonly cmdSn: number;
  /** Takes a place in the command window (not sent for immediate delivery). */
  readonly isNumbered: boolean;
  state: 'collecting' | 'ready' | 'executing' | 'gone' = 'collecting';
  /** What becomes of its answer once it was aborted. */
  fate: 'answered' | 'silent' | 'task aborted' = 'answered';
  /** CmdSN's turn has come. */
  isDelivered = false;
  /** Its data-out; null when it has none. */
  buffer: Buffer | null = null;
  /** A data segment is landing in `buffer` right now. */
  isLanding = false;
  /** Set when it is not to be executed: answered with this once the initiator has sent its last Data-Out. */
  failure: Failure | null = null;
  /** Bytes that have arrived, which is also where the next ones belong. */
  receivedBytes = 0;
  /** Unsolicited Data-Out may still come. */
  isUnsolicitedOpen = false;
  r2tCount = 0;
  /** When it came, or its last data did, in ticks of its task set. */
  tick = 0;
  /** Its memory was looked at before (`TaskSet.memoryUse`). */
  isLookedAt = false;
  watchers: (() => void)[] | null = null;
  private nextDataSn = 0;
  private askedBytes = 0;
  private readonly solicitations: Solicitation[] = [];

  constructor(pdu: ScsiCommandPdu, cmdSn: number, isNumbered: boolean) {
    this.pdu = pdu;
    this.cmdSn = cmdSn;
    this.isNumbered = isNumbered;
  }

  get isAborted(): boolean {
    return this.fate !== 'answered';
  }

  get outBytes(): number {
    return this.pdu.writes ? this.pdu.expectedBytes : 0;
  }

  get inBytes(): number {
    return this.pdu.reads ? this.pdu.expectedBytes : 0;
  }

  /** Begins with what the command PDU brought. Answers with what is wrong with it, or null. */
  begin(immediateBytes: number, parameters: SessionParameters): Failure | null {
    const { pdu } = this;
    if (pdu.reads && pdu.writes) return checkCondition(TransportSense.invalidCommandUnit);
    this.isUnsolicitedOpen = !pdu.final && pdu.writes;
    if (immediateBytes > 0) {
      const limit = Math.min(parameters.firstBurstBytes, this.outBytes);
      if (!parameters.immediateData || immediateBytes > limit) {
        return checkCondition(TransportSense.unexpectedData);
      }
      this.receivedBytes = immediateBytes;
    }
    if (this.isUnsolicitedOpen && parameters.initialR2t) return checkCondition(TransportSense.unexpectedData);
    return null;
  }

  /** Whether that Data-Out is the one expected now: null, or what is wrong with it. Changes nothing. */
  flawOf(bhs: Buffer, parameters: SessionParameters): Failure | null {
    const lengthBytes = dataLengthOf(bhs);
    const ttt = tagAt20(bhs);
    if (dataSnOf(bhs) !== this.nextDataSn || bufferOffsetOf(bhs) !== this.receivedBytes) {
      return checkCondition(TransportSense.incorrectData);
    }
    const end = this.receivedBytes + lengthBytes;
    if (ttt === noTag) {
      const limit = Math.min(parameters.firstBurstBytes, this.outBytes);
      if (!this.isUnsolicitedOpen || end > limit) return checkCondition(TransportSense.unexpectedData);
      return null;
    }
    const expected = this.solicitations[0];
    if (expected === undefined || expected.ttt !== ttt) return checkCondition(TransportSense.unexpectedData);
    const sequenceEnd = expected.offset + expected.lengthBytes;
    // F ends the sequence, exactly where the R2T said.
    if (end > sequenceEnd || isFinal(bhs) !== (end === sequenceEnd)) {
      return checkCondition(TransportSense.incorrectData);
    }
    return null;
  }

  /** Counts a Data-Out in that `flawOf` found nothing wrong with. */
  advance(bhs: Buffer): void {
    this.receivedBytes += dataLengthOf(bhs);
    this.nextDataSn += 1;
    if (isFinal(bhs)) this.closeSequence(bhs);
  }

  /** Of a Data-Out that is not taken, only whether it was the last of its sequence matters. */
  closeSequence(bhs: Buffer): void {
    if (!isFinal(bhs)) return;
    this.nextDataSn = 0;
    const ttt = tagAt20(bhs);
    if (ttt === noTag) this.isUnsolicitedOpen = false;
    const index = this.solicitations.findIndex((solicitation) => solicitation.ttt === ttt);
    if (index >= 0) this.solicitations.splice(index, 1);
  }

  /** The next stretch to ask for by R2T, or null when none may or need be asked for now. */
  ask(ttt: number, parameters: SessionParameters): Solicitation | null {
    if (this.isUnsolicitedOpen || this.failure !== null) return null;
    if (this.solicitations.length >= parameters.maxOutstandingR2t) return null;
    const offset = Math.max(this.askedBytes, this.receivedBytes);
    if (offset >= this.outBytes) return null;
    const lengthBytes = Math.min(parameters.maxBurstBytes, this.outBytes - offset);
    this.askedBytes = offset + lengthBytes;
    this.r2tCount += 1;
    const solicitation = { ttt, offset, lengthBytes };
    this.solicitations.push(solicitation);
    return solicitation;
  }

  /** Whether the initiator has sent all it will send: everything, or, of a failed command, all that is on its way. */
  get isDataHere(): boolean {
    if (this.isUnsolicitedOpen || this.solicitations.length > 0) return false;
    return this.failure !== null || this.receivedBytes >= this.outBytes;
  }
}

export function checkCondition(sense: Buffer): Failure {
  return { status: ScsiStatus.checkCondition, sense };
}

interface Residual {
  flag: number;
  bytes: number;
}

/** §11.4.5.1: the difference between what the initiator announced and what the command took or returned. */
export function residualOf(task: Task, reply: ScsiReply, sentBytes: number): Residual {
  const { pdu } = task;
  const announced = pdu.reads || pdu.writes ? pdu.expectedBytes : 0;
  const wanted = pdu.writes ? reply.wantedOutBytes : reply.wantedInBytes;
  if (!pdu.reads && !pdu.writes) {
    const missed = Math.max(reply.wantedInBytes, reply.wantedOutBytes);
    return missed > 0 ? { flag: residualOverflow, bytes: missed } : { flag: 0, bytes: 0 };
  }
  const moved = pdu.writes ? Math.min(wanted, announced) : sentBytes;
  if (moved < announced) return { flag: residualUnderflow, bytes: announced - moved };
  if (wanted > announced) return { flag: residualOverflow, bytes: wanted - announced };
  return { flag: 0, bytes: 0 };
}

/** More pieces than one, shorter than this together, are joined: one PDU is cheaper than several. */
const joinLimitBytes = 64 * 1024;

/** Sends what a command returned, and its status: on the last Data-In when it is good, else in a SCSI Response. */
export function sendReply(
  outbox: Outbox,
  numbering: Numbering,
  parameters: SessionParameters,
  task: Task,
  reply: ScsiReply,
): void {
  const { itt } = task.pdu;
  let available = 0;
  for (const piece of reply.dataIn) available += piece.length;
  const sendBytes = Math.min(available, task.inBytes);
  const residual = residualOf(task, reply, sendBytes);
  const isGood = reply.status === ScsiStatus.good && reply.sense === null;
  let dataSn = 0;
  let offset = 0;
  if (sendBytes > 0) {
    const isJoined = reply.dataIn.length > 1 && sendBytes <= joinLimitBytes;
    const pieces = isJoined ? [Buffer.concat(reply.dataIn, sendBytes)] : reply.dataIn;
    for (const piece of pieces) {
      for (let at = 0; at < piece.length && offset < sendBytes; ) {
        const burstLeft = parameters.maxBurstBytes - (offset % parameters.maxBurstBytes);
        const lengthBytes = Math.min(
          parameters.initiatorMaxDataBytes,
          burstLeft,
          piece.length - at,
          sendBytes - offset,
        );
        const isLast = offset + lengthBytes === sendBytes;
        const header = outbox.header();
        encodeDataIn(outbox.slab, header, itt, isLast && isGood ? numbering.next() : numbering.current(), {
          final: isLast || lengthBytes === burstLeft,
          withStatus: isLast && isGood,
          residualFlag: residual.flag,
          residualBytes: residual.bytes,
          dataSn,
          offset,
        });
        const isWhole = at === 0 && lengthBytes === piece.length;
        const data = isWhole ? piece : piece.subarray(at, at + lengthBytes);
        outbox.end(header, data, isLast ? (reply.release ?? null) : null, dataSn > 0);
        dataSn += 1;
        at += lengthBytes;
        offset += lengthBytes;
      }
    }
    if (isGood) return;
  } else {
    reply.release?.();
  }
  sendResponse(outbox, numbering, task, reply, residual, dataSn);
}

function sendResponse(
  outbox: Outbox,
  numbering: Numbering,
  task: Task,
  answer: Failure,
  residual: Residual,
  dataInCount: number,
): void {
  const header = outbox.header();
  encodeScsiResponse(outbox.slab, header, task.pdu.itt, numbering.next(), {
    status: answer.status,
    residualFlag: residual.flag,
    residualBytes: residual.bytes,
    expDataSn: dataInCount + task.r2tCount,
  });
  if (answer.sense === null) {
    outbox.endEmpty(header);
    return;
  }
  const segment = Buffer.allocUnsafe(2 + answer.sense.length);
  segment.writeUInt16BE(answer.sense.length, 0);
  answer.sense.copy(segment, 2);
  outbox.end(header, segment, null);
}

/** Answers a command that was not executed. */
export function sendFailure(outbox: Outbox, numbering: Numbering, task: Task, failure: Failure): void {
  const { expectedBytes, reads, writes } = task.pdu;
  const isUnderflow = (reads || writes) && expectedBytes > 0;
  const residual = isUnderflow ? { flag: residualUnderflow, bytes: expectedBytes } : { flag: 0, bytes: 0 };
  sendResponse(outbox, numbering, task, failure, residual, 0);
}
