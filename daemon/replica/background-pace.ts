/** Background work gives way while volumes are in use: it goes on between their commands at a bounded rate. */
import { MiB } from '../base/limits.ts';
import type { Clock } from '../env/clock.ts';

/** While volumes are in use, in bytes a millisecond: a tenth of a core for copying. */
const busyBytesPerMs = (64 * MiB) / 1000;

export class BackgroundPace {
  readonly #clock: Clock;
  readonly #isUrgent: () => boolean;
  #commands = 0;
  #seen = 0;

  /** @param isUrgent whether the work may not wait, since there is no room without it. */
  constructor(clock: Clock, isUrgent: () => boolean) {
    this.#clock = clock;
    this.#isUrgent = isUrgent;
  }

  /** A volume is in use. */
  noticeCommand(): void {
    this.#commands += 1;
  }

  /** Resolves when work on so many more bytes may go on. */
  giveWay(bytes: number): Promise<void> {
    const isBusy = this.#commands !== this.#seen;
    this.#seen = this.#commands;
    if (!isBusy || this.#isUrgent()) return Promise.resolve();
    return new Promise((resolve) => this.#clock.after(bytes / busyBytesPerMs, resolve));
  }
}
