/**
 * The login phase of one connection (RFC 7143 §6.3, §11.12): a function of requests to answers; time and sockets are
 * the connection's.
 *
 *   security (CSG 0) ──T──> operational (CSG 1) ──T──> full feature (3)
 *        └────────────────────────T────────────────────────┘
 *
 * A login may start at either stage; starting at the operational one forgoes authentication, which a target with CHAP
 * refuses.
 *
 * What a stranger learns: a target that does not list the initiator answers exactly as one that does not exist, before
 * anything is asked for or proved. Why somebody may not log in although listed (a claim) is told after the proof.
 */

import type { Random } from '../env/random.ts';
import { ChapExchange } from './chap.ts';
import { encodeKeyText, type KeyPair, maxTextBytes, parseKeyText } from './key-text.ts';
import type { LoginAttempt, LoginGuard } from './login-guard.ts';
import {
  defaultParameters,
  negotiateKey,
  type SessionParameters,
  settleParameters,
  targetMaxDataBytes,
} from './negotiation.ts';
import type { LoginRequestPdu } from './pdu.ts';
import type { MovedTarget, RequiredProof, TargetDirectory, TargetEntry } from './target-directory.ts';

/** Status-Class and Status-Detail, §11.13.5. */
export const LoginStatus = {
  success: 0x0000,
  movedTemporarily: 0x0101,
  movedPermanently: 0x0102,
  initiatorError: 0x0200,
  authenticationFailed: 0x0201,
  forbidden: 0x0202,
  targetNotFound: 0x0203,
  versionUnsupported: 0x0205,
  tooManyConnections: 0x0206,
  missingParameter: 0x0207,
  sessionTypeUnsupported: 0x0209,
  noSuchSession: 0x020a,
  invalidDuringLogin: 0x020b,
  targetError: 0x0300,
  serviceUnavailable: 0x0301,
  outOfResources: 0x0302,
} as const;

const stageSecurity = 0;
const stageOperational = 1;
const stageFullFeature = 3;

export const throttledReason = 'too many failed logins';

/** Requests in one login. CHAP and operational negotiation take four. */
const maxRequests = 32;
const namePattern = /^(iqn|eui|naa)\.[\x21-\x7e]{1,219}$/;

/** What a finished login makes of a connection. */
export interface LoginResult {
  initiatorName: string;
  isid: string;
  /** Of the session it belongs to; 0: a new one. */
  tsih: number;
  cid: number;
  cmdSn: number;
  /** Null in a discovery session. */
  target: TargetEntry | null;
  parameters: SessionParameters;
}

export interface LoginReply {
  transit: boolean;
  stage: number;
  nextStage: number;
  text: Buffer;
}

export interface LoginRefusal {
  kind: 'refuse';
  status: number;
  reason: string;
  /** Keys that go with the status. */
  text?: Buffer;
}

export type LoginOutcome =
  | { kind: 'continue'; reply: LoginReply }
  | { kind: 'complete'; reply: LoginReply; result: LoginResult }
  | LoginRefusal;

/** What a login takes part in. */
export interface LoginEnvironment {
  directory: TargetDirectory;
  random: Random;
  guard: LoginGuard;
  /** Of the portal it came in at (§13.9). */
  portalGroupTag: number;
  /** `address:port` it comes from. */
  address: string;
}

export class Login {
  private readonly environment: LoginEnvironment;
  private readonly parameters = defaultParameters();
  private readonly seenKeys = new Set<string>();
  private first: LoginRequestPdu | null = null;
  private stage = stageSecurity;
  private requests = 0;
  private text: Buffer = Buffer.alloc(0);
  private initiatorName = '';
  private targetName = '';
  private target: TargetEntry | null = null;
  private required: RequiredProof = { chap: null };
  private chap: ChapExchange | null = null;
  private method: 'none' | 'chap' | null = null;
  private hasDeclared = false;
  private hasTold = false;

  constructor(environment: LoginEnvironment) {
    this.environment = environment;
  }

  /** Who tries to log in where, as far as it has said. */
  get attempt(): LoginAttempt {
    const { initiatorName: initiator, targetName: target } = this;
    return { address: this.environment.address, initiator, target };
  }

  next(request: LoginRequestPdu, data: Buffer): LoginOutcome {
    const outcome = this.take(request, data);
    if (outcome.kind !== 'refuse' || !malformedStatuses.has(outcome.status)) return outcome;
    return this.environment.guard.malformed(this.attempt) ? outcome : throttled();
  }

  private take(request: LoginRequestPdu, data: Buffer): LoginOutcome {
    this.requests += 1;
    if (this.requests > maxRequests) return refuse(LoginStatus.initiatorError, 'too many login requests');
    const flaw = this.first === null ? this.checkFirst(request) : this.checkNext(request);
    if (flaw !== null) return flaw;
    if (this.text.length + data.length > maxTextBytes)
      return refuse(LoginStatus.initiatorError, 'text too long');
    this.text = Buffer.concat([this.text, data]);
    if (request.continued) {
      if (request.transit) return refuse(LoginStatus.initiatorError, 'T and C in one request');
      return this.reply(request, false, []);
    }
    const pairs = parseKeyText(this.text);
    this.text = Buffer.alloc(0);
    if (pairs === null) return refuse(LoginStatus.initiatorError, 'malformed text');
    return this.step(request, pairs);
  }

