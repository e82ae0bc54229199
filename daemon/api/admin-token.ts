/**
 * The first administrator's token, in DIR/admin.token (mode 0600), under the name "admin".
 *
 *  - A new fabric: made at the first start. A file that holds a token already (put there by a provisioning tool) is
 *    taken as it is.
 *  - Token lost or leaked: remove the file and start the daemon again; "admin" gets a new token, the old one is dead.
 *  - "admin" was removed in favour of other administrators: it stays removed, whatever the file says.
 *
 * The file is written before the hash is recorded: a crash in between leaves a file that the next start takes.
 */
import { open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { asWeftError, WeftError } from '../base/errors.ts';
import type { Tokens } from '../control/tokens.ts';

const adminName = 'admin';
const tokenPattern = /^[A-Za-z0-9_-]{32,256}$/;

/** The file's path. @throws WeftError CONFIG_INVALID when it holds no token; IO_ERROR. */
export async function ensureAdminToken(dataDirectory: string, tokens: Tokens): Promise<string> {
  const path = join(dataDirectory, 'admin.token');
  const known = tokens.list();
  const admin = known.find((token) => token.name === adminName);
  const inFile = await readToken(path);
  const administered = known.some((token) => token.role === 'admin');
  if (administered && (admin === undefined || inFile !== null)) return path;
  const token = inFile ?? tokens.generate();
  if (inFile === null) await writeToken(dataDirectory, path, token);
  await tokens.replace(adminName, 'admin', token);
  return path;
}

async function readToken(path: string): Promise<string | null> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw asWeftError(error);
  }
  const token = text.trim();
  if (tokenPattern.test(token)) return token;
  throw new WeftError(
    'CONFIG_INVALID',
    `${path} holds no token (32 to 256 letters, digits, "_" or "-"); remove the file to get a new one`,
  );
}

async function writeToken(directory: string, path: string, token: string): Promise<void> {
  try {
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.chmod(0o600);
      await file.writeFile(`${token}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
    const parent = await open(directory, 'r');
    await parent.sync().finally(() => parent.close());
  } catch (error) {
    throw asWeftError(error);
  }
}
