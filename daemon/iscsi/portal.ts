/**
 * The addresses initiators reach the node at: accepts connections within limits, keeps the sessions, and ends them.
 *
 * Each listening address is one target port: its position, from 1, is its portal group tag (a session has one
 * connection, so no group needs more than one address) and its relative target port identifier (SPC-4 7.8.6.2.4).
 */
import type { Clock } from '../env/clock.ts';
import type { Connection, Listener, Network, Receiver } from '../env/network.ts';
import type { Random } from '../env/random.ts';
import { type ConnectionTimes, defaultTimes, TargetConnection } from './connection.ts';
import { type LoginResult, LoginStatus, throttledReason } from './login.ts';
import { type LoginAttempt, LoginGuard } from './login-guard.ts';
import { Session, type SessionIdentity } from './session.ts';
import type { TargetDirectory } from './target-directory.ts';
import { TextExchange } from './text.ts';
import { TransferBuffers } from './transfer-buffers.ts';

/** Connections at once, logged in or not; each costs a slab of 272 KiB once it is used. */
const defaultMaxConnections = 1024;
/** Connections that have not logged in; a fabric's hosts coming back at once fit, a flood does not. */
const defaultMaxLogins = 256;
/** How long a login waits for the commands of the session it replaces, and `close` for those that run, in ms. */
const settleTimeoutMs = 30_000;

export interface PortalEnvironment {
  network: Network;
  clock: Clock;
  random: Random;
  directory: TargetDirectory;
  /** pino fits. */
  log?: {
    info(facts: object, message: string): void;
    warn(facts: object, message: string): void;
  };
  /** Absent: one of its own. */
  guard?: LoginGuard;
  times?: Partial<ConnectionTimes>;
  maxConnections?: number;
  maxLogins?: number;
  /** Data-out buffers of all connections together, in bytes. */
  maxTransferMemoryBytes?: number;
}

/** An initiator logged in now. */
export interface PortalSession {
  iqn: string;
  initiator: string;
  /** `address:port` it comes from. */
  address: string;
  sinceMs: number;
}

export interface ListenAddress {
  host: string;
  /** 0: any free one. */
  port: number;
}

interface Entry {
  session: Session;
  connection: TargetConnection;
  sinceMs: number;
}

export class Portal {
  readonly guard: LoginGuard;
  private readonly environment: PortalEnvironment;
  private readonly times: ConnectionTimes;
  private readonly pool: TransferBuffers;
  private readonly connections = new Set<TargetConnection>();
  private readonly entries = new Set<Entry>();
  /** Sessions whose last commands still run, and live ones: what a new login has to wait for, by nexus and target. */
  private readonly byNexus = new Map<string, Session>();
  /** In the order of their portal group tags. */
  private readonly listeners: Listener[] = [];
  private nextTsih = 1;
  private isClosing = false;

  private constructor(environment: PortalEnvironment) {
    this.environment = environment;
    this.guard = environment.guard ?? new LoginGuard(environment.clock);
    this.times = { ...defaultTimes, ...environment.times };
    this.pool = new TransferBuffers(environment.maxTransferMemoryBytes);
  }

  /** Listens; fails with UNAVAILABLE when an address cannot be had. */
  static async open(environment: PortalEnvironment, addresses: readonly ListenAddress[]): Promise<Portal> {
    const portal = new Portal(environment);
    try {
      for (const [index, { host, port }] of addresses.entries()) {
        const accept = (connection: Connection) => portal.accept(connection, index + 1);
        portal.listeners.push(await environment.network.listen(host, port, accept));
      }
    } catch (error) {
      await portal.close({ drainMs: 0 });
      throw error;
    }
    return portal;
  }

  /** Where it listens, in the order of the portal group tags. */
  get listensAt(): ListenAddress[] {
    return this.listeners.map(({ host, port }) => ({ host, port }));
  }

  /** The relative target port identifiers, which are the portal group tags. */
  targetPorts(): number[] {
    return this.listeners.map((_, index) => index + 1);
  }

  /** Data-out buffers in use, in bytes. */
  get transferMemoryBytes(): number {
    return this.pool.usedBytes;
  }

