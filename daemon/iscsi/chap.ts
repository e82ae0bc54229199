/**
 * CHAP as iSCSI uses it (RFC 7143 §12.1.3, RFC 1994): response = H(identifier, secret, challenge).
 *
 *   initiator                                 target
 *   CHAP_A=7,5                        ──>
 *                                     <──     CHAP_A=7 CHAP_I=n CHAP_C=challenge
 *   CHAP_N=user CHAP_R=response       ──>
 *   [CHAP_I=m CHAP_C=challenge]       <──     [CHAP_N=user CHAP_R=response]
 *
 * Whoever sees a challenge and its response can try secrets at home as fast as machines go: only a random secret of 96
 * bits and more stands that (§9.2.1). One connection has one attempt.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Random } from '../env/random.ts';
import { encodeBinary, type KeyPair, parseBinary, parseNumber } from './key-text.ts';
import type { ChapCredentials } from './target-directory.ts';

/**
 * Strongest first, whatever the order of the offer. 5 is the one every initiator has (§12.1.3); the others are in
 * IANA's registry of PPP authentication algorithms, and open-iscsi offers them when told to.
 */
const algorithms = [
  { id: 8, hash: 'sha3-256' },
  { id: 7, hash: 'sha256' },
  { id: 6, hash: 'sha1' },
  { id: 5, hash: 'md5' },
] as const;

const challengeBytes = 32;
/** §12.1.3: the largest a challenge may be. */
const maxChallengeBytes = 1024;

export class ChapExchange {
  private readonly credentials: ChapCredentials;
  private readonly mutual: ChapCredentials | null;
  private readonly random: Random;
  private state: 'algorithm' | 'response' | 'done' | 'failed' = 'algorithm';
  private hash = '';
  private identifier = 0;
  private challenge: Buffer = Buffer.alloc(0);

  constructor(credentials: ChapCredentials, mutual: ChapCredentials | null, random: Random) {
    this.credentials = credentials;
    this.mutual = mutual;
    this.random = random;
  }

  /** The initiator has proved itself. */
  get isDone(): boolean {
    return this.state === 'done';
  }

  /** Takes the CHAP keys of one request; answers with ours, or null when authentication has failed, for good. */
  next(keys: ReadonlyMap<string, string>): KeyPair[] | null {
    const { state } = this;
    this.state = 'failed';
    if (state === 'algorithm') return this.challengeInitiator(keys.get('CHAP_A'));
    return state === 'response' ? this.verify(keys) : null;
  }

  private challengeInitiator(offered: string | undefined): KeyPair[] | null {
    if (offered === undefined) return null;
    const offers = new Set(offered.split(',').map(parseNumber));
    const algorithm = algorithms.find(({ id }) => offers.has(id));
    if (algorithm === undefined) return null;
    this.state = 'response';
    this.hash = algorithm.hash;
    this.identifier = this.random.bytes(1)[0]!;
    this.challenge = this.random.bytes(challengeBytes);
    return [
      ['CHAP_A', String(algorithm.id)],
      ['CHAP_I', String(this.identifier)],
      ['CHAP_C', encodeBinary(this.challenge)],
    ];
  }

  private verify(keys: ReadonlyMap<string, string>): KeyPair[] | null {
    const response = parseBinary(keys.get('CHAP_R') ?? '');
    const expected = this.respond(this.identifier, this.credentials.secret, this.challenge);
    const isName = sameText(keys.get('CHAP_N') ?? '', this.credentials.user);
    const isProof =
      response !== null && response.length === expected.length && timingSafeEqual(response, expected);
    if (!isName || !isProof) return null;
    const answer = this.proveTarget(keys.get('CHAP_I'), keys.get('CHAP_C'));
    if (answer !== null) this.state = 'done';
    return answer;
  }

  /** An initiator that asks for a proof must get one: without it, it is told that authentication has failed. */
  private proveTarget(
    identifierText: string | undefined,
    challengeText: string | undefined,
  ): KeyPair[] | null {
    if (identifierText === undefined && challengeText === undefined) return [];
    const identifier = parseNumber(identifierText ?? '');
    const challenge = parseBinary(challengeText ?? '');
    if (this.mutual === null || identifier === null || identifier > 255 || challenge === null) return null;
    if (challenge.length > maxChallengeBytes) return null;
    // An answer to our own challenge, from this connection or another, could be played back to us (§9.2.1): never with
    // one secret for both directions.
    if (challenge.equals(this.challenge) || this.mutual.secret === this.credentials.secret) return null;
    return [
      ['CHAP_N', this.mutual.user],
      ['CHAP_R', encodeBinary(this.respond(identifier, this.mutual.secret, challenge))],
    ];
  }

  private respond(identifier: number, secret: string, challenge: Buffer): Buffer {
    return createHash(this.hash)
      .update(Buffer.of(identifier))
      .update(secret, 'utf8')
      .update(challenge)
      .digest();
  }
}

/** Compares without telling by its time where the difference is. */
function sameText(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text, 'utf8').digest();
  return timingSafeEqual(digest(a), digest(b));
}
