/**
 * CHAP as iSCSI uses it (RFC 7143 §12.1.3, RFC 1994): response = H(identifier, secret, challenge).
 *
 *   initiator                                 target
 *   CHAP_A=7,5                        ──>
 *                                     <──     CHAP_A=7 CHAP_I=n CHAP_C=challenge
 *   CHAP_N=user CHAP_R=response       ──>
 *   [CHAP_I=m CHAP_C=challenge]       <──     [CHAP_N=user CHAP_R=response]
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Random } from '../env/random.ts';
import { encodeBinary, type KeyPair, parseBinary, parseNumber } from './key-text.ts';
import type { ChapCredentials } from './target-directory.ts';

/** Strongest first. 5 is the one every initiator has; 7 came with RFC 7143's registry (IANA, PPP authentication). */
const algorithms = [
  { id: 7, hash: 'sha256' },
  { id: 5, hash: 'md5' },
] as const;

const challengeBytes = 32;
/** §12.1.3: the largest a challenge may be. */
const maxChallengeBytes = 1024;

export class ChapExchange {
  private readonly credentials: ChapCredentials;
  private readonly mutual: ChapCredentials | null;
  private readonly random: Random;
  private hash: string | null = null;
  private identifier = 0;
  private challenge: Buffer = Buffer.alloc(0);
  isDone = false;

  constructor(credentials: ChapCredentials, mutual: ChapCredentials | null, random: Random) {
    this.credentials = credentials;
    this.mutual = mutual;
    this.random = random;
  }

  /** Takes the CHAP keys of one request; answers with ours, or null when authentication has failed. */
  next(keys: ReadonlyMap<string, string>): KeyPair[] | null {
    if (this.isDone) return null;
    if (this.hash === null) return this.challengeInitiator(keys.get('CHAP_A'));
    return this.verify(keys);
  }

  private challengeInitiator(offered: string | undefined): KeyPair[] | null {
    if (offered === undefined) return null;
    const offers = new Set(offered.split(',').map(parseNumber));
    const algorithm = algorithms.find(({ id }) => offers.has(id));
    if (algorithm === undefined) return null;
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
    if (answer !== null) this.isDone = true;
    return answer;
  }

  private proveTarget(
    identifierText: string | undefined,
    challengeText: string | undefined,
  ): KeyPair[] | null {
    if (identifierText === undefined && challengeText === undefined) return [];
    const identifier = parseNumber(identifierText ?? '');
    const challenge = parseBinary(challengeText ?? '');
    if (this.mutual === null || identifier === null || identifier > 255 || challenge === null) return null;
    if (challenge.length > maxChallengeBytes) return null;
    // An answer to our own challenge could be played back to us (§9.2.1).
    if (challenge.equals(this.challenge) || this.mutual.secret === this.credentials.secret) return null;
    return [
      ['CHAP_N', this.mutual.user],
      ['CHAP_R', encodeBinary(this.respond(identifier, this.mutual.secret, challenge))],
    ];
  }

  private respond(identifier: number, secret: string, challenge: Buffer): Buffer {
    return createHash(this.hash!)
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
