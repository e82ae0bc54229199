/**
 * Who is asking, and what of the fabric is theirs.
 *
 * | role   | sees                          | manages                        | secrets     |
 * |--------|-------------------------------|--------------------------------|-------------|
 * | admin  | everything                    | everything                     | all         |
 * | plugin | volumes it created            | volumes it created             | of its own  |
 * | viewer | everything                    | nothing                        | none        |
 *
 * To a plugin the volumes of others are not there (NOT_FOUND), but their names are taken (ALREADY_EXISTS).
 */
import { WeftError } from '../base/errors.ts';
import type { VolumeRecord } from '../control/documents.ts';
import type { Identity, Tokens } from '../control/tokens.ts';

const challenge =
  'send the header "Authorization: Bearer TOKEN"; the first token is in DIR/admin.token of weftd';

/**
 * Whose credentials an Authorization header carries: Bearer, or Basic with a token's name and the token.
 * @throws WeftError UNAUTHENTICATED.
 */
export function authenticate(tokens: Tokens, header: string | undefined): Identity {
  if (header === undefined) throw new WeftError('UNAUTHENTICATED', `no credentials: ${challenge}`);
  const [, scheme = '', credentials = ''] = /^(\S+) +(\S+)$/.exec(header) ?? [];
  const identity = identityOf(tokens, scheme.toLowerCase(), credentials);
  if (identity === null) throw new WeftError('UNAUTHENTICATED', `unknown credentials: ${challenge}`);
  return identity;
}

function identityOf(tokens: Tokens, scheme: string, credentials: string): Identity | null {
  if (scheme === 'bearer') return tokens.byToken(credentials);
  if (scheme !== 'basic') return null;
  const text = Buffer.from(credentials, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 0 ? null : tokens.byNameAndToken(text.slice(0, colon), text.slice(colon + 1));
}

/** Whether the volume exists as far as this caller is concerned. */
export function sees(identity: Identity, volume: VolumeRecord): boolean {
  return identity.role !== 'plugin' || volume.createdBy === identity.name;
}

/** Whether the caller may change the volume and see its secret. */
export function manages(identity: Identity, volume: VolumeRecord): boolean {
  return identity.role === 'admin' || (identity.role === 'plugin' && volume.createdBy === identity.name);
}

/** @throws WeftError NOT_FOUND as if it did not exist. */
export function seen(identity: Identity, volume: VolumeRecord, calledBy: string): VolumeRecord {
  if (sees(identity, volume)) return volume;
  throw new WeftError('NOT_FOUND', `there is no volume ${calledBy}`);
}

/** @throws WeftError FORBIDDEN. */
export function requireAdministrator(identity: Identity, what: string): void {
  if (identity.role === 'admin') return;
  throw new WeftError(
    'FORBIDDEN',
    `${what} is for administrators; the token ${identity.name} is a ${identity.role}'s`,
  );
}
