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
import { Login, type LoginOutcome, type LoginReply, type LoginResult, LoginStatus } from './login.ts';
import type { LoginAttempt, LoginGuard } from './login-guard.ts';
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
import type { Session } from './session.ts';
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
}

export const defaultTimes: ConnectionTimes = {
  loginTimeoutMs: 15_000,
  pingIntervalMs: 15_000,
  pingTimeoutMs: 20_000,
};

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
    done: (started: { session: Session; tsih: number } | { status: number; reason: string }) => void,
  ): void;
  loggedIn(connection: TargetConnection): void;
  loginRefused(attempt: LoginAttempt, status: number, reason: string): void;
  closed(connection: TargetConnection, reason: string): void;
}

export class TargetConnection implements Receiver, PduSink {
  readonly outbox: Outbox;
  readonly wire: Connection;
  session: Session | null = null;
  private readonly environment: ConnectionEnvironment;
  private readonly reader: PduReader;
  private readonly login: Login;
  private phase: 'login' | 'starting' | 'full' | 'closing' | 'closed' = 'login';
  private timer: Timer | null = null;
  private hasHeard = false;
  private isPaused = false;
  private statSn = firstStatSn;
  private reason = 'the initiator closed the connection';

  constructor(wire: Connection, environment: ConnectionEnvironment) {
    this.wire = wire;
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
      this.disconnect('the login took too long');
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
    this.hasHeard = true;
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
    if (!this.isPaused || this.outbox.unsentBytes > unsentResumeBytes) return;
    this.isPaused = false;
    this.wire.resume();
  }

  // PduSink

  place(bhs: Buffer, lengthBytes: number): Buffer | null {
    return this.phase === 'full' ? this.session!.place(bhs, lengthBytes) : null;
  }

  pdu(bhs: Buffer, data: Buffer, placed: boolean): void {
    switch (this.phase) {
      case 'full':
        this.session!.take(bhs, data, placed);
        return;
      case 'login':
        if (opcodeOf(bhs) === Opcode.login) this.takeLogin(decodeLoginRequest(bhs), data);
        else this.disconnect('something else than a login request before the login');
        return;
      case 'starting':
        this.disconnect('a request before the login was answered');
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
    this.disconnect(violation === 'header digest' ? 'a header digest was wrong' : violation);
  }

  // Login

  private takeLogin(request: LoginRequestPdu, data: Buffer): void {
    const outcome: LoginOutcome = this.login.next(request, data);
    switch (outcome.kind) {
      case 'continue':
        this.answerLogin(request, outcome.reply, 0);
        return;
      case 'refuse':
        this.refuseLogin(request, outcome.status, outcome.reason);
        return;
      case 'complete':
        this.phase = 'starting';
        this.start(request, outcome.reply, outcome.result);
    }
  }

  private start(request: LoginRequestPdu, reply: LoginReply, result: LoginResult): void {
    // The answer to this request takes one StatSN more before the session's first.
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
      const refusal = this.login.refusal();
      if (refusal !== null) {
        started.session.close();
        this.refuseLogin(request, refusal.status, refusal.reason);
        return;
      }
      this.answerLogin(request, reply, started.tsih);
      const { headerDigest, dataDigest } = result.parameters;
      this.outbox.headerDigest = headerDigest;
      this.outbox.dataDigest = dataDigest;
      this.reader.settings = { headerDigest, dataDigest, maxDataBytes: targetMaxDataBytes };
      this.session = started.session;
      this.phase = 'full';
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

  private refuseLogin(request: LoginRequestPdu, status: number, reason: string): void {
    const header = this.outbox.header();
    encodeLoginResponse(this.outbox.slab, header, request, this.loginNumbers(request), {
      transit: false,
      stage: request.currentStage,
      nextStage: 0,
      tsih: 0,
      status,
    });
    this.outbox.endEmpty(header);
    this.environment.loginRefused(this.login.attempt, status, reason);
    this.disconnect(`the login was refused: ${reason}`);
  }

  private loginNumbers(request: LoginRequestPdu): Numbers {
    const numbers = { statSn: this.statSn, expCmdSn: request.cmdSn, maxCmdSn: request.cmdSn };
    this.statSn += 1;
    return numbers;
  }

  // Life and end

  /** Looks every now and then whether the initiator still lives (§11.19). */
  private watch(): void {
    const { clock, times } = this.environment;
    this.hasHeard = false;
    this.timer = clock.after(times.pingIntervalMs, () => {
      if (this.hasHeard) {
        this.watch();
        return;
      }
      this.session?.ping();
      this.timer = clock.after(times.pingTimeoutMs, () => {
        if (this.hasHeard) {
          this.watch();
        } else {
          this.reason = 'the initiator does not answer';
          this.destroy();
        }
      });
    });
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
