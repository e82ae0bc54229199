/** The only place where error codes become HTTP statuses, and where what was thrown becomes an ErrorBody. */
import { z } from 'zod';
import { AssertionFault } from '../base/assert.ts';
import { asWeftError, type ErrorCode, WeftError } from '../base/errors.ts';
import type { ErrorBody } from './schema.ts';

export const httpStatuses: Readonly<Record<ErrorCode, number>> = {
  INVALID_ARGUMENT: 400,
  CONFIG_INVALID: 500,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  ALREADY_EXISTS: 409,
  CONFLICT: 409,
  IN_USE: 409,
  PAYLOAD_TOO_LARGE: 413,
  UNSUPPORTED: 501,
  NO_SPACE: 507,
  UNAVAILABLE: 503,
  TIMEOUT: 504,
  SHUTTING_DOWN: 503,
  FENCED: 409,
  CORRUPT: 500,
  IO_ERROR: 500,
  FORMAT_TOO_NEW: 500,
  LOCKED: 409,
  NOT_BLANK: 409,
  TOOL_FAILED: 500,
  INTERNAL: 500,
};

export interface HttpError {
  status: number;
  body: ErrorBody;
}

/** What the caller is told. The words of faults of our own stay in the log. */
export function asHttpError(thrown: unknown): HttpError {
  const error = asApiError(thrown);
  const message =
    error.code === 'INTERNAL' ? 'a fault in Weft itself; the log of weftd has the details' : error.message;
  return {
    status: httpStatuses[error.code],
    body: { error: { code: error.code, message, details: { ...error.details } } },
  };
}

function asApiError(thrown: unknown): WeftError {
  if (thrown instanceof AssertionFault) return new WeftError('INTERNAL', thrown.message, { cause: thrown });
  if (thrown instanceof WeftError) return thrown;
  // What Express and its body parser throw carries a status and, mostly, a type.
  const { status, type } = (thrown ?? {}) as { status?: unknown; type?: unknown };
  if (type === 'entity.too.large') {
    return new WeftError('PAYLOAD_TOO_LARGE', 'the request body is too large; 64 KiB are allowed');
  }
  if (type === 'entity.parse.failed') {
    return new WeftError('INVALID_ARGUMENT', 'the request body is not JSON');
  }
  if (typeof status === 'number' && status >= 400 && status < 500) {
    return new WeftError('INVALID_ARGUMENT', `the request cannot be read: ${(thrown as Error).message}`);
  }
  return asWeftError(thrown);
}

/**
 * The value as the schema has it.
 * @throws WeftError INVALID_ARGUMENT naming each key, what is wrong and what is allowed.
 */
export function parseAs<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  what: string,
): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => {
    const key = issue.path.map(String).join('.');
    return { key: key === '' ? what : key, message: describe(schema, issue) };
  });
  const text = problems.map(({ key, message }) => `${key}: ${message}`).join('; ');
  throw new WeftError('INVALID_ARGUMENT', text, { details: { problems } });
}

function describe(schema: z.ZodType, issue: z.core.$ZodIssue): string {
  if (issue.code !== 'unrecognized_keys' || issue.path.length > 0 || !(schema instanceof z.ZodObject)) {
    return issue.message;
  }
  const allowed = Object.keys(schema.shape);
  return `${issue.message}; ${allowed.length === 0 ? 'none is allowed' : `allowed: ${allowed.join(', ')}`}`;
}
