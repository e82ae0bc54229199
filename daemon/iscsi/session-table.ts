/**
 * The sessions of a node: begins them, hands their connections on, and ends them (RFC 7143 §6.3.1).
 *
 *   | session of that ISID at that portal | TSIH of the login | CID   | what happens                                |
 *   |-------------------------------------|-------------------|-------|---------------------------------------------|
 *   | none                                | 0                 | any   | a new session                               |
 *   | one                                 | 0                 | any   | it is ended, then a new one (reinstatement) |
 *   | one                                 | its own           | same  | it goes on with this connection (§6.3.4)    |
 *   | one                                 | its own           | other | refused: a session has one connection       |
 *   | any                                 | another           | any   | refused: no such session                    |
 */
import { MiB } from '../base/limits.ts';
import type { Clock } from '../env/clock.ts';
import { nexusName } from '../scsi/nexus-name.ts';
import type { StartedSession, TargetConnection } from './connection.ts';
import { type LoginResult, LoginStatus } from './login.ts';
import { MemoryBudget, MemoryShare } from './memory-budget.ts';
import { MemoryPressure } from './memory-pressure.ts';
import { Session, type SessionIdentity } from './session.ts';
import type { TargetDirectory } from './target-directory.ts';
import { preemptTasks } from './task-management.ts';
import { TextExchange } from './text.ts';
import { TransferBuffers } from './transfer-buffers.ts';

/** How long a login waits for the commands of the session it replaces, in ms. */
export const settleTimeoutMs = 30_000;
/** Sessions of one initiator name with one target: 16 portals with 8 each. */
const maxSessionsPerInitiator = 128;
/**
 * Data-in under way to all initiators together, in bytes; past it, each has one command at a time, and past twice as much
 * a long one gets TASK SET FULL.
 */
const dataInLimitBytes = 512 * MiB;

/** An initiator logged in now. */
export interface PortalSession {
  iqn: string;
  initiator: string;
  /** `address:port` it comes from. */
  address: string;
  sinceMs: number;
}

export interface SessionTableEnvironment {
  readonly clock: Clock;
  readonly directory: TargetDirectory;
  /** Data-out buffers of all sessions together, in bytes; 512 MiB when not given. */
  readonly maxTransferMemoryBytes: number | undefined;
  /** Data-in the same, 512 MiB when not given; see `dataInLimitBytes`. */
  readonly maxDataInMemoryBytes: number | undefined;
  /** The last command of a closed session has ended. */
  changed(): void;
}

interface Entry {
  session: Session;
  connection: TargetConnection;
  sinceMs: number;
}

type Started = (started: StartedSession) => void;

export class SessionTable {
  private readonly environment: SessionTableEnvironment;
  private readonly buffers: TransferBuffers;
  private readonly dataIn: MemoryBudget;
  private readonly pressure: MemoryPressure<Session>;
  /** Those logged in. */
  private readonly entries = new Map<Session, Entry>();
  /** Those, and sessions whose last commands still run: what a new login has to wait for, by nexus and target. */
  private readonly byNexus = new Map<string, Session>();
  private nextTsih = 1;

  constructor(environment: SessionTableEnvironment) {
    this.environment = environment;
    const { clock, maxTransferMemoryBytes, maxDataInMemoryBytes = dataInLimitBytes } = environment;
    this.dataIn = new MemoryBudget(maxDataInMemoryBytes);
    this.pressure = new MemoryPressure(
      clock,
      () => this.entries.keys(),
      (session) => this.endIdleHolder(session),
    );
    this.buffers = new TransferBuffers(clock, () => this.pressure.refused(), maxTransferMemoryBytes);
  }

  /** Data-out buffers in use, in bytes. */
  get transferMemoryBytes(): number {
    return this.buffers.usedBytes;
  }

  /** No session is logged in, and no command of an earlier one runs. */
  get isIdle(): boolean {
    return this.byNexus.size === 0;
  }

  /** Who is logged in, to one target or to all. Discovery sessions are not listed. */
  list(iqn?: string): PortalSession[] {
    const listed: PortalSession[] = [];
    for (const { session, connection, sinceMs } of this.entries.values()) {
      const { target, initiatorName: initiator } = session.identity;
      if (target === null || !connection.isLoggedIn || (iqn !== undefined && target.iqn !== iqn)) continue;
      listed.push({ iqn: target.iqn, initiator, address: connection.wire.remoteAddress, sinceMs });
    }
    return listed;
  }

  // Logins

  start(
    connection: TargetConnection,
    portalGroupTag: number,
    result: LoginResult,
    statSn: number,
    done: Started,
  ): void {
    const { initiatorName, isid, target } = result;
    const nexus = nexusName(`${initiatorName},i,0x${isid}`, portalGroupTag);
    const key = target === null ? null : keyOf(nexus, target.iqn);
    if (result.tsih !== 0) {
      this.resume(connection, key, result, statSn, done);
      return;
    }
    const attempt = () => {
      const older = key === null ? undefined : this.byNexus.get(key);
      if (older !== undefined) {
        this.replace(older, attempt, done);
        return;
      }
      if (this.isCrowded(result)) {
        const reason = `${maxSessionsPerInitiator} sessions of this initiator with the target`;
        done({ status: LoginStatus.outOfResources, reason });
        return;
      }
      const identity = { initiatorName, isid, tsih: this.takeTsih(), nexus, portalGroupTag, target };
      done({ session: this.make(connection, identity, key, result, statSn) });
    };
    attempt();
  }

