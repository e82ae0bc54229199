/**
 * The only map from Weft's errors to Docker's `Err`. dockerd shows the text as it is, and knows no codes: so the text
 * must say by itself what happened and what to do, with the code in front for those who search.
 */
import { asWeftError, type ErrorCode } from '../daemon/base/errors.ts';

/** More does not fit on a terminal. `-o help` needs about 1,300. */
const maxErrCharacters = 4096;

/** What to do next, where the message alone may not say it. */
const advice: Partial<Record<ErrorCode, string>> = {
  UNAUTHENTICATED: 'check WEFT_TOKEN of the plugin (docker plugin set)',
  FORBIDDEN: 'the plugin may manage only volumes made with its own token',
  UNAVAILABLE: 'try again; if it stays, see the log of the plugin and of weftd',
  INTERNAL: 'this is a fault in Weft; the log of the plugin has the details',
};

export function dockerErr(thrown: unknown): string {
  const error = asWeftError(thrown);
  const hint = advice[error.code];
  const text = `weft: ${error.message}${hint === undefined ? '' : ` (${hint})`} [${error.code}]`;
  return text.length > maxErrCharacters ? `${text.slice(0, maxErrCharacters - 1)}…` : text;
}

/**
 * The HTTP status beside it. dockerd reads `Err` from 200 as the plain message and puts the method's name before that
 * of others, so an operation's failure is a 200 and only what is no VolumeDriver request at all is a 4xx.
 */
export function protocolStatus(code: ErrorCode): number {
  if (code === 'PAYLOAD_TOO_LARGE') return 413;
  return code === 'UNSUPPORTED' ? 404 : 400;
}
