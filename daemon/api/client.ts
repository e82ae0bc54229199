/**
 * The API as the CLI and the plugin call it: one method a route, every call bounded in time, every failure a
 * WeftError. Besides the codes of the server: UNAVAILABLE (nobody answers, or not weftd), TIMEOUT (no answer in
 * time; what was asked for may have happened).
 */
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { type ErrorCode, errorCodes, WeftError } from '../base/errors.ts';
import { MiB } from '../base/limits.ts';
import type {
  Attachment,
  ClaimRequest,
  Container,
  ContainerCreate,
  ContainerUpdate,
  ErrorBody,
  FailedLogin,
  Status,
  TokenCreate,
  TokenCreated,
  TokenInfo,
  UpdatedVolume,
  Volume,
  VolumeClaim,
  VolumeCreate,
  VolumeUpdate,
} from './schema.ts';

export interface ClientOptions {
  /** http://HOST:PORT, without /api/v1. */
  url: string;
  token?: string;
  /** Instead of a token: Basic authentication, the token's name and the token itself. */
  username?: string;
  password?: string;
  /** For one call, connecting included. 30 s when absent. */
  timeoutMs?: number;
}

/** More is no answer of weftd: 64 MiB holds 50,000 volumes. */
const maxAnswerBytes = 64 * MiB;
const defaultTimeoutMs = 30_000;

export class WeftClient {
  readonly url: URL;
  readonly #authorization: string | null;
  readonly #timeoutMs: number;