  private checkFirst(request: LoginRequestPdu): LoginOutcome | null {
    if (request.versionMin > 0) return refuse(LoginStatus.versionUnsupported, 'protocol version');
    if (request.currentStage > stageOperational) return refuse(LoginStatus.initiatorError, 'stage');
    this.first = request;
    this.stage = request.currentStage;
    return this.checkStage(request);
  }

  private checkNext(request: LoginRequestPdu): LoginOutcome | null {
    const first = this.first!;
    if (request.isid !== first.isid || request.tsih !== first.tsih || request.cid !== first.cid) {
      return refuse(LoginStatus.initiatorError, 'another session in the same login');
    }
    return this.checkStage(request);
  }

  private checkStage(request: LoginRequestPdu): LoginOutcome | null {
    if (request.currentStage !== this.stage) return refuse(LoginStatus.initiatorError, 'stage out of order');
    if (!request.transit) return null;
    const isForward = request.nextStage > request.currentStage && request.nextStage !== 2;
    return isForward ? null : refuse(LoginStatus.initiatorError, 'stage transition');
  }

  private step(request: LoginRequestPdu, pairs: KeyPair[]): LoginOutcome {
    const keys = new Map(pairs);
    for (const [key] of pairs) {
      if (this.seenKeys.has(key)) return refuse(LoginStatus.initiatorError, `${key} twice`);
      this.seenKeys.add(key);
    }
    const isFirst = this.initiatorName === '';
    if (isFirst) {
      const flaw = this.identify(keys);
      if (flaw !== null) return flaw;
    }
    const answers: KeyPair[] = [];
    if (isFirst && this.target !== null) {
      answers.push(['TargetPortalGroupTag', String(this.environment.portalGroupTag)]);
    }
    const flaw =
      this.stage === stageSecurity ? this.authenticate(request, keys, answers) : this.checkUnauthenticated();
    if (flaw !== null) return flaw;
    if (this.target?.alias !== undefined && !this.hasTold && this.isAuthenticated()) {
      // Not before: it is the volume's name.
      this.hasTold = true;
      answers.push(['TargetAlias', this.target.alias]);
    }
    for (const [key, value] of pairs) {
      if (identityKeys.has(key)) continue;
      const answer = negotiateKey(key, value, this.parameters, this.target === null);
      if (answer !== null) answers.push(answer);
    }
    if (this.stage === stageOperational && !this.hasDeclared) {
      this.hasDeclared = true;
      answers.push(['MaxRecvDataSegmentLength', String(targetMaxDataBytes)]);
    }
    const mayTransit = this.stage === stageOperational || this.isAuthenticated();
    return this.reply(request, request.transit && mayTransit, answers);
  }

  /** The keys of the leading request (§6.3): who logs in, and where. */
  private identify(keys: ReadonlyMap<string, string>): LoginRefusal | null {
    const initiatorName = keys.get('InitiatorName');
    if (initiatorName === undefined) return refuse(LoginStatus.missingParameter, 'InitiatorName is missing');
    if (!namePattern.test(initiatorName))
      return refuse(LoginStatus.initiatorError, 'malformed InitiatorName');
    // Names are compared in their normalized, lower-case form (§4.2.7.2).
    this.initiatorName = initiatorName.toLowerCase();
    const { directory, guard } = this.environment;
    const sessionType = keys.get('SessionType') ?? 'Normal';
    if (sessionType === 'Discovery') {
      this.required = directory.discovery ?? this.required;
      return guard.allows(this.attempt) ? null : throttled();
    }
    if (sessionType !== 'Normal') return refuse(LoginStatus.sessionTypeUnsupported, 'SessionType');
    const targetName = keys.get('TargetName');
    if (targetName === undefined) return refuse(LoginStatus.missingParameter, 'TargetName is missing');
    if (!namePattern.test(targetName)) return refuse(LoginStatus.initiatorError, 'malformed TargetName');
    this.targetName = targetName.toLowerCase();
    if (!guard.allows(this.attempt)) return throttled();
    const target = directory.find(this.targetName);
    if (!target?.lists(this.initiatorName)) {
      guard.failed(this.attempt);
      const reason = target === null ? 'no such target' : 'the initiator is not on the list of the target';
      return refuse(LoginStatus.targetNotFound, reason);
    }
    if ('moved' in target) return redirect(target);
    this.target = target;
    const { chap, mutualChap = null } = target;
    this.required = { chap, mutualChap };
    return null;
  }