  private isCrowded({ initiatorName, target }: LoginResult): boolean {
    if (target === null) return false;
    let count = 0;
    for (const { identity } of this.of(target.iqn)) if (identity.initiatorName === initiatorName) count += 1;
    return count >= maxSessionsPerInitiator;
  }

  /** Session reinstatement (§6.3.5): the old session ends, and its commands too, before the new one begins. */
  private replace(older: Session, go: () => void, done: Started): void {
    let isOver = false;
    const timer = this.environment.clock.after(settleTimeoutMs, () => {
      isOver = true;
      done({ status: LoginStatus.targetError, reason: 'commands of the session it replaces do not end' });
    });
    older.whenIdle(() => {
      if (isOver) return;
      timer.cancel();
      go();
    });
    older.disconnect('the initiator logged in anew');
  }

  /** Connection reinstatement (§6.3.4). */
  private resume(
    connection: TargetConnection,
    key: string | null,
    result: LoginResult,
    statSn: number,
    done: Started,
  ): void {
    const session = key === null ? undefined : this.byNexus.get(key);
    const entry = session === undefined ? undefined : this.entries.get(session);
    if (session === undefined || entry === undefined || session.identity.tsih !== result.tsih) {
      done({ status: LoginStatus.noSuchSession, reason: 'no such session' });
      return;
    }
    if (session.cid !== result.cid) {
      done({ status: LoginStatus.tooManyConnections, reason: 'a session has one connection' });
      return;
    }
    session.moveTo(connection, result.parameters, statSn, () => {
      entry.connection = connection;
      done({ session });
    });
  }

  private make(
    connection: TargetConnection,
    identity: SessionIdentity,
    key: string | null,
    { parameters, cmdSn }: LoginResult,
    statSn: number,
  ): Session {
    const { target, initiatorName, portalGroupTag } = identity;
    const { directory, changed } = this.environment;
    const text = new TextExchange(directory, parameters, initiatorName, target?.iqn ?? null, {
      address: connection.wire.localAddress,
      groupTag: portalGroupTag,
    });
    const { source } = connection;
    const environment = {
      buffers: this.buffers.share(source),
      dataIn: new MemoryShare(this.dataIn),
      refused: () => this.pressure.refused(),
      peers: () => this.of(target?.iqn),
      disconnectPeers: (reason: string) => {
        for (const peer of [...this.of(target?.iqn)]) peer.disconnect(reason);
      },
    };
    const numbers = { statSn, cmdSn };
    const session = new Session(identity, parameters, environment, connection, text, numbers);
    if (key !== null) this.byNexus.set(key, session);
    session.whenIdle(() => {
      this.buffers.leave(source);
      this.entries.delete(session);
      if (key !== null && this.byNexus.get(key) === session) this.byNexus.delete(key);
      changed();
    });
    return session;
  }

  /** Not zero, and not that of a session there is (§4.4.3). */
  private takeTsih(): number {
    const used = new Set<number>();
    for (const { identity } of this.byNexus.values()) used.add(identity.tsih);
    for (;;) {
      const tsih = this.nextTsih;
      this.nextTsih = tsih === 0xffff ? 1 : tsih + 1;
      if (!used.has(tsih)) return tsih;
    }
  }

  /** Whether the session was there before this connection. */
  loggedIn(session: Session, connection: TargetConnection): boolean {
    const isResumed = this.entries.has(session);
    if (!isResumed) {
      this.entries.set(session, { session, connection, sinceMs: this.environment.clock.nowMs() });
    }
    return isResumed;
  }

  connectionClosed(connection: TargetConnection): void {
    const { session } = connection;
    if (session !== null && this.entries.get(session)?.connection === connection)
      this.entries.delete(session);
  }

  // Ending

  /** Also those that are closed and have commands running yet. */
  private *of(iqn: string | undefined): Iterable<Session> {
    for (const session of this.byNexus.values()) if (session.identity.target?.iqn === iqn) yield session;
  }

  private endIdleHolder(session: Session): void {
    const source = this.entries.get(session)?.connection.source;
    if (source === undefined) return;
    this.buffers.curb(source);
    session.disconnect(
      'the initiator does not send or take what it has begun, and others wait for its memory',
    );
  }

  /**
   * Ends the sessions of a target, or those one initiator has with it. Resolves with their number once none of their
   * commands runs any more, nor of sessions whose connection was gone before. With `graceMs` initiators are asked to
   * log out and have that long to do so.
   */
  async drop(iqn: string, initiator: string | undefined, graceMs: number): Promise<number> {
    const idle: Promise<void>[] = [];
    let dropped = 0;
    for (const session of [...this.of(iqn)]) {
      if (initiator !== undefined && session.identity.initiatorName !== initiator) continue;
      idle.push(new Promise<void>((resolve) => session.whenIdle(resolve)));
      if (!this.entries.has(session)) continue;
      dropped += 1;
      const end = () => {
        session.announceEnd();
        session.disconnect('the session was dropped');
      };
      if (graceMs === 0) {
        end();
        continue;
      }
      session.requestLogout(Math.ceil(graceMs / 1000));
      const timer = this.environment.clock.after(graceMs, end);
      session.whenIdle(() => timer.cancel());
    }
    await Promise.all(idle);
    return dropped;
  }

  /** See `preemptTasks`; `nexus` as commands carry it. */
  abortTasks(iqn: string, nexus: string, lun: Buffer, done: () => void): void {
    const session = this.byNexus.get(keyOf(nexus, iqn));
    preemptTasks(session === undefined ? [] : [session], lun, 'task aborted', done);
  }
}

function keyOf(nexus: string, iqn: string): string {
  return `${nexus}>${iqn}`;
}
