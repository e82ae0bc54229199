/**
 * What the fuzzer says on one connection, as plain data: made from a seed alone, so that the same seed says the same;
 * kept in a file as JSON; and cut smaller step by step. Numbers that only the running session knows (CmdSN, tags, CHAP
 * challenges) are told relative to it and filled in by `speaker.ts`.
 */

/** A data segment or parameter list. The volumes' NAA designators are not known before the target runs. */
export type Content =
  | { hex: string; designators?: { at: number; volume: number }[] }
  | { lengthBytes: number; fill: number };

/** A task tag: a new one, the oldest that is unanswered, the newest, none (FFFFFFFFh), or exactly that number. */
export type Tag = 'new' | 'oldest' | 'newest' | 'none' | number;

/** What is done to the bytes of a PDU that was right. Positions are taken modulo its length. */
export type Damage =
  | { how: 'flip'; at: number; bit: number }
  | { how: 'set'; at: number; value: number }
  | { how: 'cut'; at: number }
  | { how: 'twice' }
  | { how: 'header digest' | 'data digest' };

interface Numbered {
  immediate: boolean;
  itt: Tag;
  /** 0 is right. */
  cmdSnPlus: number;
  /** Whether the session's CmdSN rises by one after it, as it shall for what is not immediate. */
  takesTurn: boolean;
  expStatSnPlus: number;
  /** The eight bytes in hexadecimal. */
  lun: string;
  /** Additional header segments in hexadecimal, whole words. */
  ahs: string;
  damage: Damage[];
}

/** How the Data-Outs that an R2T asks for are wrong. */
export type Solicited =
  | 'right'
  | 'none'
  | 'short'
  | 'long'
  | 'never final'
  | 'wrong tag'
  | 'wrong offset'
  | 'wrong DataSN'
  | 'twice'
  | 'many pieces';

/** A SCSI command with all its data-out. */
export interface CommandStep extends Numbered {
  kind: 'command';
  /** 16 bytes in hexadecimal. */
  cdb: string;
  reads: boolean;
  writes: boolean;
  attribute: number;
  /** Expected Data Transfer Length. */
  expectedBytes: number;
  data: Content;
  /** How much of `data` the command PDU carries, and how much follows unasked. */
  immediateBytes: number;
  unsolicitedBytes: number;
  /** Sends unasked no more than the session's parameters allow. */
  keepsLimits: boolean;
  /** The F bit; right when nothing unasked follows. */
  final: boolean;
  solicited: Solicited;
}

/** Any other request. */
export interface RequestStep extends Numbered {
  kind: 'request';
  opcode: number;
  flags: number;
  byte2: number;
  byte3: number;
  /** Bytes 20-23: Target Transfer Tag, Referenced Task Tag, or what the opcode has there. */
  tag: Tag;
  /** Bytes 32-47 in hexadecimal. */
  rest: string;
  data: Content;
}

/** Bytes that are no PDU. */
export interface NoiseStep {
  kind: 'noise';
  data: Content;
}

/** Waits until the target has answered a ping, or, deaf, takes nothing from it for a while. */
export interface PauseStep {
  kind: 'answers' | 'deaf';
  ms: number;
}

export type Step = CommandStep | RequestStep | NoiseStep | PauseStep;

/**
 * Values that begin with "@" are filled in: @target, @other (another target's name), @user, @response (to the
 * challenge), @challenge (the target's own, sent back).
 */
export type LoginKey = [key: string, value: string];

export interface LoginStep {
  kind: 'login';
  transit: boolean;
  continued: boolean;
  stage: number;
  nextStage: number;
  /** Reserved bits of byte 1. */
  reserved: number;
  versionMax: number;
  versionMin: number;
  isid: string;
  tsih: number;
  cid: number;
  itt: number;
  cmdSn: number;
  immediate: boolean;
  keys: LoginKey[] | Content;
  damage: Damage[];
  /** Whether the answer is waited for before the next request. */
  waits: boolean;
}

export interface Conversation {
  /** Its number in the run. */
  number: number;
  volume: number;
  /** Nothing in it breaks the protocol: every command has to be answered. */
  orderly: boolean;
  logins: LoginStep[];
  steps: Step[];
  /** Sends in pieces of this length; 0: whole. */
  pieceBytes: number;
  /** Goes away after that many bytes. */
  cutAfterBytes: number | null;
  end: 'logout' | 'goodbye' | 'reset';
}

/** What counts as one input: a login request, a command with its data, another request, or a piece of noise. */
export function isInput(step: Step | LoginStep): boolean {
  return step.kind !== 'answers' && step.kind !== 'deaf';
}

/** Fills where only its length and its being there matter: cheap, and never zeros alone. */
export function bytesOf(content: Content, designators: readonly Buffer[]): Buffer {
  if (!('hex' in content)) return Buffer.alloc(content.lengthBytes, fillPattern(content.fill));
  const bytes = Buffer.from(content.hex, 'hex');
  for (const { at, volume } of content.designators ?? []) {
    designators[volume % designators.length]?.copy(bytes, at);
  }
  return bytes;
}

export function lengthOf(content: Content): number {
  return 'hex' in content ? content.hex.length / 2 : content.lengthBytes;
}

function fillPattern(fill: number): Buffer {
  const pattern = Buffer.alloc(64);
  for (let at = 0; at < 64; at += 4) pattern.writeUInt32LE(Math.imul(fill + at, 0x9e3779b1) >>> 0, at);
  return pattern;
}

export const nothing: Content = { hex: '' };
