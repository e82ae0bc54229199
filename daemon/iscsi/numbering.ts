/**
 * The serial numbers of a session with one connection (RFC 7143 §4.2.2): StatSN of what is answered, ExpCmdSN and
 * MaxCmdSN of what is taken, and the commands that came before their turn.
 */
import { cmdSnOf, isImmediate, type Numbers, serialAfterBy, serialBefore } from './pdu.ts';

/** Commands one session may have outstanding: the queue depth of Linux (128 by default) fits. */
export const commandWindow = 128;

export class Numbering {
  /** Numbered commands that have had their turn and have not ended; each takes a place of the window. */
  outstanding = 0;
  /** While set, the window does not move on: the session has enough under way for the memory there is. */
  isHeld = false;
  private statSn: number;
  private expCmdSn: number;
  private maxCmdSn: number;
  /** Handed out by `next` and `current`, and valid until they are called again. */
  private readonly numbers: Numbers = { statSn: 0, expCmdSn: 0, maxCmdSn: 0 };
  /** What came before its turn, by CmdSN; never more than the window. */
  private readonly early = new Map<number, () => void>();
  /** Called, and forgotten, once all before that CmdSN have had their turn. */
  private barriers: { cmdSn: number; act: () => void }[] = [];

  constructor(statSn: number, expCmdSn: number) {
    this.statSn = statSn;
    this.expCmdSn = expCmdSn;
    this.maxCmdSn = serialAfterBy(expCmdSn, commandWindow - 1);
  }

  /** For a PDU that carries a StatSN of its own. */
  next(): Numbers {
    const numbers = this.current();
    this.statSn = serialAfterBy(this.statSn, 1);
    return numbers;
  }

  /** For a PDU that does not. */
  current(): Numbers {
    const { numbers } = this;
    if (!this.isHeld) {
      // Never falls: a command takes a place of the window as ExpCmdSN rises, and gives it back when it ends.
      const open = serialAfterBy(this.expCmdSn, commandWindow - 1 - this.outstanding);
      if (serialBefore(this.maxCmdSn, open)) this.maxCmdSn = open;
    }
    numbers.statSn = this.statSn;
    numbers.expCmdSn = this.expCmdSn;
    numbers.maxCmdSn = this.maxCmdSn;
    return numbers;
  }

  /** The session goes on with another connection, which counts its answers from there (§6.3.4). */
  restartStatSn(statSn: number): void {
    this.statSn = statSn;
  }

  isNext(cmdSn: number): boolean {
    return cmdSn === this.expCmdSn;
  }

  isInWindow(cmdSn: number): boolean {
    if (serialBefore(cmdSn, this.expCmdSn) || this.early.has(cmdSn)) return false;
    return !serialBefore(this.current().maxCmdSn, cmdSn);
  }

  /** Runs `act` when CmdSN's turn has come; drops it outside the window, as §4.2.2.1 demands. */
  inTurn(bhs: Buffer, act: () => void): void {
    if (isImmediate(bhs)) {
      act();
      return;
    }
    const cmdSn = cmdSnOf(bhs);
    if (!this.isInWindow(cmdSn)) return;
    if (cmdSn !== this.expCmdSn) {
      this.early.set(cmdSn, act);
      return;
    }
    this.expCmdSn = serialAfterBy(cmdSn, 1);
    act();
    if (this.early.size > 0) this.takeEarly();
    if (this.barriers.length > 0) this.passBarriers();
  }

  /** Considers a CmdSN that has not come as received: what still comes with it is ignored (§11.6.1 b). */
  plug(cmdSn: number): void {
    if (!this.isInWindow(cmdSn)) return;
    this.early.set(cmdSn, () => {});
    this.takeEarly();
    this.passBarriers();
  }

  /** Considers everything before that CmdSN as received (§4.2.3.3, target resets). */
  plugBefore(cmdSn: number): void {
    for (
      let sn = this.expCmdSn;
      serialBefore(sn, cmdSn) && this.isPlausible(cmdSn);
      sn = serialAfterBy(sn, 1)
    ) {
      this.plug(sn);
    }
  }

  /** Runs `act` once all before that CmdSN have had their turn: for functions that mean all of them (§4.2.3.3). */
  onceBefore(cmdSn: number, act: () => void): void {
    if (!serialBefore(this.expCmdSn, cmdSn) || !this.isPlausible(cmdSn)) act();
    else this.barriers.push({ cmdSn, act });
  }

  /** The CmdSN of an immediate request is the one the next numbered command will have: at most one past the window. */
  private isPlausible(cmdSn: number): boolean {
    return !serialBefore(serialAfterBy(this.maxCmdSn, 1), cmdSn);
  }

  private takeEarly(): void {
    for (;;) {
      const following = this.early.get(this.expCmdSn);
      if (following === undefined) return;
      this.early.delete(this.expCmdSn);
      this.expCmdSn = serialAfterBy(this.expCmdSn, 1);
      following();
    }
  }

  private passBarriers(): void {
    const passed = this.barriers.filter(({ cmdSn }) => !serialBefore(this.expCmdSn, cmdSn));
    if (passed.length === 0) return;
    this.barriers = this.barriers.filter((barrier) => !passed.includes(barrier));
    for (const { act } of passed) act();
  }

  /** Gives up what waits for its turn. */
  close(): void {
    this.early.clear();
    this.barriers = [];
  }
}
