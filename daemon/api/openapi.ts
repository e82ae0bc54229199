/** The OpenAPI 3.1 description of the API, made from the routes and their schemas: it cannot differ from them. */
import { z } from 'zod';
import { errorCodes } from '../base/errors.ts';
import type { Route } from './route.ts';
import { nameSchema } from './schema.ts';

export function openApiDocument(routes: readonly Route[], version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const operations = paths[`/api/v1${route.path}`] ?? {};
    operations[route.method.toLowerCase()] = operation(route);
    paths[`/api/v1${route.path}`] = operations;
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Weft',
      version,
      description: 'Sizes are in bytes, times are ISO 8601 in UTC. Unknown keys are refused.',
    },
    paths,
    components: {
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer' },
        basic: {
          type: 'http',
          scheme: 'basic',
          description: "A token's name, and the token as the password.",
        },
      },
      schemas: { Error: errorSchema() },
    },
    security: [{ bearer: [] }, { basic: [] }],
  };
}

function operation(route: Route): Record<string, unknown> {
  const json = (schema: unknown) => ({ 'application/json': { schema } });
  return {
    summary: route.summary,
    description: `For the roles ${route.roles.join(', ')}.`,
    parameters: [...pathParameters(route), ...queryParameters(route)],
    ...(route.body === undefined
      ? {}
      : { requestBody: { required: true, content: json(z.toJSONSchema(route.body, { io: 'input' })) } }),
    responses: {
      '2XX': { description: route.answer },
      default: { description: 'Error', content: json({ $ref: '#/components/schemas/Error' }) },
    },
  };
}

function pathParameters(route: Route): unknown[] {
  return Array.from(route.path.matchAll(/\{(\w+)\}/g), ([, name = '']) => ({
    name,
    in: 'path',
    required: true,
    schema: z.toJSONSchema(name === 'id' ? z.uuid() : nameSchema),
  }));
}

function queryParameters(route: Route): unknown[] {
  return Object.entries(route.query?.shape ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    schema: z.toJSONSchema(schema as z.ZodType, { io: 'input' }),
  }));
}

function errorSchema(): unknown {
  const meanings = Object.entries(errorCodes).map(([code, meaning]) => `- ${code}: ${meaning}`);
  return {
    type: 'object',
    required: ['error'],
    properties: {
      error: {
        type: 'object',
        required: ['code', 'message', 'details'],
        properties: {
          code: { type: 'string', enum: Object.keys(errorCodes), description: meanings.join('\n') },
          message: { type: 'string' },
          details: { type: 'object' },
        },
      },
    },
  };
}
