/**
 * Text requests in the full-feature phase (RFC 7143 §11.10): SendTargets (appendix C), and a new
 * MaxRecvDataSegmentLength. Requests and answers may span several PDUs (C bit, Target Transfer Tag).
 */
import { encodeKeyText, type KeyPair, maxTextBytes, parseKeyText } from './key-text.ts';
import { negotiateKey, type SessionParameters } from './negotiation.ts';
import { noTag } from './pdu.ts';
import type { TargetDirectory, TargetPortal } from './target-directory.ts';

export interface TextReply {
  text: Buffer;
  final: boolean;
  continued: boolean;
  ttt: number;
}

/** The tag of an exchange that goes on; there is one at a time. */
const runningTag = 1;

export class TextExchange {
  private readonly directory: TargetDirectory;
  private readonly parameters: SessionParameters;
  private readonly initiatorName: string;
  /** The target of a normal session, which may only ask for its own addresses. */
  private readonly ownIqn: string | null;
  /** Where it was asked. */
  private readonly localPortal: TargetPortal;
  private request: Buffer = Buffer.alloc(0);
  private answer: Buffer | null = null;

  constructor(
    directory: TargetDirectory,
    parameters: SessionParameters,
    initiatorName: string,
    ownIqn: string | null,
    localPortal: TargetPortal,
  ) {
    this.directory = directory;
    this.parameters = parameters;
    this.initiatorName = initiatorName;
    this.ownIqn = ownIqn;
    this.localPortal = localPortal;
  }

  /** Null: the request is a protocol error. */
  next(ttt: number, final: boolean, continued: boolean, data: Buffer): TextReply | null {
    if (ttt === noTag) {
      // A new exchange; what was left of another is given up.
      this.request = Buffer.alloc(0);
      this.answer = null;
    } else if (ttt !== runningTag) {
      return null;
    }
    if (continued && final) return null;
    if (this.answer !== null) return data.length === 0 ? this.nextPart() : null;
    if (this.request.length + data.length > maxTextBytes) return null;
    this.request = Buffer.concat([this.request, data]);
    if (continued) return { text: Buffer.alloc(0), final: false, continued: false, ttt: runningTag };
    const pairs = parseKeyText(this.request);
    this.request = Buffer.alloc(0);
    if (pairs === null) return null;
    this.answer = encodeKeyText(this.answerTo(pairs));
    return this.nextPart();
  }

  private nextPart(): TextReply {
    const whole = this.answer!;
    const partBytes = this.parameters.initiatorMaxDataBytes;
    if (whole.length <= partBytes) {
      this.answer = null;
      return { text: whole, final: true, continued: false, ttt: noTag };
    }
    this.answer = whole.subarray(partBytes);
    return { text: whole.subarray(0, partBytes), final: false, continued: true, ttt: runningTag };
  }

  private answerTo(pairs: readonly KeyPair[]): KeyPair[] {
    const answers: KeyPair[] = [];
    for (const [key, value] of pairs) {
      if (key === 'SendTargets') {
        answers.push(...this.sendTargets(value));
      } else if (key === 'MaxRecvDataSegmentLength') {
        // The only operational key that may change in this phase (§13.12).
        const answer = negotiateKey(key, value, this.parameters);
        if (answer !== null) answers.push(answer);
      } else if (key !== 'InitiatorAlias') {
        const answer = negotiateKey(key, value, { ...this.parameters });
        if (answer !== null) answers.push([key, answer[1] === 'NotUnderstood' ? 'NotUnderstood' : 'Reject']);
      }
    }
    return answers;
  }

  private sendTargets(value: string): KeyPair[] {
    const listed = this.directory.list(this.initiatorName);
    const isAll = value === 'All' && this.ownIqn === null;
    const asked = value === '' ? this.ownIqn : value;
    if (value === 'All' && !isAll) return [['SendTargets', 'Reject']];
    const answers: KeyPair[] = [];
    for (const { iqn, portals } of listed) {
      const isShown = isAll || (iqn === asked && (this.ownIqn === null || iqn === this.ownIqn));
      if (!isShown) continue;
      answers.push(['TargetName', iqn]);
      for (const { address, groupTag } of portals.length > 0 ? portals : [this.localPortal]) {
        answers.push(['TargetAddress', `${address},${groupTag}`]);
      }
    }
    return answers;
  }
}
