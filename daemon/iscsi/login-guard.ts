/**
 * Keeps those who guess at secrets slow, and remembers who failed to log in.
 *
 * Failures take tokens from two buckets, and a login without a token is refused before anything is looked at, with a
 * status that initiators try again on:
 *
 *  - one for source address, initiator's name and target: a guess in ten seconds, in the long run;
 *  - one for the source address, for those who change names. Who has logged in from there under this name before does
 *    not need it, so a host that has lost its mind does not keep its neighbours behind the same address out.
 *
 * Logins that are not logins (malformed, out of order, never ended) take from the second bucket only: they guess nothing.
 * Where it is empty and nobody has ever logged in, connections are not even taken.
 *
 * A proof fills the first bucket again. Nothing is kept back from other addresses, and time that passes is forgiveness
 * enough: nobody is locked out.
 */
import type { Clock } from '../env/clock.ts';

interface Bucket {
  tokens: number;
  atMs: number;
}

interface Rate {
  burst: number;
  perSecond: number;
}

/** An operator who mistypes, and a host that starts with an old secret, do not notice it. */
const attemptRate: Rate = { burst: 8, perSecond: 0.1 };
/** Many hosts may share an address (NAT), and one host may look for many volumes that are gone. */
const addressRate: Rate = { burst: 100, perSecond: 5 };
/** Entries of each table, up to 0.6 KiB each (two names); the one longest unused goes. */
const maxEntries = 10_000;
/** Failures that are remembered in words; the same again is counted. */
const maxRemembered = 100;
/** Log lines of one address. A flood shall not flood the log: what is left out is counted in a later line. */
const reportRate: Rate = { burst: 100, perSecond: 1 };
/** The same for logins that were refused for the failures before them, of all addresses. */
const throttledReportRate: Rate = { burst: 1, perSecond: 0.1 };

/** Names are those an initiator gave, and were checked for their form only. */
export interface LoginAttempt {
  /** `address:port`. */
  address: string;
  initiator: string;
  /** Empty: a discovery session. */
  target: string;
}

export interface FailedLogin {
  /** Without its port. */
  address: string;
  initiator: string;
  target: string;
  reason: string;
  /** How often, and when last. */
  count: number;
  lastMs: number;
}

export interface LoginCounts {
  succeeded: number;
  failed: number;
  /** Of the failed, those refused for the failures before them. */
  throttled: number;
}

export class LoginGuard {
  readonly counts: LoginCounts = { succeeded: 0, failed: 0, throttled: 0 };
  private readonly clock: Clock;
  private readonly attempts = new Map<string, Bucket>();
  private readonly addresses = new Map<string, Bucket>();
  /** Attempts that ended well. */
  private readonly proven = new Map<string, true>();
  /** Where they came from. */
  private readonly provenSources = new Map<string, true>();
  private readonly remembered = new Map<string, FailedLogin>();
  /** By address, and one of all that were throttled. */
  private readonly reports = new Map<string, Bucket>();
  private unreported = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Whether this login may be tried now. */
  allows(attempt: LoginAttempt): boolean {
    const source = sourceOf(attempt.address);
    const key = keyOf(source, attempt);
    if (this.tokensOf(this.attempts, key, attemptRate) < 1) return false;
    return this.proven.has(key) || this.tokensOf(this.addresses, source, addressRate) >= 1;
  }

  /** A wrong proof, or a target that is not there for this initiator. */
  failed(attempt: LoginAttempt): void {
    const source = sourceOf(attempt.address);
    this.take(this.attempts, keyOf(source, attempt), attemptRate);
    this.take(this.addresses, source, addressRate);
  }

  /** Something that is no proper login. Answers whether it may be told what is wrong with it. */
  malformed(attempt: LoginAttempt): boolean {
    const source = sourceOf(attempt.address);
    if (this.tokensOf(this.addresses, source, addressRate) < 1) return false;
    this.take(this.addresses, source, addressRate);
    return true;
  }

  /** Whether connections from this source are not worth taking: only failures have come from there, and too many. */
  isShut(source: string): boolean {
    return !this.provenSources.has(source) && this.tokensOf(this.addresses, source, addressRate) < 1;
  }

  /** The initiator has shown who it is; whether it may go on is another question. */
  succeeded(attempt: LoginAttempt): void {
    const source = sourceOf(attempt.address);
    const key = keyOf(source, attempt);
    this.attempts.delete(key);
    put(this.provenSources, source, true, maxEntries);
    put(this.proven, key, true, maxEntries);
  }

  /**
   * Counts and remembers a login that was refused, for whatever reason.
   * @param isThrottled by `allows`.
   * @returns how many a log line about it stands for; 0: none is to be written.
   */
  refused(attempt: LoginAttempt, reason: string, isThrottled: boolean): number {
    this.counts.failed += 1;
    if (isThrottled) this.counts.throttled += 1;
    else this.remember(attempt, reason);
    this.unreported += 1;
    const rate = isThrottled ? throttledReportRate : reportRate;
    const key = isThrottled ? 'throttled' : sourceOf(attempt.address);
    if (this.tokensOf(this.reports, key, rate) < 1) return 0;
    this.take(this.reports, key, rate);
    const logins = this.unreported;
    this.unreported = 0;
    return logins;
  }

  private remember(attempt: LoginAttempt, reason: string): void {
    const address = sourceOf(attempt.address);
    const { initiator, target } = attempt;
    const key = `${keyOf(address, attempt)}\0${reason}`;
    const count = (this.remembered.get(key)?.count ?? 0) + 1;
    const lastMs = this.clock.nowMs();
    put(this.remembered, key, { address, initiator, target, reason, count, lastMs }, maxRemembered);
  }

  /** The last first. */
  recentFailures(): FailedLogin[] {
    return [...this.remembered.values()].reverse();
  }

  private tokensOf(table: Map<string, Bucket>, key: string, rate: Rate): number {
    const bucket = table.get(key);
    if (bucket === undefined) return rate.burst;
    const gained = ((this.clock.monotonicMs() - bucket.atMs) / 1000) * rate.perSecond;
    return Math.min(rate.burst, bucket.tokens + gained);
  }

  private take(table: Map<string, Bucket>, key: string, rate: Rate): void {
    const tokens = Math.max(0, this.tokensOf(table, key, rate) - 1);
    put(table, key, { tokens, atMs: this.clock.monotonicMs() }, maxEntries);
  }
}

/** At the end of the table, from whose front the oldest goes. */
function put<Value>(table: Map<string, Value>, key: string, value: Value, limit: number): void {
  table.delete(key);
  table.set(key, value);
  for (const oldest of table.keys()) {
    if (table.size <= limit) break;
    table.delete(oldest);
  }
}

function keyOf(source: string, { initiator, target }: LoginAttempt): string {
  // No value of a text key has a zero byte in it.
  return `${source}\0${initiator}\0${target}`;
}

/** Who is behind `address:port`: an IPv4 address, or the /64 that one IPv6 host has to itself. */
export function sourceOf(addressAndPort: string): string {
  const address = addressAndPort.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  const [, mapped] = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address) ?? [];
  if (mapped !== undefined) return mapped;
  if (!address.includes(':')) return address;
  const [head = '', tail] = address.replace(/%.*$/, '').split('::');
  const front = head === '' ? [] : head.split(':');
  const back = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups = [...front, ...Array<string>(Math.max(0, 8 - front.length - back.length)).fill('0'), ...back];
  return `${groups.slice(0, 4).join(':')}::/64`;
}