  get connectionCount(): number {
    return this.connections.size;
  }

  /** Who is logged in, to one target or to all. Discovery sessions are not listed. */
  sessions(iqn?: string): PortalSession[] {
    const listed: PortalSession[] = [];
    for (const { session, connection, sinceMs } of this.entries) {
      const target = session.identity.target;
      if (target === null || !connection.isLoggedIn || (iqn !== undefined && target.iqn !== iqn)) continue;
      const { initiatorName } = session.identity;
      listed.push({
        iqn: target.iqn,
        initiator: initiatorName,
        address: connection.wire.remoteAddress,
        sinceMs,
      });
    }
    return listed;
  }

  /**
   * Ends the sessions of a target, or those one initiator has with it. Resolves with their number once none of their
   * commands runs any more.
   */
  async dropSessions(iqn: string, initiator?: string): Promise<number> {
    const dropped: Promise<void>[] = [];
    for (const { session, connection } of [...this.entries]) {
      const { target, initiatorName } = session.identity;
      if (target?.iqn !== iqn || (initiator !== undefined && initiatorName !== initiator)) continue;
      connection.disconnect('the session was dropped');
      dropped.push(new Promise((resolve) => session.whenIdle(resolve)));
    }
    await Promise.all(dropped);
    return dropped.length;
  }

  /**
   * Takes no more connections, asks the initiators to log out, and ends what is left after `drainMs`. Resolves when
   * every connection is closed and no command runs, or, for those, after a time limit.
   */
  async close(options: { drainMs: number }): Promise<void> {
    this.isClosing = true;
    const listenersClosed = Promise.all(this.listeners.map((listener) => listener.close()));
    for (const connection of this.connections) {
      const isNormal = connection.session !== null && connection.session.identity.target !== null;
      if (!isNormal || options.drainMs === 0) connection.disconnect('the daemon ends');
      else connection.session!.requestLogout(Math.ceil(options.drainMs / 1000));
    }
    await this.until(() => this.connections.size === 0, options.drainMs);
    for (const connection of [...this.connections]) connection.disconnect('the daemon ends');
    await this.until(() => this.connections.size === 0 && this.byNexus.size === 0, settleTimeoutMs);
    for (const connection of [...this.connections]) connection.destroy();
    await listenersClosed;
  }

  private readonly waiting = new Set<() => void>();

  private until(holds: () => boolean, limitMs: number): Promise<void> {
    return new Promise((resolve) => {
      if (holds()) {
        resolve();
        return;
      }
      const end = () => {
        this.waiting.delete(look);
        timer.cancel();
        resolve();
      };
      const look = () => {
        if (holds()) end();
      };
      const timer = this.environment.clock.after(limitMs, end);
      this.waiting.add(look);
    });
  }

  private changed(): void {
    for (const look of [...this.waiting]) look();
  }

  private accept(wire: Connection, portalGroupTag: number): Receiver | null {
    const { maxConnections = defaultMaxConnections, maxLogins = defaultMaxLogins } = this.environment;
    let logins = 0;
    if (this.connections.size >= maxLogins) {
      for (const connection of this.connections) if (!connection.isLoggedIn) logins += 1;
    }
    if (this.isClosing || this.connections.size >= maxConnections || logins >= maxLogins) {
      this.environment.log?.warn({ address: wire.remoteAddress }, 'iSCSI connection refused: too many');
      return null;
    }
    const { clock, random, directory } = this.environment;
    const connection = new TargetConnection(wire, {
      clock,
      random,
      directory,
      times: this.times,
      guard: this.guard,
      portalGroupTag,
      startSession: (of, result, statSn, done) => this.startSession(of, portalGroupTag, result, statSn, done),
      loggedIn: (of) => this.loggedIn(of),
      loginRefused: (attempt, status, reason) => this.loginRefused(attempt, status, reason),
      closed: (of, reason) => this.connectionClosed(of, reason),
    });
    this.connections.add(connection);
    return connection;
  }

