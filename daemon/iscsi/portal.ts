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
import { LoginStatus, throttledReason } from './login.ts';
import { type LoginAttempt, LoginGuard, sourceOf } from './login-guard.ts';
import { type PortalSession, SessionTable, settleTimeoutMs } from './session-table.ts';
import type { TargetDirectory } from './target-directory.ts';

/** Connections at once, logged in or not; one at rest costs some 40 KiB. */
const defaultMaxConnections = 4096;
/** Of one source: a host with a thousand volumes on two paths, and what is closing. */
const defaultMaxConnectionsPerSource = 2560;
/** Connections that have not logged in; a fabric's hosts coming back at once fit, a flood does not. */
const defaultMaxLogins = 256;
/** Of one source, so that a flood from one leaves others theirs. */
const defaultMaxLoginsPerSource = 128;
/** Between two log lines about connections refused. */
const reportIntervalMs = 10_000;

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
  maxConnectionsPerSource?: number;
  maxLogins?: number;
  maxLoginsPerSource?: number;
  /** Data-in on its way to all initiators together, in bytes. */
  maxDataInMemoryBytes?: number;
  /** Data-out buffers of all connections together, in bytes. */
  maxTransferMemoryBytes?: number;
}

export interface ListenAddress {
  host: string;
  /** 0: any free one. */
  port: number;
}

export class Portal {
  readonly guard: LoginGuard;
  private readonly environment: PortalEnvironment;
  private readonly times: ConnectionTimes;
  private readonly table: SessionTable;
  private readonly connections = new Set<TargetConnection>();
  /** In the order of their portal group tags. */
  private readonly listeners: Listener[] = [];
  private isClosing = false;
  /** Connections refused since that was logged last. */
  private unreported = 0;
  private reportedMs = Number.NEGATIVE_INFINITY;

  private constructor(environment: PortalEnvironment) {
    this.environment = environment;
    this.guard = environment.guard ?? new LoginGuard(environment.clock);
    this.times = { ...defaultTimes, ...environment.times };
    const { clock, directory, maxTransferMemoryBytes, maxDataInMemoryBytes } = environment;
    const changed = () => this.changed();
    this.table = new SessionTable({
      clock,
      directory,
      maxTransferMemoryBytes,
      maxDataInMemoryBytes,
      changed,
    });
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
    return this.table.transferMemoryBytes;
  }

  get connectionCount(): number {
    return this.connections.size;
  }

  /** See `SessionTable.list`. */
  sessions(iqn?: string): PortalSession[] {
    return this.table.list(iqn);
  }

  /**
   * Ends the sessions of a target, or those one initiator has with it. Resolves with their number once none of their
   * commands runs any more. With `graceMs` initiators are asked to log out and have that long to do so: for a target
   * that goes away, not for an initiator that is fenced off.
   */
  dropSessions(iqn: string, initiator?: string, graceMs = 0): Promise<number> {
    return this.table.drop(iqn, initiator, graceMs);
  }

  /**
   * Ends the tasks of a preempted nexus with a logical unit (SPC-4 5.13.11.2.6), which are answered TASK ABORTED;
   * `done` is called when none of them has effects any more.
   */
  abortTasks(iqn: string, nexus: string, lun: Buffer, done: () => void): void {
    this.table.abortTasks(iqn, nexus, lun, done);
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
    await this.until(() => this.connections.size === 0 && this.table.isIdle, settleTimeoutMs);
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
    const limit = this.isClosing ? 'the daemon ends' : this.limitReached(sourceOf(wire.remoteAddress));
    if (limit !== null) {
      this.refused(wire, limit);
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
      startSession: (of, result, statSn, done) => {
        if (!this.isClosing) this.table.start(of, portalGroupTag, result, statSn, done);
        else done({ status: LoginStatus.serviceUnavailable, reason: 'the daemon ends' });
      },
      loggedIn: (of) => this.loggedIn(of),
      loginRefused: (attempt, status, reason) => this.loginRefused(attempt, status, reason),
      closed: (of, reason) => this.connectionClosed(of, reason),
    });
    this.connections.add(connection);
    return connection;
  }

  /** Which limit one more connection from there would break, or null. */
  private limitReached(source: string): string | null {
    const {
      maxConnections = defaultMaxConnections,
      maxConnectionsPerSource = defaultMaxConnectionsPerSource,
      maxLogins = defaultMaxLogins,
      maxLoginsPerSource = defaultMaxLoginsPerSource,
    } = this.environment;
    if (this.connections.size >= maxConnections) return 'too many connections';
    if (this.guard.isShut(source)) return throttledReason;
    const lowest = Math.min(maxConnectionsPerSource, maxLogins, maxLoginsPerSource);
    if (this.connections.size < lowest) return null;
    const count = { logins: 0, ofSource: 0, loginsOfSource: 0 };
    for (const { isLoggedIn, source: other } of this.connections) {
      if (!isLoggedIn) count.logins += 1;
      if (other !== source) continue;
      count.ofSource += 1;
      if (!isLoggedIn) count.loginsOfSource += 1;
    }
    if (count.ofSource >= maxConnectionsPerSource) return 'too many connections from this address';
    if (count.logins >= maxLogins) return 'too many connections that have not logged in';
    if (count.loginsOfSource >= maxLoginsPerSource)
      return 'too many connections from this address that have not logged in';
    return null;
  }

  private refused({ remoteAddress: address }: Connection, reason: string): void {
    this.unreported += 1;
    const nowMs = this.environment.clock.monotonicMs();
    if (nowMs - this.reportedMs < reportIntervalMs) return;
    this.reportedMs = nowMs;
    const connections = this.unreported;
    this.unreported = 0;
    this.environment.log?.warn({ address, reason, connections }, 'iSCSI connections refused');
  }

  private loginRefused(attempt: LoginAttempt, status: number, reason: string): void {
    const { guard, environment } = this;
    const facts = { ...attempt, status: status.toString(16).padStart(4, '0'), reason };
    if (status < LoginStatus.initiatorError) {
      environment.log?.info(facts, 'iSCSI initiator sent on');
      return;
    }
    const logins = guard.refused(attempt, reason, reason === throttledReason);
    if (logins > 0) environment.log?.warn({ ...facts, logins }, 'iSCSI login refused');
  }

  private loggedIn(connection: TargetConnection): void {
    this.guard.counts.succeeded += 1;
    const isResumed = this.table.loggedIn(connection.session!, connection);
    const what = isResumed ? 'iSCSI session goes on with another connection' : 'iSCSI initiator logged in';
    this.environment.log?.info(factsOf(connection), what);
  }

  private connectionClosed(connection: TargetConnection, reason: string): void {
    this.connections.delete(connection);
    this.table.connectionClosed(connection);
    if (connection.session !== null) {
      this.environment.log?.info({ ...factsOf(connection), reason }, 'iSCSI session ended');
    }
    this.changed();
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
