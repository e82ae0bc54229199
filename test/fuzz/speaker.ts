/** Holds one conversation over a socket: fills in what only the running session knows, and judges the answers. */
import { setTimeout as delay } from 'node:timers/promises';
import { noTag, textOf } from '../iscsi/initiator.ts';
import { type Answer, AnswerCheck, TargetOpcode } from './answer-check.ts';
import {
  bytesOf,
  type CommandStep,
  type Content,
  type Conversation,
  isInput,
  type LoginStep,
  nothing,
  type RequestStep,
  type Step,
  type Tag,
} from './conversation.ts';
import { type Addressee, keyText } from './login-text.ts';
import { encodeRequest, plainRequest } from './request-encoder.ts';
import { type DataOut, dataOutsFor, maySend } from './solicited-data.ts';
import { answerLimitMs, SpeakingSocket } from './speaking-socket.ts';

export interface Outcome {
  inputs: number;
  commands: number;
  /** Commands that ended with GOOD: how deep it got. */
  good: number;
  isLoggedIn: boolean;
  /** What the target did that it must not do, or did not do in time. */
  flaw: string | null;
  /** With a flaw: the headers of the last PDUs, in hexadecimal, ">" for ours. */
  trace: string[];
}

const logoutLimitMs = 2_000;

interface Live {
  step: CommandStep;
  data: Buffer;
  receivedBytes: number;
  nextDataSn: number;
}

export class Speaker {
  readonly #socket: SpeakingSocket;
  readonly #conversation: Conversation;
  readonly #addressee: Addressee;
  readonly #check = new AnswerCheck((answer) => this.#answered(answer));
  readonly #live = new Map<number, Live>();
  readonly #outcome: Outcome = { inputs: 0, commands: 0, good: 0, isLoggedIn: false, flaw: null, trace: [] };
  /** As negotiated; the defaults until the login is over. */
  readonly #keys = new Map<string, string>();
  #cmdSn = 0;
  #nextItt = 100;
  /** Whether the target can still tell where a PDU begins. */
  #isFramed = true;
  #loginAnswer: Answer | null = null;
  #pinged = new Set<number>();
  /** Data, requests for data, and answers that came. */
  #steps = 0;
  private constructor(conversation: Conversation, addressee: Addressee) {
    this.#socket = new SpeakingSocket(addressee.port, conversation, (bytes) => this.#take(bytes));
    this.#conversation = conversation;
    this.#addressee = addressee;
  }

  static async hold(conversation: Conversation, addressee: Addressee): Promise<Outcome> {
    const speaker = new Speaker(conversation, addressee);
    const outcome = speaker.#outcome;
    try {
      await speaker.#socket.connected();
      await speaker.#speak();
    } catch (error) {
      outcome.flaw ??= (error as Error).message;
    }
    speaker.#socket.destroy();
    if (outcome.flaw !== null) outcome.trace = speaker.#socket.trace();
    return outcome;
  }

