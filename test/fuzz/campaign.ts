/**
 * A run of the fuzzer: conversations in batches, many at once, against one weftd; after each batch everything that was
 * said must have left no trace, and a well-behaved initiator must be served.
 */
import { MiB } from '../../daemon/base/limits.ts';
import type { Conversation } from './conversation.ts';
import { conversationOf } from './conversation-generator.ts';
import type { HealthReport } from './healthy-session.ts';
import { type Outcome, Speaker } from './speaker.ts';
import { aims, type WeftdUnderTest } from './weftd-under-test.ts';

/** The slowest answer the healthy session may get: a tenth of the 30 s after which Linux aborts a command. */
const slowestHealthyMs = 3_000;
/**
 * How much larger the process may be at the end than at its largest during the warm-up: the idle transfer buffers it may
 * keep (64 MiB), and twice that for caches that fill slowly and what V8 and malloc have not given back. Over a million
 * inputs it is nearly level after 800,000; a leak of 256 bytes an input shows there, one of 5 KiB in 45,000.
 */
const growthLimitBytes = 192 * MiB;
/** Conversations of one batch, and how many of them are held at once. */
const batchSize = 400;
const heldAtOnce = 32;
/** The first part of a run, in which caches and pools fill. */
const warmUpShare = 0.2;

export interface Failure {
  what: string;
  /** What was being said when it was noticed. */
  suspects: Conversation[];
  /** What was said at last on the connection it was noticed on. */
  trace: string[];
}

export interface Result {
  inputs: number;
  commands: number;
  /** Commands that ended with GOOD. */
  good: number;
  conversations: number;
  loggedIn: number;
  seconds: number;
  warmRssBytes: number;
  endRssBytes: number;
  dataBytes: number;
  healthy: HealthReport;
  failure: Failure | null;
}

export interface Progress {
  inputs: number;
  conversations: number;
  rssBytes: number;
}

export interface Wanted {
  seed: number;
  /** Ends after that many inputs have been sent. */
  inputs: number;
  /** Conversation numbers, both included; the inputs do not count then. */
  range: { from: number; to: number } | null;
  onProgress: (progress: Progress) => void;
}

export class Campaign {
  readonly #weftd: WeftdUnderTest;
  readonly #wanted: Wanted;
  readonly #speaking = new Set<Conversation>();
  readonly #result: Result;
  #next: number;

  private constructor(weftd: WeftdUnderTest, wanted: Wanted) {
    this.#weftd = weftd;
    this.#wanted = wanted;
    this.#next = wanted.range?.from ?? 0;
    this.#result = {
      ...{ inputs: 0, commands: 0, good: 0, conversations: 0, loggedIn: 0, seconds: 0 },
      ...{ warmRssBytes: 0, endRssBytes: 0, dataBytes: 0, failure: null },
      healthy: { operations: 0, slowestMs: 0, p99Ms: 0, complaint: null },
    };
  }

  static async run(weftd: WeftdUnderTest, wanted: Wanted): Promise<Result> {
    return new Campaign(weftd, wanted).#run();
  }

  async #run(): Promise<Result> {
    const result = this.#result;
    const begin = performance.now();
    while (result.failure === null && !this.#isEnough()) {
      const batch = await this.#batch();
      const complaint = await this.#weftd.complaint();
      if (complaint !== null) result.failure ??= { what: complaint, suspects: batch, trace: [] };
      if (result.failure !== null) break;
      const { rssBytes } = await this.#weftd.vitals();
      if (result.inputs <= this.#wanted.inputs * warmUpShare || result.warmRssBytes === 0) {
        result.warmRssBytes = Math.max(result.warmRssBytes, rssBytes);
      }
      result.endRssBytes = rssBytes;
      this.#wanted.onProgress({ inputs: result.inputs, conversations: result.conversations, rssBytes });
    }
    result.seconds = (performance.now() - begin) / 1000;
    // It reads everything it wrote before it ends; only then can the journal drain.
    result.healthy = await this.#weftd.healthy.end();
    if (result.failure === null) await this.#verdict();
    return result;
  }

  async #verdict(): Promise<void> {
    const result = this.#result;
    const fail = (what: string) => {
      result.failure ??= { what, suspects: [], trace: [] };
    };
    const growth = await this.#weftd.fileGrowth();
    result.dataBytes = growth.bytes;
    if (growth.complaint !== null) fail(growth.complaint);
    result.endRssBytes = Math.min(result.endRssBytes, (await this.#weftd.vitals()).rssBytes);
    const grownBytes = result.endRssBytes - result.warmRssBytes;
    if (grownBytes > growthLimitBytes) fail(`weftd has grown by ${Math.round(grownBytes / MiB)} MiB`);
    const { slowestMs, complaint } = result.healthy;
    if (complaint !== null) fail(`the healthy session: ${complaint}`);
    if (slowestMs > slowestHealthyMs)
      fail(`the healthy session waited ${Math.round(slowestMs)} ms for an answer`);
  }

  #isEnough(): boolean {
    const { range, inputs } = this.#wanted;
    return range === null ? this.#result.inputs >= inputs : this.#next > range.to;
  }

  /** Holds a batch of conversations; answers with the last ones, of which one may be to blame for what is found then. */
  async #batch(): Promise<Conversation[]> {
    let left = batchSize;
    const latest: Conversation[] = [];
    const speak = async (): Promise<void> => {
      while (left > 0 && this.#result.failure === null && !this.#isEnough()) {
        left -= 1;
        const conversation = conversationOf(this.#wanted.seed, this.#next, aims);
        this.#next += 1;
        this.#speaking.add(conversation);
        const outcome = await Speaker.hold(conversation, this.#weftd.addressee);
        this.#speaking.delete(conversation);
        latest.push(conversation);
        if (latest.length > heldAtOnce) latest.shift();
        const isDead = !this.#weftd.isAlive;
        if (isDead) this.#died([...latest, ...this.#speaking]);
        this.#count(conversation, outcome);
      }
    };
    await Promise.all(Array.from({ length: heldAtOnce }, speak));
    return latest;
  }

  #died(suspects: Conversation[]): void {
    this.#result.failure ??= { what: 'weftd died', suspects, trace: [] };
  }

  #count(conversation: Conversation, outcome: Outcome): void {
    const result = this.#result;
    result.conversations += 1;
    result.inputs += outcome.inputs;
    result.commands += outcome.commands;
    result.good += outcome.good;
    if (outcome.isLoggedIn) result.loggedIn += 1;
    if (outcome.flaw === null) return;
    const what = `conversation ${conversation.number}: ${outcome.flaw}`;
    result.failure ??= { what, suspects: [conversation], trace: outcome.trace };
  }
}
