/**
 * The routes of the REST API that the plugin calls, over sparse files in place of LUNs. It outlives the plugins of a
 * test, can be away, and can have a stop put in at any of its requests.
 */
import { randomUUID } from 'node:crypto';
import { open, stat, truncate, unlink } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import { claimSchema, type Volume, volumeCreateSchema, volumeUpdateSchema } from '../../daemon/api/schema.ts';
import { type ErrorCode, WeftError } from '../../daemon/base/errors.ts';

const statusOf: Partial<Record<ErrorCode, number>> = {
  NOT_FOUND: 404,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  INVALID_ARGUMENT: 400,
  UNAVAILABLE: 503,
};

export class FakeFabric {
  readonly volumes = new Map<string, Volume>();
  readonly trash: Volume[] = [];
  /** Every request: "PUT /volumes/db/claim". */
  readonly requests: string[] = [];
  /** Called before a request is carried out and after, before it is answered. */
  onRequest: (what: string, when: 'before' | 'after') => void = () => {};
  /** Requests are accepted and never answered. */
  hangs = false;
  readonly directory: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #epoch = 0;
  #port = 0;

  constructor(directory: string) {
    this.directory = directory;
    this.#server = createServer((request, response) => {
      this.#handle(request, response).catch((error) => response.destroy(error));
    });
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Can be started again at the same address. */
  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  file(volume: Volume): string {
    return join(this.directory, `${volume.id}.lun`);
  }

  get(name: string): Volume {
    const volume = this.volumes.get(name);
    if (volume === undefined) throw new WeftError('NOT_FOUND', `there is no volume ${name}`);
    return volume;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const pieces: Buffer[] = [];
    for await (const piece of request as AsyncIterable<Buffer>) pieces.push(piece);
    if (this.hangs) return;
    const text = Buffer.concat(pieces).toString();
    const url = new URL(request.url ?? '/', this.url);
    const what = `${request.method} ${url.pathname.replace('/api/v1', '')}`;
    this.requests.push(what);
    this.onRequest(what, 'before');
    let status = 200;
    let document: unknown;
    try {
      if (request.headers.authorization !== 'Bearer right') {
        throw new WeftError('UNAUTHENTICATED', 'the token is not known');
      }
      document = await this.#route(what, text === '' ? undefined : JSON.parse(text), url.searchParams);
    } catch (error) {
      if (!(error instanceof WeftError)) throw error;
      status = statusOf[error.code] ?? 409;
      document = { error: { code: error.code, message: error.message, details: error.details } };
    }
    this.onRequest(what, 'after');
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(document === undefined ? '' : JSON.stringify(document));
  }

  async #route(what: string, body: unknown, query: URLSearchParams): Promise<unknown> {
    const [method, path] = what.split(' ') as [string, string];
    const [, kind, name = '', part] = path.split('/').map(decodeURIComponent);
    if (kind !== 'volumes') throw new WeftError('NOT_FOUND', `no route ${what}`);
    if (name === '') {
      if (method === 'GET')
        return { volumes: await Promise.all([...this.volumes.values()].map(this.#fresh)) };
      return this.#create(body);
    }
    const volume = this.get(name);
    if (part === 'attachment') {
      if (volume.createdBy !== 'plugin') throw new WeftError('FORBIDDEN', 'not your volume');
      return {
        portals: volume.portals,
        iqn: volume.iqn,
        lun: volume.lun,
        chap: { user: 'u', secret: 's' },
        mutualChap: null,
      };
    }
    if (part === 'claim') return method === 'PUT' ? this.#claim(volume, body) : this.#release(volume, query);
    if (method === 'GET') return this.#fresh(volume);
    if (method === 'PATCH') return this.#update(volume, body);
    if (method === 'DELETE') return this.#remove(volume);
    throw new WeftError('UNSUPPORTED', what);
  }

  readonly #fresh = async (volume: Volume): Promise<Volume> => {
    const { blocks } = await stat(this.file(volume)).catch(() => ({ blocks: 0 }));
    return { ...volume, usedBytes: blocks * 512 };
  };

  async #create(body: unknown): Promise<Volume> {
    const wanted = volumeCreateSchema.parse(body);
    if (this.volumes.has(wanted.name)) throw new WeftError('ALREADY_EXISTS', `${wanted.name} exists`);
    if (wanted.container === 'missing') throw new WeftError('NOT_FOUND', 'there is no container missing');
    return this.add(wanted.name, wanted.sizeBytes, {
      labels: wanted.labels ?? {},
      container: wanted.container ?? 'default',
      durability: wanted.durability ?? 'flush',
    });
  }

  async add(name: string, sizeBytes: number, parts: Partial<Volume> = {}): Promise<Volume> {
    const id = randomUUID();
    const volume: Volume = {
      id,
      name,
      container: 'default',
      sizeBytes,
      usedBytes: 0,
      allocatedBytes: 0,
      durability: 'flush',
      chunkSizeBytes: 16_384,
      physicalBlockBytes: 4096,
      state: 'online',
      createdAt: new Date(0).toISOString(),
      createdBy: 'plugin',
      fault: null,
      labels: {},
      filesystem: null,
      group: null,
      iqn: `iqn.2026-11.test:${id}`,
      lun: 1,
      portals: [this.directory],
      authentication: 'chap',
      allowedInitiators: [],
      claim: null,
      sessions: [],
      node: 'fabric-node',
      removedAt: null,
      purgeAt: null,
      ...parts,
    };
    await (await open(this.file(volume), 'w')).close();
    await truncate(this.file(volume), sizeBytes);
    this.volumes.set(name, volume);
    return volume;
  }

  async #update(volume: Volume, body: unknown): Promise<Volume> {
    const change = volumeUpdateSchema.parse(body);
    const [now, next] = [volume.filesystem, change.filesystem];
    if (next !== undefined) {
      const allowed =
        now === null ? next.state === 'making' : now.state === 'making' && now.uuid === next.uuid;
      if (!allowed) throw new WeftError('CONFLICT', 'the filesystem record does not allow that');
      volume.filesystem = next;
    }
    if (change.sizeBytes !== undefined) {
      volume.sizeBytes = change.sizeBytes;
      await truncate(this.file(volume), change.sizeBytes);
    }
    return this.#fresh(volume);
  }

  #claim(volume: Volume, body: unknown): unknown {
    const wanted = claimSchema.parse(body);
    if (volume.claim !== null && volume.claim.holder !== wanted.holder) {
      throw new WeftError('IN_USE', `volume ${volume.name} is claimed by ${volume.claim.holder}`, {
        details: { holder: volume.claim.holder },
      });
    }
    if (volume.claim === null) this.#epoch += 1;
    volume.claim = {
      holder: wanted.holder,
      initiator: wanted.initiator,
      epoch: volume.claim?.epoch ?? this.#epoch,
      expiresAt: new Date(Date.now() + 60_000).toISOString(),
    };
    return volume.claim;
  }

  /** Another host has the volume and gives it back. */
  passThroughOtherHost(name: string): void {
    this.#epoch += 1;
    this.get(name).claim = null;
  }

  #release(volume: Volume, query: URLSearchParams): undefined {
    if (volume.claim !== null && volume.claim.holder !== query.get('holder')) {
      throw new WeftError('IN_USE', `claimed by ${volume.claim.holder}`, {
        details: { holder: volume.claim.holder },
      });
    }
    volume.claim = null;
  }

  async #remove(volume: Volume): Promise<Volume> {
    if (volume.claim !== null) {
      throw new WeftError('IN_USE', `volume ${volume.name} is in use: claimed by ${volume.claim.holder}`, {
        details: { holder: volume.claim.holder },
      });
    }
    this.volumes.delete(volume.name);
    this.trash.push(volume);
    await unlink(this.file(volume));
    return { ...volume, state: 'trash' };
  }
}