  async #speak(): Promise<void> {
    const { logins, steps, end, orderly } = this.#conversation;
    this.#cmdSn = logins[0]?.cmdSn ?? 1;
    for (const login of logins) {
      if (this.#socket.isOver) return;
      await this.#login(login);
    }
    for (const step of steps) {
      if (this.#socket.isOver) return;
      if (isInput(step)) this.#outcome.inputs += 1;
      if (step.kind === 'command') await this.#command(step);
      else if (step.kind === 'request') await this.#request(step);
      else if (step.kind === 'noise') await this.#noise(step.data);
      else if (step.kind === 'answers') await this.#socket.until(() => this.#live.size === 0, step.ms);
      else {
        this.#socket.pause();
        await delay(step.ms);
        this.#socket.resume();
      }
    }
    if (!this.#outcome.isLoggedIn || !this.#isFramed || this.#socket.isOver) return;
    await this.#ping(true);
    if (orderly) await this.#ping(false);
    if (orderly && !steps.some(endsTasks)) await this.#everythingAnswered();
    if (end === 'goodbye') this.#socket.end();
    if (end === 'logout') await this.#sayGoodbye();
  }

  // What is said

  async #login(step: LoginStep): Promise<void> {
    this.#outcome.inputs += 1;
    this.#loginAnswer = null;
    const keys = Array.isArray(step.keys)
      ? keyText(step.keys, this.#addressee, this.#conversation.volume, this.#keys)
      : bytesOf(step.keys, []);
    const bytes = encodeRequest({
      ...plainRequest,
      bytes01: [
        0x03 | (step.immediate ? 0x40 : 0),
        (step.transit ? 0x80 : 0) |
          (step.continued ? 0x40 : 0) |
          step.reserved |
          (step.stage << 2) |
          step.nextStage,
      ],
      byte2: step.versionMax,
      byte3: step.versionMin,
      lun: step.isid + step.tsih.toString(16).padStart(4, '0'),
      itt: step.itt,
      tag: (step.cid << 16) >>> 0,
      cmdSn: step.cmdSn,
      expStatSn: this.#expStatSn(),
      data: keys,
      ...this.#digests(),
      damage: step.damage,
    });
    // Who does not wait does not know whether digests have begun.
    await this.#send(bytes.bytes, bytes.isFramed && step.waits);
    if (!step.waits) return;
    const isHeard = () => this.#loginAnswer !== null;
    // Without its framing the target may wait for what never comes.
    const isAnswered = await this.#socket.until(isHeard, this.#isFramed ? answerLimitMs : 50);
    if (!isAnswered && this.#isFramed && !this.#socket.isOver)
      throw new Error('a login request was not answered');
  }

  async #command(step: CommandStep): Promise<void> {
    const designators = this.#addressee.targets.map(({ designator }) => designator);
    const data = bytesOf(step.data, designators);
    const itt = this.#tag(step.itt);
    const allowed = step.keepsLimits
      ? maySend(this.#keys, step)
      : { immediateBytes: step.immediateBytes, unsolicitedBytes: step.unsolicitedBytes };
    const immediate = data.subarray(0, step.writes ? allowed.immediateBytes : 0);
    const unsolicitedBytes = Math.min(allowed.unsolicitedBytes, data.length - immediate.length);
    const isFinal = (unsolicitedBytes === 0) === step.final;
    const live: Live = { step, data, receivedBytes: 0, nextDataSn: 0 };
    if (!this.#live.has(itt)) this.#live.set(itt, live);
    this.#outcome.commands += 1;
    const tag = step.expectedBytes;
    const flags = (isFinal ? 0x80 : 0) | (step.reads ? 0x40 : 0) | (step.writes ? 0x20 : 0) | step.attribute;
    await this.#sendNumbered(step, {
      opcode: 0x01,
      flags,
      itt,
      tag,
      rest: Buffer.from(step.cdb, 'hex'),
      data: immediate,
    });
    if (!step.writes || unsolicitedBytes <= 0) return;
    const end = immediate.length + unsolicitedBytes;
    const pieces = dataOutsFor(
      'right',
      { ttt: noTag, offset: immediate.length, lengthBytes: end - immediate.length },
      data,
    );
    for (const piece of pieces) await this.#dataOut(itt, piece);
  }

  async #request(step: RequestStep): Promise<void> {
    const { opcode, flags, byte2, byte3 } = step;
    const [itt, tag] = [this.#tag(step.itt), this.#tag(step.tag)];
    const rest = Buffer.from(step.rest, 'hex');
    await this.#sendNumbered(step, {
      opcode,
      flags,
      byte2,
      byte3,
      itt,
      tag,
      rest,
      data: bytesOf(step.data, []),
    });
  }

