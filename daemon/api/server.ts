/**
 * The REST API. A request passes: headers and time limits (node:http) -> who is it -> is the role allowed -> body and
 * path checked against their schemas -> the route. Whatever fails answers an ErrorBody.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express, { type Express, type NextFunction, type Request, type Response } from 'express';
import type { Logger } from 'pino';
import { z } from 'zod';
import { WeftError } from '../base/errors.ts';
import { KiB } from '../base/limits.ts';
import type { Identity } from '../control/tokens.ts';
import { authenticate } from './access.ts';
import { asHttpError, parseAs } from './http-errors.ts';
import { openApiDocument } from './openapi.ts';
import { type ApiServices, everybody, type Route, route } from './route.ts';
import { claimRoutes } from './routes/claims.ts';
import { containerRoutes } from './routes/containers.ts';
import { nodeRoutes } from './routes/node.ts';
import { tokenRoutes } from './routes/tokens.ts';
import { trashRoutes } from './routes/trash.ts';
import { volumeRoutes } from './routes/volumes.ts';
import { nameSchema } from './schema.ts';

/** The largest document, a volume with all its labels, stays below. */
const maxBodyBytes = 64 * KiB;
const maxHeaderBytes = 16 * KiB;
/** To send the headers; the whole request. A slow client holds no connection longer. */
const headersTimeoutMs = 10_000;
const requestTimeoutMs = 30_000;
/** Plugins and people are few; more is somebody's mistake. */
const maxConnections = 1_000;
/** What is under way at close gets so long. */
const closeGraceMs = 5_000;

export interface ApiServer {
  /** Port 0: any free one. @throws WeftError UNAVAILABLE when the address is taken or not ours. */
  listen(host: string, port: number): Promise<{ host: string; port: number }>;
  /** Takes no more requests; resolves when those under way are answered, or after a grace. */
  close(): Promise<void>;
}

export function createApiServer(services: ApiServices, log: Logger): ApiServer {
  const server = createServer({ maxHeaderSize: maxHeaderBytes }, application(services, log));
  server.headersTimeout = headersTimeoutMs;
  server.requestTimeout = requestTimeoutMs;
  server.maxConnections = maxConnections;
  return {
    listen: (host, port) => listen(server, host, port),
    close: () => close(server),
  };
}

export function allRoutes(services: ApiServices): Route[] {
  const routes: Route[] = [
    ...nodeRoutes(services),
    ...containerRoutes(services),
    ...volumeRoutes(services),
    ...claimRoutes(services),
    ...trashRoutes(services),
    ...tokenRoutes(services),
  ];
  routes.push(
    route({
      method: 'GET',
      path: '/openapi.json',
      summary: 'This description.',
      roles: everybody,
      answer: 'An OpenAPI 3.1 document',
      handle: async () => ({ status: 200, body: openApiDocument(routes, services.node.version) }),
    }),
  );
  return routes;
}

function application(services: ApiServices, log: Logger): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.enable('case sensitive routing');
  app.enable('strict routing');
  app.set('query parser', 'simple');
  app.use((request, response, next) => {
    logWhenAnswered(services, log, request, response);
    response.set('cache-control', 'no-store');
    next();
  });
  app.get('/healthz', (_request, response) => {
    response.json({ alive: true });
  });
  app.use('/api/v1', (request, response, next) => {
    identify(response, authenticate(services.catalog.tokens, request.headers.authorization));
    next();
  });
  // Nobody unknown makes the daemon read a body.
  app.use('/api/v1', refuseOtherThanJson);
  app.use('/api/v1', express.json({ limit: maxBodyBytes, inflate: false, strict: false }));
  for (const route of allRoutes(services)) mount(app, route);
  app.use((request) => {
    throw new WeftError('NOT_FOUND', `there is no ${request.method} ${request.path} in this API`);
  });
  app.use((thrown: unknown, _request: Request, response: Response, next: NextFunction) => {
    if (response.headersSent) return next(thrown);
    const { status, body } = asHttpError(thrown);
    if (status >= 500) log.error({ err: thrown }, 'a request failed');
    if (status === 401) response.set('www-authenticate', 'Bearer realm="weft", Basic realm="weft"');
    response.status(status).json(body);
  });
  return app;
}

function mount(app: Express, route: Route): void {
  const verb = route.method.toLowerCase() as 'get' | 'post' | 'put' | 'patch' | 'delete';
  const path = `/api/v1${route.path.replaceAll(/\{(\w+)\}/g, ':$1')}`;
  const querySchema = route.query ?? z.strictObject({});
  app[verb](path, async (request: Request, response: Response) => {
    const identity = identityOf(response);
    if (!route.roles.includes(identity.role)) {
      throw new WeftError(
        'FORBIDDEN',
        `${route.method} ${route.path} is for the roles ${route.roles.join(', ')}; ` +
          `the token ${identity.name} has the role ${identity.role}`,
      );
    }
    const { name, id } = request.params as { name?: string; id?: string };
    const answer = await route.handle({
      identity,
      name: name === undefined ? '' : parseAs(nameSchema, name, 'name'),
      id: id === undefined ? '' : parseAs(z.uuid(), id, 'id'),
      body:
        route.body === undefined
          ? undefined
          : parseAs(route.body, request.body === undefined ? {} : request.body, 'body'),
      query: parseAs(querySchema, { ...request.query }, 'query'),
    });
    if (answer.body === undefined) response.status(answer.status).end();
    else response.status(answer.status).json(answer.body);
  });
}

function refuseOtherThanJson(request: Request, _response: Response, next: NextFunction): void {
  const empty = (request.headers['content-length'] ?? '0') === '0' && !request.headers['transfer-encoding'];
  if (empty || request.is('application/json')) return next();
  throw new WeftError(
    'INVALID_ARGUMENT',
    'the request body must be JSON, sent as content-type: application/json',
  );
}

function identify(response: Response, identity: Identity): void {
  response.locals['identity'] = identity;
}

function identityOf(response: Response): Identity {
  return response.locals['identity'] as Identity;
}

/** Neither headers nor bodies: they carry tokens and secrets. */
function logWhenAnswered({ clock }: ApiServices, log: Logger, request: Request, response: Response): void {
  const startedAtMs = clock.monotonicMs();
  const { method, originalUrl } = request;
  response.on('close', () => {
    const identity = response.locals['identity'] as Identity | undefined;
    const line = {
      method,
      url: originalUrl.slice(0, 300),
      status: response.writableFinished ? response.statusCode : 'aborted',
      durationMs: Math.round(clock.monotonicMs() - startedAtMs),
      token: identity?.name ?? null,
    };
    if (method === 'GET' && response.statusCode < 400) log.debug(line, 'request');
    else log.info(line, 'request');
  });
}

function listen(server: Server, host: string, port: number): Promise<{ host: string; port: number }> {
  return new Promise((resolve, reject) => {
    const refused = (cause: Error) => {
      const message = `cannot listen on ${host}:${port} for the API: ${cause.message}; choose another --api HOST:PORT`;
      reject(new WeftError('UNAVAILABLE', message, { cause }));
    };
    server.once('error', refused);
    server.listen(port, host, () => {
      server.off('error', refused);
      const address = server.address() as AddressInfo;
      resolve({ host: address.address, port: address.port });
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const grace = setTimeout(() => server.closeAllConnections(), closeGraceMs);
    server.close(() => {
      clearTimeout(grace);
      resolve();
    });
    server.closeIdleConnections();
  });
}
