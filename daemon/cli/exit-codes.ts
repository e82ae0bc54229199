/** The only place where error codes become exit codes. */
import type { ErrorCode, WeftError } from '../base/errors.ts';

export const exitMeanings = {
  0: 'done',
  1: 'failed otherwise; the message says why',
  2: 'the command line or a value in it is wrong',
  3: 'there is no such thing',
  4: 'no credentials, or they do not allow it',
  5: 'it exists already, is in use, or changed meanwhile',
  6: 'weftd did not answer, or cannot now; try again',
} as const;

type ExitCode = keyof typeof exitMeanings;

const exitCodes: Readonly<Partial<Record<ErrorCode, ExitCode>>> = {
  INVALID_ARGUMENT: 2,
  CONFIG_INVALID: 2,
  PAYLOAD_TOO_LARGE: 2,
  NOT_FOUND: 3,
  UNAUTHENTICATED: 4,
  FORBIDDEN: 4,
  ALREADY_EXISTS: 5,
  CONFLICT: 5,
  IN_USE: 5,
  UNAVAILABLE: 6,
  TIMEOUT: 6,
  SHUTTING_DOWN: 6,
};

export function exitCodeOf(error: WeftError): number {
  return exitCodes[error.code] ?? 1;
}
