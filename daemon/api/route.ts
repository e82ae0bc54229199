/** What a route is: data, from which the server, the authorisation and the OpenAPI document are made. */
import type { z } from 'zod';
import type { Catalog } from '../control/catalog.ts';
import type { Identity, Role } from '../control/tokens.ts';
import type { Clock } from '../env/clock.ts';

/** What routes need of the daemon. */
export interface ApiServices {
  catalog: Catalog;
  clock: Clock;
  node: { id: string; name: string; version: string; startedAt: string; state(): 'ready' | 'draining' };
}

export interface Call<Body, Query> {
  identity: Identity;
  /** Of the path; checked to be a name. Empty when the path has none. */
  name: string;
  /** Of the path; checked to be a UUID. Empty when the path has none. */
  id: string;
  body: Body;
  query: Query;
}

/** `body` undefined: none, with status 204. */
export interface Answer {
  status: number;
  body?: unknown;
}

export interface Route {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Below /api/v1, with {name} or {id}. */
  path: string;
  summary: string;
  /** Who may call it at all; what they may call it on is decided by access.ts. */
  roles: readonly Role[];
  body?: z.ZodType | undefined;
  query?: z.ZodObject | undefined;
  /** Name of the answer's document in api/schema.ts. */
  answer: string;
  handle(call: Call<unknown, unknown>): Promise<Answer>;
}

/** A route whose handler sees the types of its schemas. */
export function route<
  Body extends z.ZodType = z.ZodUndefined,
  Query extends z.ZodObject = z.ZodObject<Record<never, never>>,
>(
  definition: Omit<Route, 'body' | 'query' | 'handle'> & {
    body?: Body;
    query?: Query;
    handle(call: Call<z.output<Body>, z.output<Query>>): Promise<Answer>;
  },
): Route {
  return definition as unknown as Route;
}

export const everybody: readonly Role[] = ['admin', 'plugin', 'viewer'];
export const managers: readonly Role[] = ['admin', 'plugin'];
export const administrators: readonly Role[] = ['admin'];
