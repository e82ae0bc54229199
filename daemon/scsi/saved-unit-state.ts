/** What of a logical unit's state is durable, as far as the unit knows. */
import type { ModeParameters, UnitState, UnitStateStore } from './unit-state-store.ts';

/** SWP and D_SENSE are off unless somebody saved them otherwise. */
export const defaultModeParameters: Readonly<ModeParameters> = {
  descriptorSense: false,
  softwareWriteProtect: false,
};

export class SavedUnitState {
  readonly #store: UnitStateStore | null;
  #state: UnitState;
  /** A save failed: what it should have replaced may be there, or what it should have put there. */
  #isUncertain = false;

  /** Without a store nothing is saved, and whoever asks for it is refused. */
  constructor(store: UnitStateStore | null) {
    this.#store = store;
    this.#state = store?.load() ?? { persistentReservations: null, modeParameters: null };
  }

  get isSupported(): boolean {
    return this.#store !== null;
  }

  get persistentReservations(): UnitState['persistentReservations'] {
    return this.#state.persistentReservations;
  }

  /** What the mode parameters are after power on and after a reset (SPC-4 5.11). */
  get modeParameters(): Readonly<ModeParameters> {
    return this.#state.modeParameters ?? defaultModeParameters;
  }

  /**
   * Makes a part of the state durable. `done` is called at once when there is nothing to make durable: no reservation
   * where none was. One save at a time: callers take turns (change-turns.ts).
   */
  save(part: Partial<UnitState>, done: (error: Error | null) => void): void {
    const next = { ...this.#state, ...part };
    const isNothing =
      part.modeParameters === undefined &&
      next.persistentReservations === null &&
      this.#state.persistentReservations === null &&
      !this.#isUncertain;
    if (this.#store === null || isNothing) {
      done(null);
      return;
    }
    this.#store.save(next, (error) => {
      this.#isUncertain = error !== null;
      if (error === null) this.#state = next;
      done(error);
    });
  }
}
