/** Who may speak to the API: named tokens with a role, kept as hashes. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { WeftError } from '../base/errors.ts';
import type { CatalogCore } from './catalog.ts';
import type { TokenRecord } from './documents.ts';
import type { Mirror } from './mirror.ts';

/** admin: everything. plugin: creates volumes and manages those it created. viewer: reads all but secrets. */
export type Role = TokenRecord['role'];

/** Who asks: a token's name and its role. */
export interface Identity {
  name: string;
  role: Role;
}

/** Every one is compared with at each request. */
const maxTokens = 1_000;
/** Stands in for a name nobody has, so that the answer takes as long. */
const nobody = Buffer.alloc(32);

export class Tokens {
  readonly #core: CatalogCore;
  readonly #tokens: Mirror<TokenRecord>;

  constructor(core: CatalogCore, tokens: Mirror<TokenRecord>) {
    this.#core = core;
    this.#tokens = tokens;
  }

  async open(): Promise<void> {
    await this.#tokens.open(this.#core.store);
  }

  list(): TokenRecord[] {
    return this.#tokens.values().sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** A token nobody can guess: 256 random bits. */
  generate(): string {
    return `weft_${this.#core.random.bytes(32).toString('base64url')}`;
  }

  /** @throws WeftError ALREADY_EXISTS. */
  async create(name: string, role: Role): Promise<TokenRecord & { token: string }> {
    const token = this.generate();
    return { ...(await this.#record(name, role, token, false)), token };
  }

  /** Makes `token` the one of this name, whatever it had before. */
  async replace(name: string, role: Role, token: string): Promise<void> {
    await this.#record(name, role, token, true);
  }

  #record(name: string, role: Role, token: string, replace: boolean): Promise<TokenRecord> {
    return this.#core.change((change) => {
      const known = change.read(this.#tokens, name);
      if (known !== undefined && !replace) {
        throw new WeftError(
          'ALREADY_EXISTS',
          `there is a token ${name} already; remove it, or choose another name`,
        );
      }
      if (known === undefined && this.#tokens.size >= maxTokens) {
        throw new WeftError('UNSUPPORTED', `a fabric has at most ${maxTokens} tokens`);
      }
      const sha256 = hash(token).toString('hex');
      const record: TokenRecord = { schemaVersion: 1, name, role, sha256, createdAt: this.#core.nowIso() };
      change.put(this.#tokens, name, record);
      return record;
    });
  }

  /** @throws WeftError NOT_FOUND; CONFLICT for the last administrator's. */
  async remove(name: string): Promise<void> {
    await this.#core.change((change) => {
      const token = change.read(this.#tokens, name);
      if (token === undefined) throw new WeftError('NOT_FOUND', `there is no token ${name}`);
      // The others are conditions too: two administrators that remove each other at once cannot both succeed.
      const administrators = this.list().filter((other) => other.role === 'admin');
      for (const other of administrators) change.read(this.#tokens, other.name);
      if (token.role === 'admin' && administrators.length === 1) {
        throw new WeftError(
          'CONFLICT',
          `${name} is the only administrator's token; create another one before it is removed`,
        );
      }
      change.remove(this.#tokens, name);
    });
  }

  /** Whose token it is; null when nobody's. Takes the same time whichever it is. */
  byToken(token: string): Identity | null {
    const wanted = hash(token);
    let found: Identity | null = null;
    for (const { name, role, sha256 } of this.#tokens.values()) {
      if (timingSafeEqual(Buffer.from(sha256, 'hex'), wanted)) found = { name, role };
    }
    return found;
  }

  /** For Basic authentication: the token must be the one of this name. */
  byNameAndToken(name: string, token: string): Identity | null {
    const known = this.#tokens.get(name);
    const equal = timingSafeEqual(
      known === undefined ? nobody : Buffer.from(known.sha256, 'hex'),
      hash(token),
    );
    return known !== undefined && equal ? { name: known.name, role: known.role } : null;
  }
}

function hash(token: string): Buffer {
  return createHash('sha256').update(token, 'utf8').digest();
}
