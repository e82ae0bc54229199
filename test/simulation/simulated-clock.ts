/**
 * Time that passes only when the simulation says so, and the queue of everything that is to happen in it.
 *
 * There are two kinds of events. *Work* (`schedule`) is what a disk, a network or a map store still has to do: it
 * happens after a latency from the seed, so that works in flight overtake each other. *Timers* (`after`) are the
 * fabric's own. Both happen in the order of their times; after each, every promise is let settle first. So a run is
 * a function of the seed alone.
 */
import type { Clock, Timer } from '../../daemon/env/clock.ts';
import type { SeededRandom } from './seeded-random.ts';

interface Event {
  atMs: number;
  /** Breaks ties: from the seed, then in the order they were asked for. */
  rank: number;
  sequence: number;
  fire: () => void;
  isWork: boolean;
  isCancelled: boolean;
}

/** More events than any scenario needs: beyond them the simulation turns in a circle. */
const defaultMaxEvents = 5_000_000;

export class SimulatedClock implements Clock {
  /** Events that happened. */
  eventCount = 0;
  readonly #random: SeededRandom;
  readonly #heap: Event[] = [];
  #elapsedMs = 0;
  /** Work that is still to happen. */
  #workCount = 0;
  #sequence = 0;
  #wallOffsetMs: number;

  constructor(random: SeededRandom, startMs = Date.UTC(2026, 0, 1)) {
    this.#random = random;
    this.#wallOffsetMs = startMs;
  }

  nowMs(): number {
    return Math.floor(this.#wallOffsetMs + this.#elapsedMs);
  }

  monotonicMs(): number {
    return this.#elapsedMs;
  }

  after(delayMs: number, fire: () => void): Timer {
    const event = this.#add(this.#elapsedMs + Math.max(0, delayMs), fire, false);
    return {
      cancel: () => {
        event.isCancelled = true;
      },
    };
  }

  /** Lets `fire` happen after a latency between the two, in ms; never at once. */
  schedule(fire: () => void, minMs = 0, maxMs = 1): void {
    this.#workCount += 1;
    this.#add(this.#elapsedMs + minMs + this.#random.next() * (maxMs - minMs), fire, true);
  }

  /** The wall clock jumps, as an administrator's or NTP's does. Durations do not notice. */
  jumpWallClock(byMs: number): void {
    this.#wallOffsetMs += byMs;
  }

  /** Goes on until no work is left and every promise has settled. Timers due on the way fire; later ones wait. */
  async idle(maxEvents = defaultMaxEvents): Promise<void> {
    await this.#go(() => this.#workCount === 0, maxEvents);
  }

  /** Goes on, timers included, until the condition holds; false when nothing is left to happen before it does. */
  async run(until: () => boolean, maxEvents = defaultMaxEvents): Promise<boolean> {
    let holds = false;
    await this.#go(() => {
      holds = until();
      return holds;
    }, maxEvents);
    return holds;
  }

  /** Lets this much time pass, with everything that happens in it. */
  async advance(byMs: number): Promise<void> {
    const endMs = this.#elapsedMs + byMs;
    await this.#go(() => (this.#first()?.atMs ?? Infinity) > endMs, defaultMaxEvents);
    this.#elapsedMs = endMs;
  }

  /** Runs the promise's own work, and the clock with it, until it has settled. */
  async settle<Result>(promise: Promise<Result>): Promise<Result> {
    let settled = false;
    const note = () => {
      settled = true;
    };
    promise.then(note, note);
    if (!(await this.run(() => settled))) {
      throw new Error('nothing is left to happen, and the promise has not settled');
    }
    return promise;
  }

  async #go(isOver: () => boolean, maxEvents: number): Promise<void> {
    const lastEvent = this.eventCount + maxEvents;
    for (;;) {
      await turn();
      if (isOver()) {
        // What settles now may ask for more, by way of setImmediate too.
        await turn();
        await turn();
        if (isOver()) return;
      }
      let event = this.#take();
      if (event === undefined) {
        await turn();
        await turn();
        event = this.#take();
        if (event === undefined) return;
      }
      this.eventCount += 1;
      if (this.eventCount > lastEvent)
        throw new Error(`the simulation did not end within ${maxEvents} events`);
      this.#elapsedMs = Math.max(this.#elapsedMs, event.atMs);
      if (event.isWork) this.#workCount -= 1;
      event.fire();
    }
  }

  #add(atMs: number, fire: () => void, isWork: boolean): Event {
    this.#sequence += 1;
    const event = {
      atMs,
      rank: this.#random.word(),
      sequence: this.#sequence,
      fire,
      isWork,
      isCancelled: false,
    };
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
    return event;
  }

  #first(): Event | undefined {
    while (this.#heap[0]?.isCancelled) this.#pop();
    return this.#heap[0];
  }

  #take(): Event | undefined {
    return this.#first() === undefined ? undefined : this.#pop();
  }

  #pop(): Event {
    const heap = this.#heap;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  if (a.atMs !== b.atMs) return a.atMs < b.atMs;
  return a.rank !== b.rank ? a.rank < b.rank : a.sequence < b.sequence;
}

/** Every promise that can settle has settled when this returns. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