  /** @throws WeftError INVALID_ARGUMENT when the URL is none. */
  constructor(options: ClientOptions) {
    const url = URL.canParse(options.url) ? new URL(options.url) : null;
    if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
      throw new WeftError(
        'INVALID_ARGUMENT',
        `"${options.url}" is no address of weftd; write http://HOST:PORT`,
      );
    }
    this.url = url;
    this.#timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
    this.#authorization = authorizationOf(options);
  }

  /** Whether a daemon is alive there. Needs no credentials. */
  async health(): Promise<void> {
    await this.#call('GET', '/healthz');
  }

  status(): Promise<Status> {
    return this.#call('GET', '/api/v1/status');
  }

  /** Initiators that were refused since the start, the last first; for administrators. */
  async failedLogins(): Promise<FailedLogin[]> {
    return (await this.#call<{ logins: FailedLogin[] }>('GET', '/api/v1/logins/failed')).logins;
  }

  async containers(): Promise<Container[]> {
    return (await this.#call<{ containers: Container[] }>('GET', '/api/v1/containers')).containers;
  }

  container(name: string): Promise<Container> {
    return this.#call('GET', path`/api/v1/containers/${name}`);
  }

  createContainer(wanted: ContainerCreate): Promise<Container> {
    return this.#call('POST', '/api/v1/containers', wanted);
  }

  /** For volumes that are made, and removed, from now on. */
  updateContainer(name: string, change: ContainerUpdate): Promise<Container> {
    return this.#call('PATCH', path`/api/v1/containers/${name}`, change);
  }

  /** IN_USE while it has volumes, in the trash or not. */
  async removeContainer(name: string): Promise<void> {
    await this.#call('DELETE', path`/api/v1/containers/${name}`);
  }

  /** Those the credentials may see, by name; none of the trash. */
  async volumes(): Promise<Volume[]> {
    return (await this.#call<{ volumes: Volume[] }>('GET', '/api/v1/volumes')).volumes;
  }

  volume(name: string): Promise<Volume> {
    return this.#call('GET', path`/api/v1/volumes/${name}`);
  }

  /** ALREADY_EXISTS when the name is taken; whether by the same thing is for the caller to look at. */
  createVolume(wanted: VolumeCreate): Promise<Volume> {
    return this.#call('POST', '/api/v1/volumes', wanted);
  }

  /** Grows it, records what was made of it, changes who may log in. */
  updateVolume(name: string, change: VolumeUpdate): Promise<UpdatedVolume> {
    return this.#call('PATCH', path`/api/v1/volumes/${name}`, change);
  }

  /**
   * Moves it to the trash; the answer is the volume as it lies there, null when it is gone for good (`purge`, or a
   * container that keeps no trash). IN_USE while somebody is logged in or has claimed it, unless an administrator
   * says `force`.
   */
  async removeVolume(
    name: string,
    options: { force?: boolean; purge?: boolean } = {},
  ): Promise<Volume | null> {
    const query = new URLSearchParams();
    if (options.force) query.set('force', 'true');
    if (options.purge) query.set('purge', 'true');
    const suffix = query.size > 0 ? `?${query}` : '';
    return (await this.#call<Volume | undefined>('DELETE', path`/api/v1/volumes/${name}` + suffix)) ?? null;
  }

  /** Brings back the one of this name that was removed last. `as`: under another name. */
  restoreVolume(name: string, as?: string): Promise<Volume> {
    return this.#call('POST', path`/api/v1/volumes/${name}/restore`, as === undefined ? {} : { as });
  }

  /** What an initiator needs to log in; FORBIDDEN for those who may not see the secret. */
  attachment(name: string): Promise<Attachment> {
    return this.#call('GET', path`/api/v1/volumes/${name}/attachment`);
  }

  /** Takes the claim, or renews it (same holder). IN_USE names the holder, in `details.holder` too. */
  claimVolume(name: string, claim: ClaimRequest): Promise<VolumeClaim> {
    return this.#call('PUT', path`/api/v1/volumes/${name}/claim`, claim);
  }

  /**
   * Gives the claim back; nothing happens when there is none. IN_USE when `holder` is not who has it. Without a
   * holder: whoever has it, for administrators.
   */
  async releaseClaim(name: string, holder?: string): Promise<void> {
    const suffix = holder === undefined ? '' : `?${new URLSearchParams({ holder })}`;
    await this.#call('DELETE', path`/api/v1/volumes/${name}/claim` + suffix);
  }

  /** What was removed and can be restored. */
  async trash(): Promise<Volume[]> {
    return (await this.#call<{ volumes: Volume[] }>('GET', '/api/v1/trash')).volumes;
  }

  restoreTrash(id: string, as?: string): Promise<Volume> {
    return this.#call('POST', path`/api/v1/trash/${id}/restore`, as === undefined ? {} : { as });
  }

  /** Answers when the space is given back. */
  async purge(id: string): Promise<void> {
    await this.#call('DELETE', path`/api/v1/trash/${id}`);
  }

  /** Purges all of the trash the credentials may manage; answers how many volumes that were. */
  async emptyTrash(): Promise<number> {
    return (await this.#call<{ purged: number }>('DELETE', '/api/v1/trash')).purged;
  }

  async tokens(): Promise<TokenInfo[]> {
    return (await this.#call<{ tokens: TokenInfo[] }>('GET', '/api/v1/tokens')).tokens;
  }

  /** The only time the token is shown. */
  createToken(wanted: TokenCreate): Promise<TokenCreated> {
    return this.#call('POST', '/api/v1/tokens', wanted);
  }

  async removeToken(name: string): Promise<void> {
    await this.#call('DELETE', path`/api/v1/tokens/${name}`);
  }

  async #call<Answer>(method: string, pathAndQuery: string, body?: unknown): Promise<Answer> {
    const answer = await this.#exchange(
      method,
      pathAndQuery,
      body === undefined ? null : JSON.stringify(body),
    );
    const document = this.#parse(answer);
    if (answer.status >= 200 && answer.status < 300) return document as Answer;
    throw errorFrom(document, answer.status, this.url.href);
  }

  #parse(answer: Answer): unknown {
    if (answer.body.length === 0) return undefined;
    try {
      return JSON.parse(answer.body.toString('utf8'));
    } catch (cause) {
      const type = answer.headers['content-type'] ?? 'no type';
      throw new WeftError(
        'UNAVAILABLE',
        `what answers at ${this.url.href} is not weftd (HTTP ${answer.status}, ${type}); check the address`,
        { cause },
      );
    }
  }

  #exchange(method: string, pathAndQuery: string, body: string | null): Promise<Answer> {
    const base = this.url.pathname.replace(/\/+$/, '');
    const target = new URL(base + pathAndQuery, this.url);
    const signal = AbortSignal.timeout(this.#timeoutMs);
    const send = target.protocol === 'https:' ? httpsRequest : httpRequest;
    const headers: Record<string, string> = { accept: 'application/json' };
    if (this.#authorization !== null) headers.authorization = this.#authorization;
    if (body !== null) {
      headers['content-type'] = 'application/json';
      headers['content-length'] = String(Buffer.byteLength(body));
    }
    return new Promise<Answer>((resolve, reject) => {
      const fail = (error: Error) => reject(this.#asUnreachable(error, signal.aborted));
      // A connection a call: one kept alive may be a restarted daemon's dead one, and a POST cannot be repeated.
      const request = send(target, { method, headers, signal, agent: false }, (response) => {
        const pieces: Buffer[] = [];
        let receivedBytes = 0;
        response.on('data', (piece: Buffer) => {
          receivedBytes += piece.length;
          if (receivedBytes > maxAnswerBytes) response.destroy(new Error('the answer is too long'));
          else pieces.push(piece);
        });
        response.on('error', fail);
        response.on('end', () => {
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(pieces),
          });
        });
      });
      request.on('error', fail);
      request.end(body ?? undefined);
    });
  }

  #asUnreachable(cause: Error, timedOut: boolean): WeftError {
    if (timedOut) {
      return new WeftError(
        'TIMEOUT',
        `weftd at ${this.url.href} did not answer within ${this.#timeoutMs / 1000} s; it may still do what was asked`,
        { cause },
      );
    }
    return new WeftError(
      'UNAVAILABLE',
      `cannot reach weftd at ${this.url.href}: ${reasonOf(cause)}; see that it runs and that the address is right`,
      { cause },
    );
  }
}

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

function authorizationOf(options: ClientOptions): string | null {
  if (options.token !== undefined) return `Bearer ${options.token}`;
  if (options.username === undefined) return null;
  return `Basic ${Buffer.from(`${options.username}:${options.password ?? ''}`).toString('base64')}`;
}

/** An AggregateError (every address of a name refused) has no message of its own. */
function reasonOf(error: Error): string {
  if (error.message !== '') return error.message;
  return (error as NodeJS.ErrnoException).code ?? error.name;
}

/** Names in paths are escaped here, once. */
function path(pieces: TemplateStringsArray, ...names: string[]): string {
  return String.raw({ raw: pieces }, ...names.map(segment));
}

/** "." and ".." vanish when a URL is resolved, and would hit another route: no name is one of them. */
function segment(name: string): string {
  if (name === '' || name === '.' || name === '..') {
    throw new WeftError('INVALID_ARGUMENT', `"${name}" is not a name`);
  }
  return encodeURIComponent(name);
}

function errorFrom(document: unknown, status: number, url: string): WeftError {
  const error = (document as Partial<ErrorBody> | undefined)?.error;
  if (error === undefined || typeof error.code !== 'string' || typeof error.message !== 'string') {
    return new WeftError(
      'UNAVAILABLE',
      `what answers at ${url} is not weftd (HTTP ${status}); check the address`,
    );
  }
  // A newer server may know codes this client does not.
  const code = Object.hasOwn(errorCodes, error.code) ? (error.code as ErrorCode) : 'INTERNAL';
  return new WeftError(code, error.message, { details: error.details ?? {} });
}
