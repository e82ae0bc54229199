/**
 * Ends sessions that keep memory from others and do nothing with it. A session is given memory for its commands' data
 * before the data comes; while everybody gets what it asks for, an initiator may take a minute to send it
 * (`connection.ts`). From when somebody was refused, it has seconds.
 *
 *     calm ──refused──> watching: a look every 4 s ──nobody refused since the last one──> calm
 *
 * So the memory of who sends nothing is free after 4 to 8 s, and its address is curbed: sessions it begins anew do not
 * bring it back to where it was.
 */
import type { Clock } from '../env/clock.ts';

const lookIntervalMs = 4_000;
/**
 * Between two looks at least that part of what a session had been given before has to be filled: 4 MiB/s for all of
 * the memory there is, 8 KiB/s for who holds 1 MiB.
 */
const movedPart = 1 / 32;

/** Between two looks, in bytes. */
export interface MemoryUse {
  /** Held all the time, and waiting for the initiator. */
  waitingBytes: number;
  /** Data that came, or was taken by the initiator. */
  movedBytes: number;
}

export interface PressedSession {
  /** Since it was called last. */
  memoryUse(): MemoryUse;
}

export class MemoryPressure<Session extends PressedSession> {
  private readonly clock: Clock;
  private readonly sessions: () => Iterable<Session>;
  private readonly end: (session: Session) => void;
  private isWatching = false;
  private isRefusing = false;

  constructor(clock: Clock, sessions: () => Iterable<Session>, end: (session: Session) => void) {
    this.clock = clock;
    this.sessions = sessions;
    this.end = end;
  }

  /** Somebody did not get the memory it asked for. */
  refused(): void {
    this.isRefusing = true;
    if (this.isWatching) return;
    this.isWatching = true;
    for (const session of this.sessions()) session.memoryUse();
    this.watch();
  }

  private watch(): void {
    this.isRefusing = false;
    const beganMs = this.clock.monotonicMs();
    this.clock.after(lookIntervalMs, () => {
      // After a halt of the daemon itself the timer comes before what has arrived meanwhile.
      const isLate = this.clock.monotonicMs() - beganMs > 2 * lookIntervalMs;
      for (const session of [...this.sessions()]) {
        const { waitingBytes, movedBytes } = session.memoryUse();
        if (!isLate && movedBytes < waitingBytes * movedPart) this.end(session);
      }
      if (this.isRefusing || isLate) this.watch();
      else this.isWatching = false;
    });
  }
}
