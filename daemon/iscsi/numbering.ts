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
  private statSn: number;
  private expCmdSn: number;
  /** Handed out by `next` and `current`, and valid until they are called again. */
  private readonly numbers: Numbers = { statSn: 0, expCmdSn: 0, maxCmdSn: 0 };
  /** What came before its turn, by CmdSN; never more than the window. */
  private readonly early = new Map<number, () => void>();

  constructor(statSn: number, expCmdSn: number) {
    this.statSn = statSn;
    this.expCmdSn = expCmdSn;
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
    numbers.statSn = this.statSn;
    numbers.expCmdSn = this.expCmdSn;
    // Never falls: a command takes a place of the window as ExpCmdSN rises, and gives it back when it ends.
    numbers.maxCmdSn = serialAfterBy(this.expCmdSn, commandWindow - 1 - this.outstanding);
    return numbers;
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
    while (this.early.size > 0) {
      const following = this.early.get(this.expCmdSn);
      if (following === undefined) break;
      this.early.delete(this.expCmdSn);
      this.expCmdSn = serialAfterBy(this.expCmdSn, 1);
      following();
    }
  }

  /** Gives up what waits for its turn. */
  close(): void {
    this.early.clear();
  }
}
