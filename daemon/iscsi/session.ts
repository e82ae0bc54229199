/**
 * The full-feature phase of a session with its one connection (RFC 7143 §4.2.2, §11): numbering, and every PDU that is
 * not a SCSI command or its data; those are `task-set.ts`'s. Error recovery level 0: what cannot be carried on ends the
 * connection, and the initiator logs in again.
 */
import { KiB } from '../base/limits.ts';
import type { MemoryShare } from './memory-budget.ts';
import type { MemoryUse } from './memory-pressure.ts';
import type { SessionParameters } from './negotiation.ts';
import { Numbering } from './numbering.ts';
import type { Outbox } from './outbox.ts';
import {
  cmdSnOf,
  isContinued,
  isFinal,
  isImmediate,
  ittOf,
  LogoutReason,
  LogoutResponse,
  logoutCidOf,
  logoutReasonOf,
  noTag,
  Opcode,
  opcodeOf,
  RejectReason,
  TaskManagementStatus,
  tagAt20,
} from './pdu.ts';
import { SessionAnswers } from './session-answers.ts';
import type { TargetEntry } from './target-directory.ts';
import { manageTasks } from './task-management.ts';
import { TaskSet } from './task-set.ts';
import type { TextExchange } from './text.ts';
import type { SessionBuffers } from './transfer-buffers.ts';

/** Task management requests not answered yet; initiators send one at a time. */
const maxManagementRequests = 32;
/** Data of a NOP or text request that waits for its turn, in bytes; there may be as many as the window is long. */
const maxEarlyDataBytes = 4 * KiB;

/** The connection of a session. */
export interface SessionConnection {
  readonly outbox: Outbox;
  readonly cid: number;
  /** Of the data segment that is landing where it was told to, bytes that are there. */
  readonly landedBytes: number;
  /** Ends it once what is in the outbox is sent. */
  disconnect(reason: string): void;
  /** Ends it without ending the session: another takes its place. */
  release(reason: string): void;
}

export interface SessionEnvironment {
  readonly buffers: SessionBuffers;
  readonly dataIn: MemoryShare;
  /** There was no memory for data-in. */
  refused(): void;
  /** All sessions with the same target, this one among them. */
  peers(): Iterable<Session>;
  /** Ends every connection of the target (TARGET COLD RESET). */
  disconnectPeers(reason: string): void;
}

export interface SessionIdentity {
  initiatorName: string;
  isid: string;
  /** §4.4.3.1: what it is called by when the initiator comes back to it. */
  tsih: number;
  nexus: string;
  /** Of the portal it logged in at, which is also the relative identifier of that target port. */
  portalGroupTag: number;
  /** Null in a discovery session. */
  target: TargetEntry | null;
}

export class Session {
  readonly identity: SessionIdentity;
  readonly parameters: SessionParameters;
  readonly environment: SessionEnvironment;
  readonly numbering: Numbering;
  /** Null in a discovery session. */
  readonly tasks: TaskSet | null;
  private readonly text: TextExchange;
  private readonly answers: SessionAnswers;
  private connection: SessionConnection;
  /** Waits to take the place of `connection`, which is gone, until its commands have ended. */
  private successor: SessionConnection | null = null;
  private managementRequests = 0;
  private isClosed = false;
  private isLoggingOut = false;
  private isIdle = false;
  private readonly idleWatchers: (() => void)[] = [];

  constructor(
    identity: SessionIdentity,
    parameters: SessionParameters,
    environment: SessionEnvironment,
    connection: SessionConnection,
    text: TextExchange,
    numbers: { statSn: number; cmdSn: number },
  ) {
    this.identity = identity;
    this.parameters = parameters;
    this.environment = environment;
    this.connection = connection;
    this.text = text;
    this.numbering = new Numbering(numbers.statSn, numbers.cmdSn);
    this.answers = new SessionAnswers(this.numbering, connection.outbox);
    this.tasks = identity.target === null ? null : this.taskSetOf(identity.target);
  }

  private taskSetOf({ device }: TargetEntry): TaskSet {
    const { buffers, dataIn } = this.environment;
    const refused = () => this.environment.refused();
    const { nexus, portalGroupTag: port } = this.identity;
    const { numbering, parameters } = this;
    const reject = (bhs: Buffer, reason: number) => this.reject(bhs, reason);
    const idle = () => this.becomeIdle();
    const environment = {
      device,
      nexus,
      port,
      numbering,
      parameters,
      buffers,
      dataIn,
      refused,
      reject,
      idle,
    };
    return new TaskSet(environment, this.connection.outbox);
  }

  get cid(): number {
    return this.connection.cid;
  }

