/** The key file on disk: the owner's alone, made when there is none; and other files that are the owner's alone. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { asWeftError, WeftError } from '../base/errors.ts';
import {
  decodeSecretKeys,
  encodeSecretKeys,
  type SecretKey,
  secretKey,
  secretKeyBytes,
} from '../format/secret-keys.ts';
import type { Random } from './random.ts';

export type SecretKeys = [SecretKey, ...SecretKey[]];

/** More is no key file. */
const maxFileBytes = 64 * 1024;

/**
 * Null when there is no such file.
 * @throws WeftError CONFIG_INVALID (others may read it), CORRUPT, FORMAT_TOO_NEW, IO_ERROR.
 */
export async function readSecretKeys(path: string): Promise<SecretKeys | null> {
  const file = await openPrivate(path).catch((error: Error) => {
    if ((error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') return null;
    throw error;
  });
  if (file === null) return null;
  try {
    const { size } = await file.stat();
    if (size > maxFileBytes) throw new WeftError('CORRUPT', `${path} is no key file: it has ${size} bytes`);
    return decodeSecretKeys(await file.readFile('utf8'), path) as SecretKeys;
  } catch (error) {
    throw asWeftError(error);
  } finally {
    await file.close();
  }
}

/**
 * For reading. The caller closes it.
 * @throws WeftError CONFIG_INVALID: it is no file, or others may read it; IO_ERROR.
 */
export async function openPrivate(path: string): Promise<FileHandle> {
  // Else a pipe would be waited for until somebody writes to it.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error) => {
    throw asWeftError(error);
  });
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new WeftError('CONFIG_INVALID', `${path} is no regular file; name one`);
    if ((stats.mode & 0o077) === 0) return file;
    throw new WeftError(
      'CONFIG_INVALID',
      `${path} may be read or written by others (mode ${(stats.mode & 0o777).toString(8)}): chmod 600 ${path}`,
    );
  } catch (error) {
    await file.close();
    throw asWeftError(error);
  }
}

/**
 * Makes the file with one new key; durable when this resolves.
 * @throws WeftError IO_ERROR, NO_SPACE.
 */
export async function makeSecretKeys(path: string, random: Random): Promise<SecretKeys> {
  const keys: SecretKeys = [secretKey(random.bytes(secretKeyBytes))];
  try {
    // Never over one that is there: what it sealed would be lost.
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(encodeSecretKeys(keys));
      await file.sync();
    } finally {
      await file.close();
    }
    const parent = await open(dirname(path), 'r');
    await parent.sync().finally(() => parent.close());
  } catch (thrown) {
    const { code, message, details } = asWeftError(thrown);
    throw new WeftError(code, `the key file ${path} cannot be made: ${message}`, { cause: thrown, details });
  }
  return keys;
}