  private authenticate(
    request: LoginRequestPdu,
    keys: ReadonlyMap<string, string>,
    answers: KeyPair[],
  ): LoginOutcome | null {
    const { guard, random } = this.environment;
    const credentials = this.required.chap;
    const offered = keys.get('AuthMethod');
    if (this.method === null && offered !== undefined) {
      const wanted = credentials === null ? 'None' : 'CHAP';
      if (!offered.split(',').includes(wanted)) {
        return this.failProof(`AuthMethod=${wanted} is needed`);
      }
      this.method = credentials === null ? 'none' : 'chap';
      answers.push(['AuthMethod', wanted]);
      if (credentials !== null) {
        this.chap = new ChapExchange(credentials, this.required.mutualChap ?? null, random);
      }
    }
    const chapKeys = [...keys.keys()].some((key) => key.startsWith('CHAP_'));
    if (this.chap !== null && chapKeys) {
      // Once more: many connections may have come this far at once.
      if (!guard.allows(this.attempt)) return throttled();
      const chapAnswers = this.chap.next(keys);
      if (chapAnswers === null) return this.failProof('CHAP failed');
      answers.push(...chapAnswers);
    } else if (credentials !== null && request.transit && this.method === null) {
      return this.failProof('CHAP is needed');
    }
    return null;
  }

  private checkUnauthenticated(): LoginRefusal | null {
    return this.isAuthenticated() ? null : this.failProof('CHAP is needed');
  }

  private isAuthenticated(): boolean {
    return this.required.chap === null || this.chap?.isDone === true;
  }

  private failProof(reason: string): LoginRefusal {
    this.environment.guard.failed(this.attempt);
    return refuse(LoginStatus.authenticationFailed, reason);
  }

  /**
   * Why a login that has proved itself may not go on now; null when it may. Asked again when the session begins:
   * credentials, lists and claims change while an initiator takes its time, or a session ends that it replaces.
   */
  refusal(): LoginRefusal | null {
    if (this.target === null) return null;
    const now = this.environment.directory.find(this.target.iqn);
    if (!now?.lists(this.initiatorName)) return refuse(LoginStatus.targetNotFound, 'the target went away');
    if ('moved' in now) return redirect(now);
    const proved = this.required.chap;
    const { chap } = now;
    if (chap !== null && (chap.user !== proved?.user || chap.secret !== proved.secret)) {
      return refuse(LoginStatus.authenticationFailed, 'the credentials were changed meanwhile');
    }
    const reason = now.admit(this.initiatorName);
    return reason === null ? null : refuse(LoginStatus.forbidden, reason);
  }

  private reply(request: LoginRequestPdu, transit: boolean, answers: readonly KeyPair[]): LoginOutcome {
    const reply: LoginReply = {
      transit,
      stage: this.stage,
      nextStage: transit ? request.nextStage : 0,
      text: encodeKeyText(answers),
    };
    if (!transit) return { kind: 'continue', reply };
    this.stage = request.nextStage;
    if (request.nextStage !== stageFullFeature) return { kind: 'continue', reply };
    this.environment.guard.succeeded(this.attempt);
    // Only who has proved itself learns why it may not log in.
    const refusal = this.refusal();
    if (refusal !== null) return refusal;
    settleParameters(this.parameters);
    const first = this.first!;
    const result: LoginResult = {
      initiatorName: this.initiatorName,
      isid: first.isid,
      tsih: first.tsih,
      cid: first.cid,
      cmdSn: first.cmdSn,
      target: this.target,
      parameters: this.parameters,
    };
    return { kind: 'complete', reply, result };
  }
}

/** Taken by `identify` and `authenticate`; everything else is negotiated. */
const identityKeys = new Set([
  'InitiatorName',
  'InitiatorAlias',
  'TargetName',
  'SessionType',
  'AuthMethod',
  'CHAP_A',
  'CHAP_I',
  'CHAP_C',
  'CHAP_N',
  'CHAP_R',
]);

/** Before any authentication, which is between the initiator and where it is sent to (§6.3.1). §13.8: without a tag. */
function redirect({ moved, address }: MovedTarget): LoginRefusal {
  const status = moved === 'temporarily' ? LoginStatus.movedTemporarily : LoginStatus.movedPermanently;
  const text = encodeKeyText([['TargetAddress', address]]);
  return { kind: 'refuse', status, reason: `moved to ${address}`, text };
}

/** What no proper initiator brings about. Guesses and names are counted where they are found. */
const malformedStatuses: ReadonlySet<number> = new Set([
  LoginStatus.initiatorError,
  LoginStatus.versionUnsupported,
  LoginStatus.missingParameter,
  LoginStatus.sessionTypeUnsupported,
]);

function refuse(status: number, reason: string): LoginRefusal {
  return { kind: 'refuse', status, reason };
}

/** An initiator tries again on this status, where it would give up on one that says what is wrong. */
function throttled(): LoginRefusal {
  return refuse(LoginStatus.serviceUnavailable, throttledReason);
}
