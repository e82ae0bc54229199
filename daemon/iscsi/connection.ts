/**
 * One connection of an initiator, from its first byte to its last.
 *
 *   login ──final login request──> starting ──session made──> full feature
 *     │                               │                           │
 *     └──refused, timed out───────────┴──refused──────────────────┴──logout, violation, silence──> closing ──> closed
 *
 * `closing` sends what is in the outbox and takes nothing more.
 */

import { KiB, MiB } from '../base/limits.ts';
import type { Clock, Timer } from '../env/clock.ts';
import type { Connection, Receiver } from '../env/network.ts';
import type { Random } from '../env/random.ts';
import {
  Login,
  type LoginOutcome,
  type LoginReply,
  type LoginResult,
  LoginStatus,
  throttledReason,
} from './login.ts';
import { type LoginAttempt, type LoginGuard, sourceOf } from './login-guard.ts';
import { targetMaxDataBytes } from './negotiation.ts';
import { Outbox } from './outbox.ts';
import {
  decodeLoginRequest,
  encodeLoginResponse,
  type LoginRequestPdu,
  type Numbers,
  Opcode,
  opcodeOf,
  RejectReason,
} from './pdu.ts';
import { PduReader, type PduSink, type Violation } from './pdu-reader.ts';
import type { Session, SessionConnection } from './session.ts';
import type { TargetDirectory } from './target-directory.ts';

/** §13.12: what either side takes before anything is negotiated. */
const loginMaxDataBytes = 8 * KiB;
/** Answers not taken by the initiator, in bytes, at which nothing more is read from it, and is again. */
const unsentPauseBytes = 16 * MiB;
const unsentResumeBytes = 4 * MiB;
const firstStatSn = 1;

export interface ConnectionTimes {
  /** A login takes a few round trips. */
  loginTimeoutMs: number;
  /** After that much silence the initiator is asked for a sign of life. */
  pingIntervalMs: number;
  /** An initiator that stays silent so long after a ping is dead. */
  pingTimeoutMs: number;
  /** A PDU that has begun and data that was asked for come within that, however slowly. */
  stallTimeoutMs: number;
}

export const defaultTimes: ConnectionTimes = {
  loginTimeoutMs: 15_000,
  pingIntervalMs: 15_000,
  pingTimeoutMs: 20_000,
  stallTimeoutMs: 60_000,
};

export type StartedSession = { session: Session } | { status: number; reason: string };

export interface ConnectionEnvironment {
  readonly clock: Clock;
  readonly random: Random;
  readonly directory: TargetDirectory;
  readonly times: ConnectionTimes;
  readonly guard: LoginGuard;
  /** Of the portal it came in at. */
  readonly portalGroupTag: number;
  /** Makes the session of a finished login; calls back, perhaps later, with it or with the status of a refusal. */
  startSession(
    connection: TargetConnection,
    result: LoginResult,
    firstStatSn: number,
    done: (started: StartedSession) => void,
  ): void;
  loggedIn(connection: TargetConnection): void;
  loginRefused(attempt: LoginAttempt, status: number, reason: string): void;
  closed(connection: TargetConnection, reason: string): void;
}

export class TargetConnection implements Receiver, PduSink, SessionConnection {
  readonly outbox: Outbox;
  readonly wire: Connection;
  /** Who is behind its address, for limits. */
  readonly source: string;
  session: Session | null = null;
  /** What the initiator calls it by within the session (§4.4.3). */
  cid = 0;
  private readonly environment: ConnectionEnvironment;
  private readonly reader: PduReader;
  /** Null once it is over: it holds all that was said. */
  private login: Login | null;
  private phase: 'login' | 'starting' | 'full' | 'closing' | 'closed' = 'login';
  private timer: Timer | null = null;
  /** PDUs have come, or the initiator has taken something of what it was sent, since the last look. */
  private hasHeard = false;
  /** Looks in a row at which a PDU was on its way and none had come. */
  private stalledLooks = 0;
  private isPaused = false;
  private statSn = firstStatSn;
  private reason = 'the initiator closed the connection';