  // What arrives

  /** Where the data of a PDU whose header is here shall land (see `PduSink.place`). */
  place(bhs: Buffer, lengthBytes: number): Buffer | null {
    if (this.isClosed || this.isLoggingOut || this.tasks === null) return null;
    return this.tasks.place(bhs, lengthBytes);
  }

  /** Takes one PDU. `data` is the caller's after the return, unless `placed`. */
  take(bhs: Buffer, data: Buffer, placed: boolean): void {
    if (this.isClosed) return;
    const opcode = opcodeOf(bhs);
    const { tasks } = this;
    if (this.isLoggingOut) {
      this.reject(bhs, RejectReason.waitingForLogout);
      return;
    }
    if (tasks !== null) {
      if (opcode === Opcode.scsiCommand) {
        tasks.takeCommand(bhs, data, placed);
        return;
      }
      if (opcode === Opcode.dataOut) {
        tasks.takeDataOut(bhs, data, placed);
        return;
      }
    } else if (!discoveryOpcodes.has(opcode)) {
      this.refuse(bhs, RejectReason.protocolError);
      return;
    }
    this.takeOther(opcode, bhs, data);
  }

  private takeOther(opcode: number, bhs: Buffer, data: Buffer): void {
    switch (opcode) {
      case Opcode.nopOut:
        this.takeNopOut(bhs, data);
        return;
      case Opcode.taskManagement:
        this.takeTaskManagement(bhs);
        return;
      case Opcode.text:
        this.takeText(bhs, data);
        return;
      case Opcode.logout:
        this.takeLogout(bhs);
        return;
      case Opcode.snack:
        this.reject(bhs, RejectReason.snack);
        return;
      case Opcode.login:
        // Only a new connection logs in (§6.3).
        this.reject(bhs, RejectReason.protocolError);
        this.connection.disconnect('a login request in the full-feature phase');
        return;
      default:
        this.refuse(bhs, RejectReason.commandNotSupported);
    }
  }

  /** Rejects a request that may have taken a CmdSN, or later commands would wait for it for ever. */
  private refuse(bhs: Buffer, reason: number): void {
    this.reject(bhs, reason);
    if (!isImmediate(bhs) && this.numbering.isNext(cmdSnOf(bhs))) this.numbering.inTurn(bhs, () => {});
  }

  reject(bhs: Buffer, reason: number): void {
    this.answers.reject(bhs, reason);
  }

  // Task management

  private takeTaskManagement(bhs: Buffer): void {
    if (isImmediate(bhs) && this.managementRequests >= maxManagementRequests) {
      this.reject(bhs, RejectReason.tooManyImmediate);
      return;
    }
    const request = Buffer.from(bhs);
    this.numbering.inTurn(bhs, () => this.manage(request));
  }

  private manage(request: Buffer): void {
    if (this.managementRequests >= maxManagementRequests) {
      this.answers.managed(ittOf(request), TaskManagementStatus.rejected);
      return;
    }
    this.managementRequests += 1;
    manageTasks(this, request, (status) => {
      this.managementRequests -= 1;
      if (!this.isClosed) this.answers.managed(ittOf(request), status);
    });
  }

  // NOP, text, logout, asynchronous messages

  private takeNopOut(bhs: Buffer, data: Buffer): void {
    const itt = ittOf(bhs);
    if (itt === noTag) {
      // The answer to a ping of ours; it has been heard, which is all we wanted. It is to be immediate (§11.18).
      if (!isImmediate(bhs)) this.numbering.inTurn(bhs, () => {});
      return;
    }
    if (this.isHeldUp(bhs, data)) {
      this.rejectEarly(bhs);
      return;
    }
    const echoed = Buffer.from(data.subarray(0, this.parameters.initiatorMaxDataBytes));
    this.numbering.inTurn(bhs, () => this.answers.echo(itt, echoed));
  }

  /** Requests whose turn has not come are kept, but not with so much data: no initiator sends them out of order. */
  private isHeldUp(bhs: Buffer, data: Buffer): boolean {
    return data.length > maxEarlyDataBytes && !isImmediate(bhs) && !this.numbering.isNext(cmdSnOf(bhs));
  }

  private rejectEarly(bhs: Buffer): void {
    this.reject(bhs, RejectReason.protocolError);
    this.numbering.inTurn(bhs, () => {});
  }

  /** Asks the initiator for a sign of life. */
  ping(): void {
    this.answers.ping();
  }

