/**
 * The target's side of a connection, cut into PDUs and held to the rules that hold whatever the initiator did: framing
 * and digests are right, opcodes are a target's, StatSN rises by one with every PDU that has one of its own, data-in
 * comes in order and never exceeds what was announced (RFC 7143 §4.2.2, §11).
 */
import { digestOf, noTag } from '../iscsi/initiator.ts';

export interface Answer {
  opcode: number;
  flags: number;
  itt: number;
  header: Buffer;
  data: Buffer;
}

export const TargetOpcode = {
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
const targetOpcodes = new Set<number>(Object.values(TargetOpcode));

const longestSegmentBytes = 2 ** 24 - 1;

export class AnswerCheck {
  headerDigest = false;
  dataDigest = false;
  /** The StatSN that comes next; null until the target has told its first. */
  expectedStatSn: number | null = null;
  #received: Buffer = Buffer.alloc(0);
  readonly #answered: (answer: Answer) => void;

  constructor(answered: (answer: Answer) => void) {
    this.#answered = answered;
  }

  /** @throws Error saying what the target did wrong. */
  take(bytes: Buffer): void {
    this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
    for (;;) {
      const received = this.#received;
      if (received.length < 48) return;
      const opcode = received[0]! & 0x3f;
      // Digests begin after the login.
      const isLogin = opcode === TargetOpcode.loginResponse;
      const headerBytes = 48 + (this.headerDigest && !isLogin ? 4 : 0);
      const lengthBytes = received.readUIntBE(5, 3);
      const padded = (lengthBytes + 3) & ~3;
      const digestBytes = this.dataDigest && !isLogin && padded > 0 ? 4 : 0;
      if (!targetOpcodes.has(opcode)) throw new Error(`the target sent opcode ${opcode.toString(16)}`);
      if (received[4] !== 0 || lengthBytes > longestSegmentBytes)
        throw new Error('a wrong length from the target');
      const end = headerBytes + padded + digestBytes;
      if (received.length < end) return;
      const header = received.subarray(0, 48);
      if (headerBytes > 48 && !received.subarray(48, 52).equals(digestOf(header))) {
        throw new Error('a wrong header digest from the target');
      }
      if (digestBytes > 0) {
        const digest = digestOf(received.subarray(headerBytes, headerBytes + padded));
        if (!received.subarray(end - 4, end).equals(digest))
          throw new Error(
            `a wrong data digest from the target (opcode ${opcode.toString(16)}, ${lengthBytes} bytes)`,
          );
      }
      const data = received.subarray(headerBytes, headerBytes + lengthBytes);
      this.#received = received.subarray(end);
      const answer = { opcode, flags: header[1]!, itt: header.readUInt32BE(16), header, data };
      this.#checkStatSn(answer);
      this.#answered(answer);
    }
  }

  #checkStatSn({ opcode, flags, itt, header }: Answer): void {
    const statSn = header.readUInt32BE(24);
    const isPing = opcode === TargetOpcode.nopIn && itt === noTag;
    const hasOwn =
      opcode === TargetOpcode.dataIn ? (flags & 1) === 1 : opcode !== TargetOpcode.r2t && !isPing;
    if (!hasOwn) return;
    if (this.expectedStatSn !== null && statSn !== this.expectedStatSn) {
      throw new Error(
        `StatSN ${statSn} where ${this.expectedStatSn} comes next (opcode ${opcode.toString(16)})`,
      );
    }
    this.expectedStatSn = (statSn + 1) >>> 0;
  }
}