  constructor(wire: Connection, environment: ConnectionEnvironment) {
    this.wire = wire;
    this.source = sourceOf(wire.remoteAddress);
    this.environment = environment;
    this.outbox = new Outbox(wire, () => this.sent());
    this.reader = new PduReader(this, {
      headerDigest: false,
      dataDigest: false,
      maxDataBytes: loginMaxDataBytes,
    });
    const { directory, random, guard, portalGroupTag } = environment;
    this.login = new Login({ directory, random, guard, portalGroupTag, address: wire.remoteAddress });
    this.timer = environment.clock.after(environment.times.loginTimeoutMs, () => {
      // One that has been proved waits for the session it replaces.
      if (this.phase === 'login') this.failLogin('the login took too long');
      else this.disconnect('the session it replaces did not end in time');
    });
  }

  get isLoggedIn(): boolean {
    return this.phase === 'full';
  }

  // Receiver

  room(): Buffer {
    return this.reader.room();
  }

  filled(bytes: number): void {
    this.reader.filled(bytes);
    if (this.outbox.unsentBytes > unsentPauseBytes && !this.isPaused) {
      this.isPaused = true;
      this.wire.pause();
    }
  }

  closed(): void {
    if (this.phase === 'closed') return;
    this.phase = 'closed';
    this.timer?.cancel();
    this.reader.stop();
    this.session?.close();
    this.outbox.dispose();
    this.environment.closed(this, this.reason);
  }

  private sent(): void {
    // Of what waits, the initiator has taken some. A ping that has left proves nothing.
    if (this.outbox.unsentBytes > 0) this.hasHeard = true;
    if (!this.isPaused || this.outbox.unsentBytes > unsentResumeBytes) return;
    this.isPaused = false;
    this.wire.resume();
  }

  get landedBytes(): number {
    return this.reader.landedBytes;
  }

  // PduSink

  place(bhs: Buffer, lengthBytes: number): Buffer | null {
    return this.phase === 'full' ? this.session!.place(bhs, lengthBytes) : null;
  }

  pdu(bhs: Buffer, data: Buffer, placed: boolean): void {
    this.hasHeard = true;
    this.stalledLooks = 0;
    switch (this.phase) {
      case 'full':
        this.session!.take(bhs, data, placed);
        return;
      case 'login':
        if (opcodeOf(bhs) === Opcode.login) this.takeLogin(decodeLoginRequest(bhs), data);
        else this.failLogin('something else than a login request before the login');
        return;
      case 'starting':
        this.failLogin('a request before the login was answered');
        return;
      default:
    }
  }

  damaged(bhs: Buffer): void {
    // Error recovery level 0 has no retransmission: the initiator starts over (§7.8).
    if (this.phase === 'full') this.session!.reject(bhs, RejectReason.dataDigest);
    this.disconnect('a data digest was wrong');
  }

  violated(violation: Violation): void {
    const reason = violation === 'header digest' ? 'a header digest was wrong' : violation;
    if (this.phase === 'login' || this.phase === 'starting') this.failLogin(reason);
    else this.disconnect(reason);
  }

  // Login

  private takeLogin(request: LoginRequestPdu, data: Buffer): void {
    const outcome: LoginOutcome = this.login!.next(request, data);
    switch (outcome.kind) {
      case 'continue':
        this.answerLogin(request, outcome.reply, 0);
        return;
      case 'refuse':
        this.refuseLogin(request, outcome.status, outcome.reason, outcome.text);
        return;
      case 'complete':
        this.phase = 'starting';
        this.start(request, outcome.reply, outcome.result);
    }
  }

  private start(request: LoginRequestPdu, reply: LoginReply, result: LoginResult): void {
    // The answer to this request takes one StatSN more before the session's first.
    this.cid = result.cid;
    this.environment.startSession(this, result, this.statSn + 1, (started) => {
      if (this.phase !== 'starting') {
        // The initiator did not wait for it.
        if ('session' in started) started.session.close();
        return;
      }
      if ('status' in started) {
        this.refuseLogin(request, started.status, started.reason);
        return;
      }
      const refusal = this.login!.refusal();
      if (refusal !== null) {
        started.session.close();
        this.refuseLogin(request, refusal.status, refusal.reason, refusal.text);
        return;
      }
      this.answerLogin(request, reply, started.session.identity.tsih);
      const { headerDigest, dataDigest } = result.parameters;
      this.outbox.headerDigest = headerDigest;
      this.outbox.dataDigest = dataDigest;
      this.reader.settings = { headerDigest, dataDigest, maxDataBytes: targetMaxDataBytes };
      this.session = started.session;
      this.phase = 'full';
      this.login = null;
      this.timer?.cancel();
      this.watch();
      this.environment.loggedIn(this);
    });
  }

