/** The plugin's socket: HTTP in, one call of the driver, HTTP out. It accepts before anything else is ready. */
import { mkdir, unlink } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createConnection } from 'node:net';
import { dirname } from 'node:path';
import type { Logger } from 'pino';
import { asWeftError, WeftError } from '../daemon/base/errors.ts';
import { dockerErr, protocolStatus } from './docker-errors.ts';
import { answerType, type DriverRequest, maxBodyBytes, parseRequest } from './protocol.ts';

/** What answers the calls. The signal aborts when the caller has gone. */
export interface CallHandler {
  call(request: DriverRequest, signal: AbortSignal): Promise<Record<string, unknown>>;
  /** The caller never saw the answer of this one. */
  undelivered(request: DriverRequest): Promise<void>;
}

/** dockerd has a handful of connections; more are somebody's mistake. */
const maxConnections = 256;
const headersTimeoutMs = 10_000;
const requestTimeoutMs = 20_000;

/** @throws WeftError LOCKED when another plugin listens there. */
export async function listen(socketPath: string, handler: CallHandler, log: Logger): Promise<Server> {
  await mkdir(dirname(socketPath), { recursive: true });
  await removeStaleSocket(socketPath);
  const server = createServer((request, response) => {
    handle(request, response, handler, log).catch((error) => {
      log.error({ err: error }, 'a call could not be answered');
      response.destroy();
    });
  });
  server.maxConnections = maxConnections;
  server.headersTimeout = headersTimeoutMs;
  server.requestTimeout = requestTimeoutMs;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path: socketPath, readableAll: false, writableAll: false }, resolve);
  });
  return server;
}

async function removeStaleSocket(path: string): Promise<void> {
  const isServed = await new Promise<boolean>((resolve) => {
    const probe = createConnection(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (isServed) throw new WeftError('LOCKED', `another plugin listens on ${path}; stop it first`);
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}

async function handle(request: IncomingMessage, response: ServerResponse, handler: CallHandler, log: Logger) {
  const gone = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) gone.abort();
  });
  const path = new URL(request.url ?? '/', 'http://plugin').pathname;
  let call: ReturnType<typeof parseRequest>;
  try {
    if (request.method !== 'POST')
      throw new WeftError('UNSUPPORTED', `${request.method} ${path}: calls are POST`);
    call = parseRequest(path, await readBody(request));
  } catch (thrown) {
    const error = asWeftError(thrown);
    log.debug({ path, code: error.code, message: error.message }, 'refused a request');
    if (error.code === 'PAYLOAD_TOO_LARGE') response.setHeader('connection', 'close');
    answer(response, protocolStatus(error.code), { Err: dockerErr(error) });
    return;
  }
  if (call.operation === 'Activate') {
    answer(response, 200, { Implements: ['VolumeDriver'] });
    return;
  }
  const startedMs = performance.now();
  let result: Record<string, unknown>;
  try {
    result = { ...(await handler.call(call, gone.signal)), Err: '' };
  } catch (thrown) {
    const error = asWeftError(thrown);
    log[error.code === 'INTERNAL' ? 'error' : 'info'](
      { call: summary(call), code: error.code, err: error },
      error.message,
    );
    answer(response, 200, { Err: dockerErr(error) });
    return;
  }
  log.debug({ call: summary(call), tookMs: Math.round(performance.now() - startedMs) }, 'answered');
  if (gone.signal.aborted) await handler.undelivered(call);
  else answer(response, 200, result);
}

function summary(call: DriverRequest): Record<string, unknown> {
  return {
    operation: call.operation,
    ...('Name' in call ? { volume: call.Name } : {}),
    ...('ID' in call ? { id: call.ID } : {}),
  };
}

function answer(response: ServerResponse, status: number, document: Record<string, unknown>): void {
  const body = JSON.stringify(document);
  response.writeHead(status, { 'content-type': answerType, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

/** The rest of a body that is too long is read and dropped, so that the refusal reaches its sender. */
async function readBody(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let receivedBytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    receivedBytes += piece.length;
    if (receivedBytes <= maxBodyBytes) pieces.push(piece);
    if (receivedBytes > 1024 * maxBodyBytes) break;
  }
  if (receivedBytes > maxBodyBytes) {
    throw new WeftError('PAYLOAD_TOO_LARGE', `the body is longer than ${maxBodyBytes} bytes`);
  }
  return Buffer.concat(pieces);
}
