/**
 * Every error code of Weft, in one table.
 *
 * A code is stable: it appears in API answers, in Docker's `Err`, in logs and in the CLI's exit. Code branches
 * on `error.code`, never on the text. Each rim maps the codes once: `api/http-errors.ts` to HTTP,
 * `scsi/sense.ts` to SCSI sense data, `plugin/docker-errors.ts` to Docker's `Err`, `cli/` to exit codes.
 */
export const errorCodes = {
  // What was asked for is wrong.
  INVALID_ARGUMENT: 'a value is malformed or out of range; the message names it and what is allowed',
  CONFIG_INVALID: 'a configuration key is unknown or has a bad value',
  UNAUTHENTICATED: 'no credentials, or credentials nobody knows',
  FORBIDDEN: 'the credentials are known and do not allow this',
  NOT_FOUND: 'there is no such thing',
  ALREADY_EXISTS: 'the name is taken',
  CONFLICT: 'the thing exists and differs from what was asked for, or changed meanwhile',
  IN_USE: 'somebody uses it; the message names the user',
  PAYLOAD_TOO_LARGE: 'the request body exceeds its limit',
  UNSUPPORTED: 'this version cannot do that',
  // What is asked for is right and cannot be done now.
  NO_SPACE: 'the store has no room for the write; nothing acknowledged is lost',
  UNAVAILABLE: 'a part that is needed does not answer; try again',
  TIMEOUT: 'the time limit of the operation ran out',
  SHUTTING_DOWN: 'the daemon drains and takes no new work',
  FENCED: 'the request carries an epoch that has been superseded',
  // The world is damaged.
  CORRUPT: 'stored data fails its checksum or its format; nothing is served in its place',
  IO_ERROR: 'the operating system refused a read or a write',
  FORMAT_TOO_NEW: 'the data was written by a newer version of Weft',
  LOCKED: 'another process holds the data directory',
  NOT_BLANK: 'a device carries data that must not be formatted over',
  TOOL_FAILED: 'a system tool (iscsiadm, mkfs, mount, ...) failed; the message has its words',
  INTERNAL: 'a fault in Weft itself',
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** An expected failure of the world. Programmer's faults are assertions (`assert.ts`), never this. */
export class WeftError extends Error {
  readonly code: ErrorCode;
  /** Facts for programs: the key, the holder, the limits. Never secrets. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; details?: Record<string, unknown> } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = 'WeftError';
    this.code = code;
    this.details = options.details ?? {};
  }
}

/** Anything thrown, as a WeftError: an operating system's error keeps its errno in the details. */
export function asWeftError(thrown: unknown): WeftError {
  if (thrown instanceof WeftError) return thrown;
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const errno = (error as NodeJS.ErrnoException).code;
  if (errno === 'ENOSPC' || errno === 'EDQUOT') {
    return new WeftError('NO_SPACE', `no space left on the store: ${error.message}`, {
      cause: error,
      details: { errno },
    });
  }
  if (typeof errno === 'string' && /^E[A-Z0-9]+$/.test(errno)) {
    return new WeftError('IO_ERROR', error.message, { cause: error, details: { errno } });
  }
  return new WeftError('INTERNAL', error.message, { cause: error });
}