  private answerLogin(request: LoginRequestPdu, reply: LoginReply, tsih: number): void {
    const header = this.outbox.header();
    encodeLoginResponse(this.outbox.slab, header, request, this.loginNumbers(request), {
      transit: reply.transit,
      stage: reply.stage,
      nextStage: reply.nextStage,
      tsih,
      status: LoginStatus.success,
    });
    if (reply.text.length > 0) this.outbox.end(header, reply.text, null);
    else this.outbox.endEmpty(header);
  }

  private refuseLogin(request: LoginRequestPdu, status: number, reason: string, text?: Buffer): void {
    const header = this.outbox.header();
    encodeLoginResponse(this.outbox.slab, header, request, this.loginNumbers(request), {
      transit: false,
      stage: request.currentStage,
      nextStage: 0,
      tsih: 0,
      status,
    });
    if (text === undefined) this.outbox.endEmpty(header);
    else this.outbox.end(header, text, null);
    this.environment.loginRefused(this.login!.attempt, status, reason);
    this.disconnect(`the login was refused: ${reason}`);
  }

  /** Ends a login that cannot be answered. */
  private failLogin(reason: string): void {
    const { attempt } = this.login!;
    const isTold = this.environment.guard.malformed(attempt);
    this.environment.loginRefused(attempt, LoginStatus.invalidDuringLogin, isTold ? reason : throttledReason);
    this.disconnect(reason);
  }

  private loginNumbers(request: LoginRequestPdu): Numbers {
    const numbers = { statSn: this.statSn, expCmdSn: request.cmdSn, maxCmdSn: request.cmdSn };
    this.statSn += 1;
    return numbers;
  }

  // Life and end

  /** Looks every now and then whether the initiator still lives (§11.19) and gets on. */
  private watch(): void {
    const { clock, times } = this.environment;
    this.hasHeard = false;
    this.timer = clock.after(times.pingIntervalMs, () => {
      if (this.isStalled()) {
        this.disconnect('the initiator does not send what it has begun');
      } else if (this.hasHeard || this.isMidPdu) {
        this.watch();
      } else {
        this.ping();
      }
    });
  }

  private ping(): void {
    const { clock, times } = this.environment;
    // Discovery ends by itself; who asks for targets need not know of pings.
    if (this.session?.identity.target !== null) this.session?.ping();
    this.timer = clock.after(times.pingTimeoutMs, () => {
      if (this.hasHeard || this.isMidPdu) {
        this.watch();
      } else {
        this.reason = 'the initiator does not answer';
        this.destroy();
      }
    });
  }

  /** The rest of a PDU is to come, and not for us to take first. */
  private get isMidPdu(): boolean {
    return this.reader.isWithinPdu && !this.isPaused;
  }

  /** A PDU on its way, or data that was asked for, has not come for too long. */
  private isStalled(): boolean {
    const { pingIntervalMs, stallTimeoutMs } = this.environment.times;
    const looks = Math.ceil(stallTimeoutMs / pingIntervalMs);
    this.stalledLooks = this.isMidPdu ? this.stalledLooks + 1 : 0;
    return this.stalledLooks > looks || this.session?.tick(looks) === true;
  }

  /** The session goes on with another connection; this one ends. */
  release(reason: string): void {
    this.session = null;
    this.disconnect(reason);
  }

  /** Sends what there is to send and closes. */
  disconnect(reason: string): void {
    if (this.phase === 'closing' || this.phase === 'closed') return;
    this.phase = 'closing';
    this.reason = reason;
    this.timer?.cancel();
    this.reader.stop();
    this.session?.close();
    this.outbox.flush();
    this.wire.end();
  }

  /** Closes at once. */
  destroy(): void {
    this.wire.destroy();
  }
}
