/**
 * Operational parameters: what each key means and how both sides' values become one (RFC 7143 §6.2, §13).
 * A pure function of the offered keys; `login.ts` and `text.ts` carry the PDUs.
 */
import { assert } from '../base/assert.ts';
import { KiB, MiB } from '../base/limits.ts';
import { type KeyPair, parseNumber } from './key-text.ts';

/** The longest data segment we take, in bytes. One direct landing; longer ones gain nothing measurable. */
export const targetMaxDataBytes = 256 * KiB;
/** What we take unasked, in bytes: writes up to this cost no round trip. */
const targetFirstBurstBytes = 256 * KiB;
const targetMaxBurstBytes = 4 * MiB;
const targetMaxOutstandingR2t = 4;
assert(targetFirstBurstBytes <= targetMaxBurstBytes, 'RFC 7143 13.14');

/** What a session runs with, once negotiated. Starts with the defaults of §13. */
export interface SessionParameters {
  headerDigest: boolean;
  dataDigest: boolean;
  initialR2t: boolean;
  immediateData: boolean;
  /** The longest data segment the initiator takes. */
  initiatorMaxDataBytes: number;
  maxBurstBytes: number;
  firstBurstBytes: number;
  maxOutstandingR2t: number;
}

export function defaultParameters(): SessionParameters {
  return {
    headerDigest: false,
    dataDigest: false,
    initialR2t: true,
    immediateData: true,
    initiatorMaxDataBytes: 8 * KiB,
    maxBurstBytes: 256 * KiB,
    firstBurstBytes: 64 * KiB,
    maxOutstandingR2t: 1,
  };
}

type Rule =
  /** The smaller (larger) of both numbers. */
  | { kind: 'minimum' | 'maximum'; low: number; high: number; ours: number; set?: NumberSetter }
  /** Yes only when both say so; Yes when one says so. */
  | { kind: 'and' | 'or'; ours: boolean; set?: (to: SessionParameters, value: boolean) => void }
  /** The first of the offered values that we support. */
  | { kind: 'list'; supported: readonly string[]; set?: (to: SessionParameters, value: string) => void }
  /** Told, not negotiated. */
  | { kind: 'declared'; low: number; high: number; set: NumberSetter }
  /** Always the same answer. */
  | { kind: 'fixed'; answer: string };
type NumberSetter = (to: SessionParameters, value: number) => void;

const largestLength = 2 ** 24 - 1;

const rules: Readonly<Record<string, Rule>> = {
  HeaderDigest: {
    kind: 'list',
    supported: ['CRC32C', 'None'],
    set: (to, value) => {
      to.headerDigest = value === 'CRC32C';
    },
  },
  DataDigest: {
    kind: 'list',
    supported: ['CRC32C', 'None'],
    set: (to, value) => {
      to.dataDigest = value === 'CRC32C';
    },
  },
  MaxConnections: { kind: 'minimum', low: 1, high: 65535, ours: 1 },
  InitialR2T: {
    kind: 'or',
    ours: false,
    set: (to, value) => {
      to.initialR2t = value;
    },
  },
  ImmediateData: {
    kind: 'and',
    ours: true,
    set: (to, value) => {
      to.immediateData = value;
    },
  },
  MaxRecvDataSegmentLength: {
    kind: 'declared',
    low: 512,
    high: largestLength,
    set: (to, value) => {
      to.initiatorMaxDataBytes = value;
    },
  },
  MaxBurstLength: {
    kind: 'minimum',
    low: 512,
    high: largestLength,
    ours: targetMaxBurstBytes,
    set: (to, value) => {
      to.maxBurstBytes = value;
    },
  },
  FirstBurstLength: {
    kind: 'minimum',
    low: 512,
    high: largestLength,
    ours: targetFirstBurstBytes,
    set: (to, value) => {
      to.firstBurstBytes = value;
    },
  },
  DefaultTime2Wait: { kind: 'maximum', low: 0, high: 3600, ours: 0 },
  DefaultTime2Retain: { kind: 'minimum', low: 0, high: 3600, ours: 0 },
  MaxOutstandingR2T: {
    kind: 'minimum',
    low: 1,
    high: 65535,
    ours: targetMaxOutstandingR2t,
    set: (to, value) => {
      to.maxOutstandingR2t = value;
    },
  },
  DataPDUInOrder: { kind: 'or', ours: true },
  DataSequenceInOrder: { kind: 'or', ours: true },
  ErrorRecoveryLevel: { kind: 'minimum', low: 0, high: 2, ours: 0 },
  TaskReporting: { kind: 'list', supported: ['RFC3720'] },
  iSCSIProtocolLevel: { kind: 'minimum', low: 0, high: 31, ours: 1 },
  // Obsolete, and not to be called not understood (§13.25).
  IFMarker: { kind: 'fixed', answer: 'No' },
  OFMarker: { kind: 'fixed', answer: 'No' },
  IFMarkInt: { kind: 'fixed', answer: 'Reject' },
  OFMarkInt: { kind: 'fixed', answer: 'Reject' },
};

/** Answers to what is no answer but a report of one; they never need an answer themselves. */
const reports = new Set(['NotUnderstood', 'Irrelevant', 'Reject']);

/** §13: keys about commands and their data. */
const irrelevantInDiscovery = new Set([
  'MaxConnections',
  'InitialR2T',
  'ImmediateData',
  'MaxBurstLength',
  'FirstBurstLength',
  'MaxOutstandingR2T',
  'DataPDUInOrder',
  'DataSequenceInOrder',
  'TaskReporting',
]);

/** Takes one key an initiator sent; answers with what to send back, or null when nothing is to be said. */
export function negotiateKey(
  key: string,
  value: string,
  parameters: SessionParameters,
  isDiscovery = false,
): KeyPair | null {
  if (reports.has(value)) return null;
  const rule = Object.hasOwn(rules, key) ? rules[key] : undefined;
  if (rule === undefined) return [key, 'NotUnderstood'];
  if (isDiscovery && irrelevantInDiscovery.has(key)) return [key, 'Irrelevant'];
  switch (rule.kind) {
    case 'fixed':
      return [key, rule.answer];
    case 'list': {
      const chosen = value.split(',').find((offer) => rule.supported.includes(offer));
      if (chosen === undefined) return [key, 'Reject'];
      rule.set?.(parameters, chosen);
      return [key, chosen];
    }
    case 'and':
    case 'or': {
      if (value !== 'Yes' && value !== 'No') return [key, 'Reject'];
      const theirs = value === 'Yes';
      const result = rule.kind === 'and' ? theirs && rule.ours : theirs || rule.ours;
      rule.set?.(parameters, result);
      return [key, result ? 'Yes' : 'No'];
    }
    default:
      return negotiateNumber(key, value, rule, parameters);
  }
}

function negotiateNumber(
  key: string,
  value: string,
  rule: Extract<Rule, { low: number }>,
  parameters: SessionParameters,
): KeyPair | null {
  const theirs = parseNumber(value);
  if (theirs === null || theirs < rule.low || theirs > rule.high) return [key, 'Reject'];
  if (rule.kind === 'declared') {
    rule.set(parameters, theirs);
    return null;
  }
  const result = rule.kind === 'minimum' ? Math.min(theirs, rule.ours) : Math.max(theirs, rule.ours);
  rule.set?.(parameters, result);
  return [key, String(result)];
}

/** Makes the parameters consistent once all keys are in: FirstBurstLength never exceeds MaxBurstLength (§13.14). */
export function settleParameters(parameters: SessionParameters): void {
  parameters.firstBurstBytes = Math.min(parameters.firstBurstBytes, parameters.maxBurstBytes);
}