  private startSession(
    connection: TargetConnection,
    portalGroupTag: number,
    result: LoginResult,
    statSn: number,
    done: (started: { session: Session; tsih: number } | { status: number; reason: string }) => void,
  ): void {
    if (this.isClosing) {
      done({ status: LoginStatus.serviceUnavailable, reason: 'the daemon ends' });
      return;
    }
    const { initiatorName, isid, target } = result;
    const nexus = `${initiatorName},i,0x${isid},t,0x${portalGroupTag.toString(16).padStart(4, '0')}`;
    const identity = { initiatorName, isid, nexus, portalGroupTag, target };
    const key = target === null ? null : `${nexus}>${target.iqn}`;
    const make = () => {
      const session = this.makeSession(connection, identity, result, statSn);
      if (key !== null) {
        this.byNexus.set(key, session);
        session.whenIdle(() => {
          if (this.byNexus.get(key) === session) this.byNexus.delete(key);
          this.changed();
        });
      }
      done({ session, tsih: this.takeTsih() });
    };
    const attempt = () => {
      const older = key === null ? undefined : this.byNexus.get(key);
      if (older === undefined) make();
      else this.replace(older, attempt, done);
    };
    attempt();
  }

  /** Session reinstatement (§6.3.5): the old session ends, and its commands too, before the new one begins. */
  private replace(
    older: Session,
    go: () => void,
    done: (refusal: { status: number; reason: string }) => void,
  ): void {
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
    older.environment.disconnect('the initiator logged in anew');
  }

  private makeSession(
    connection: TargetConnection,
    identity: SessionIdentity,
    { parameters, cmdSn }: LoginResult,
    statSn: number,
  ): Session {
    const { target, initiatorName, portalGroupTag } = identity;
    const text = new TextExchange(
      this.environment.directory,
      parameters,
      initiatorName,
      target?.iqn ?? null,
      { address: connection.wire.localAddress, groupTag: portalGroupTag },
    );
    const environment = {
      outbox: connection.outbox,
      pool: this.pool,
      peers: () => this.peersOf(target?.iqn),
      disconnect: (reason: string) => connection.disconnect(reason),
      disconnectPeers: (reason: string) => {
        for (const entry of [...this.entries]) {
          if (entry.session.identity.target?.iqn === target?.iqn) entry.connection.disconnect(reason);
        }
      },
    };
    return new Session(identity, parameters, environment, text, { statSn, cmdSn });
  }

  private *peersOf(iqn: string | undefined): Iterable<Session> {
    // Also those that are closed and have commands running yet.
    for (const session of this.byNexus.values()) if (session.identity.target?.iqn === iqn) yield session;
  }

  private loginRefused(attempt: LoginAttempt, status: number, reason: string): void {
    const { guard, environment } = this;
    const facts = { ...attempt, status: status.toString(16).padStart(4, '0'), reason };
    if (reason !== throttledReason) {
      guard.remember(attempt, reason);
      environment.log?.warn(facts, 'iSCSI login refused');
      return;
    }
    const logins = guard.throttled();
    if (logins > 0) environment.log?.warn({ ...facts, logins }, 'iSCSI logins refused: too many have failed');
  }

  private loggedIn(connection: TargetConnection): void {
    this.guard.counts.succeeded += 1;
    const session = connection.session!;
    this.entries.add({ session, connection, sinceMs: this.environment.clock.nowMs() });
    this.environment.log?.info(factsOf(connection), 'iSCSI initiator logged in');
  }

  private connectionClosed(connection: TargetConnection, reason: string): void {
    this.connections.delete(connection);
    for (const entry of this.entries) if (entry.connection === connection) this.entries.delete(entry);
    if (connection.session !== null) {
      this.environment.log?.info({ ...factsOf(connection), reason }, 'iSCSI session ended');
    }
    this.changed();
  }

  /** §4.4.3.1: not zero, and not one in use; one that comes around after 65,535 logins is not in use any more. */
  private takeTsih(): number {
    const tsih = this.nextTsih;
    this.nextTsih = tsih === 0xffff ? 1 : tsih + 1;
    return tsih;
  }
}

function factsOf(connection: TargetConnection): object {
  const identity = connection.session!.identity;
  return {
    address: connection.wire.remoteAddress,
    initiator: identity.initiatorName,
    iqn: identity.target?.iqn ?? 'discovery',
  };
}