  private takeText(bhs: Buffer, data: Buffer): void {
    if (this.isHeldUp(bhs, data)) {
      this.rejectEarly(bhs);
      return;
    }
    const request = Buffer.from(bhs);
    const text = Buffer.from(data);
    this.numbering.inTurn(bhs, () => {
      const reply = this.text.next(tagAt20(request), isFinal(request), isContinued(request), text);
      if (reply === null) {
        this.reject(request, RejectReason.protocolError);
        return;
      }
      this.answers.text(ittOf(request), reply);
    });
  }

  private takeLogout(bhs: Buffer): void {
    const request = Buffer.from(bhs);
    const reason = logoutReasonOf(bhs);
    if (this.tasks === null && reason !== LogoutReason.closeSession) {
      // §4.3: all a discovery session may do beside asking for targets is to close.
      this.refuse(bhs, RejectReason.protocolError);
      return;
    }
    this.numbering.inTurn(bhs, () => {
      const response = this.logoutResponse(request, reason);
      if (response !== LogoutResponse.closed) {
        this.answers.loggedOut(ittOf(request), response);
        return;
      }
      this.isLoggingOut = true;
      const end = () => {
        if (this.isClosed) return;
        this.answers.loggedOut(ittOf(request), response);
        this.connection.disconnect('the initiator logged out');
      };
      if (this.tasks === null) end();
      else this.tasks.abortAll(end);
    });
  }

  /** §11.14, §11.15: removing a connection for recovery needs error recovery level 2. */
  private logoutResponse(request: Buffer, reason: number): number {
    if (reason === LogoutReason.closeSession) return LogoutResponse.closed;
    if (reason !== LogoutReason.closeConnection) return LogoutResponse.recoveryUnsupported;
    return logoutCidOf(request) === this.cid ? LogoutResponse.closed : LogoutResponse.noSuchConnection;
  }

  /** See `SessionAnswers`; not while the initiator logs out anyway. */
  requestLogout(withinSeconds: number): void {
    if (!this.isClosed && !this.isLoggingOut) this.answers.requestLogout(withinSeconds);
  }

  announceEnd(): void {
    if (!this.isClosed && !this.isLoggingOut) this.answers.announceEnd();
  }

  /** See `TaskSet.tick`. */
  tick(sinceTicks: number): boolean {
    return this.tasks?.tick(sinceTicks) === true;
  }

  /** See `MemoryPressure`. */
  memoryUse(): MemoryUse {
    return this.tasks?.memoryUse(this.connection.landedBytes) ?? { waitingBytes: 0, movedBytes: 0 };
  }

  disconnect(reason: string): void {
    const { connection, successor } = this;
    connection.disconnect(reason);
    if (successor === null) return;
    successor.disconnect(reason);
    // Neither connection has the session to close with it.
    this.close();
  }

  /**
   * Connection reinstatement (§6.3.4): the old connection ends with its commands, of which nobody hears any more; then
   * the session, its CmdSN and its nexus go on with the new one. `done` is not called when the session ends before.
   */
  moveTo(
    connection: SessionConnection,
    parameters: SessionParameters,
    statSn: number,
    done: () => void,
  ): void {
    const { headerDigest, dataDigest, initiatorMaxDataBytes } = parameters;
    if (this.successor === null)
      this.connection.release('the initiator took another connection for the session');
    else this.successor.disconnect('the initiator took yet another connection for the session');
    this.successor = connection;
    this.tasks?.forgetLanding();
    const go = () => {
      if (this.isClosed || this.successor !== connection) return;
      this.successor = null;
      this.connection = connection;
      this.tasks?.use(connection.outbox);
      this.answers.use(connection.outbox);
      this.numbering.restartStatSn(statSn);
      // What belongs to the connection; the rest is the session's (§13, use LO).
      Object.assign(this.parameters, { headerDigest, dataDigest, initiatorMaxDataBytes });
      done();
    };
    if (this.tasks === null) go();
    else this.tasks.abortAll(go);
  }

  // The end

  /** The connection is gone, or about to be: nothing more is taken or answered. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.numbering.close();
    if (this.tasks === null) this.becomeIdle();
    else this.tasks.close();
  }

  /** Everything that had begun has ended, so the nexus can be called lost. */
  private becomeIdle(): void {
    if (this.isIdle) return;
    this.isIdle = true;
    this.identity.target?.device.nexusLost(this.identity.nexus);
    for (const watcher of this.idleWatchers) watcher();
  }

  /** Calls `done` when the session is closed and none of its commands runs any more. */
  whenIdle(done: () => void): void {
    if (this.isIdle) done();
    else this.idleWatchers.push(done);
  }
}

/** §4.3 */
const discoveryOpcodes: ReadonlySet<number> = new Set([Opcode.text, Opcode.logout, Opcode.login]);