  async #sendNumbered(
    step: CommandStep | RequestStep,
    fields: {
      opcode: number;
      flags: number;
      byte2?: number;
      byte3?: number;
      itt: number;
      tag: number;
      rest: Buffer;
      data: Buffer;
    },
  ): Promise<void> {
    const { opcode, flags, byte2 = 0, byte3 = 0, ...same } = fields;
    const encoded = encodeRequest({
      ...same,
      ...this.#digests(),
      bytes01: [opcode | (step.immediate ? 0x40 : 0), flags],
      byte2,
      byte3,
      lun: step.lun,
      cmdSn: (this.#cmdSn + step.cmdSnPlus) >>> 0,
      expStatSn: (this.#expStatSn() + step.expStatSnPlus) >>> 0,
      ahs: Buffer.from(step.ahs, 'hex'),
      damage: step.damage,
    });
    if (step.takesTurn) this.#cmdSn = (this.#cmdSn + 1) >>> 0;
    await this.#send(encoded.bytes, encoded.isFramed);
  }

  async #dataOut(itt: number, piece: DataOut): Promise<void> {
    if (this.#socket.isOver) return;
    const rest = Buffer.alloc(16);
    rest.writeUInt32BE(piece.dataSn >>> 0, 4);
    rest.writeUInt32BE(piece.offset >>> 0, 8);
    const encoded = encodeRequest({
      ...this.#digests(),
      ...plainRequest,
      bytes01: [0x05, piece.final ? 0x80 : 0],
      itt,
      tag: piece.ttt,
      expStatSn: this.#expStatSn(),
      rest,
      data: piece.data,
    });
    await this.#send(encoded.bytes, true);
  }

  async #noise(data: Content): Promise<void> {
    await this.#send(bytesOf(data, []), false);
  }

  /** A ping that has to be answered, whatever was said before it; numbered, it also waits for its turn. */
  async #ping(immediate: boolean): Promise<void> {
    const itt = this.#tag('new');
    this.#pinged.add(itt);
    await this.#sendNumbered(
      {
        ...{ kind: 'request', opcode: 0, flags: 0x80, byte2: 0, byte3: 0, itt, tag: 'none', data: nothing },
        ...{ immediate, cmdSnPlus: 0, takesTurn: !immediate, expStatSnPlus: 0, lun: '0'.repeat(16) },
        ...{ ahs: '', rest: '', damage: [] },
      },
      { opcode: 0, flags: 0x80, itt, tag: noTag, rest: Buffer.alloc(16), data: Buffer.alloc(0) },
    );
    const isHeard = await this.#socket.until(() => !this.#pinged.has(itt), answerLimitMs);
    if (!isHeard && !this.#socket.isOver) {
      throw new Error(immediate ? 'a ping was not answered' : 'a ping in its turn was not answered');
    }
  }

  /** As long as one of them gets on it may take its time: a long write in short bursts has thousands of round trips. */
  async #everythingAnswered(): Promise<void> {
    const isDone = () => this.#live.size === 0;
    for (let before = -1; before !== this.#steps; ) {
      before = this.#steps;
      if ((await this.#socket.until(isDone, answerLimitMs)) || this.#socket.isOver) return;
    }
    const cdbs = [...this.#live.values()].map(({ step }) => step.cdb);
    throw new Error(`commands were not answered: ${cdbs.join(', ')}`);
  }

  async #sayGoodbye(): Promise<void> {
    const itt = this.#tag('new');
    const encoded = encodeRequest({
      ...this.#digests(),
      ...plainRequest,
      bytes01: [0x46, 0x80],
      itt,
      tag: 0,
      cmdSn: this.#cmdSn,
      expStatSn: this.#expStatSn(),
    });
    await this.#send(encoded.bytes, true);
    await this.#socket.until(() => this.#socket.isOver, logoutLimitMs);
  }

  #send(bytes: Buffer, isFramed: boolean): Promise<void> {
    if (!isFramed) this.#isFramed = false;
    return this.#socket.send(bytes);
  }

  #digests(): { headerDigest: boolean; dataDigest: boolean } {
    return { headerDigest: this.#check.headerDigest, dataDigest: this.#check.dataDigest };
  }

  #expStatSn(): number {
    return this.#check.expectedStatSn ?? 0;
  }

  #tag(tag: Tag): number {
    if (typeof tag === 'number') return tag >>> 0;
    if (tag === 'none') return noTag;
    const tags = [...this.#live.keys()];
    const known = tag === 'oldest' ? tags[0] : tag === 'newest' ? tags.at(-1) : undefined;
    if (known !== undefined) return known;
    this.#nextItt += 1;
    return this.#nextItt;
  }

  // What is answered

  #take(bytes: Buffer): void {
    if (this.#outcome.flaw !== null) return;
    try {
      this.#check.take(bytes);
    } catch (error) {
      this.#outcome.flaw = (error as Error).message;
      this.#socket.destroy();
    }
  }

  #answered(answer: Answer): void {
    const { opcode, itt, header } = answer;
    this.#socket.remember('<', header);
    if (opcode !== TargetOpcode.nopIn) this.#steps += 1;
    if (opcode === TargetOpcode.loginResponse) this.#loginAnswered(answer);
    else if (!this.#outcome.isLoggedIn) throw new Error('an answer before the login');
    else if (opcode === TargetOpcode.dataIn) this.#dataIn(answer);
    else if (opcode === TargetOpcode.scsiResponse) this.#ended(itt, header[3]!);
    else if (opcode === TargetOpcode.reject) this.#rejected(tagOfRejected(answer.data));
    else if (opcode === TargetOpcode.r2t) this.#solicited(answer).catch((error) => this.#failed(error));
    else if (opcode === TargetOpcode.nopIn) {
      this.#pinged.delete(itt);
      const ttt = header.readUInt32BE(20);
      if (ttt !== noTag) this.#pingAnswer(ttt).catch((error) => this.#failed(error));
    }
  }

  #failed(error: Error): void {
    this.#outcome.flaw ??= error.message;
  }

  #ended(itt: number, status: number): void {
    this.#live.delete(itt);
    if (status === 0) this.#outcome.good += 1;
  }

  #rejected(itt: number): void {
    this.#live.delete(itt);
    // A discovery session has no pings (RFC 7143 §4.3), and orderly ones are none.
    if (!this.#conversation.orderly) this.#pinged.delete(itt);
  }

  #loginAnswered(answer: Answer): void {
    const { header, flags, data } = answer;
    this.#loginAnswer = answer;
    for (const [key, value] of textOf(data)) this.#keys.set(key, value);
    if (header.readUInt16BE(36) !== 0 || (flags & 0x83) !== 0x83) return;
    this.#outcome.isLoggedIn = true;
    this.#check.headerDigest = this.#keys.get('HeaderDigest') === 'CRC32C';
    this.#check.dataDigest = this.#keys.get('DataDigest') === 'CRC32C';
  }

  #dataIn({ itt, header, data, flags }: Answer): void {
    const live = this.#live.get(itt);
    // Of a tag that was used twice, either may be meant.
    if (live === undefined || !this.#conversation.orderly) {
      if ((flags & 1) === 1) this.#ended(itt, header[3]!);
      return;
    }
    const { step } = live;
    if (header.readUInt32BE(36) !== live.nextDataSn) throw new Error('DataSN out of order from the target');
    if (header.readUInt32BE(40) !== live.receivedBytes) throw new Error('data-in out of order');
    live.nextDataSn += 1;
    live.receivedBytes += data.length;
    if (!step.reads || live.receivedBytes > step.expectedBytes)
      throw new Error('more data-in than announced');
    if ((flags & 1) === 1) this.#ended(itt, header[3]!);
  }

  async #solicited({ itt, header }: Answer): Promise<void> {
    const live = this.#live.get(itt);
    if (live === undefined) return;
    const asked = {
      ttt: header.readUInt32BE(20),
      offset: header.readUInt32BE(40),
      lengthBytes: header.readUInt32BE(44),
    };
    for (const piece of dataOutsFor(live.step.solicited, asked, live.data)) await this.#dataOut(itt, piece);
  }

  async #pingAnswer(ttt: number): Promise<void> {
    const encoded = encodeRequest({
      ...this.#digests(),
      ...plainRequest,
      bytes01: [0x40, 0x80],
      itt: noTag,
      tag: ttt,
      cmdSn: this.#cmdSn,
      expStatSn: this.#expStatSn(),
    });
    await this.#send(encoded.bytes, true);
  }
}

/** A Reject brings the header it is about (RFC 7143 §11.17). */
function tagOfRejected(data: Buffer): number {
  return data.length >= 20 ? data.readUInt32BE(16) : noTag;
}

function endsTasks(step: Step): boolean {
  return step.kind === 'request' && step.opcode === 0x02;
}
