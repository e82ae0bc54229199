/** The files with secrets that an administrator keeps beside the data: the key file, and the discovery's credentials. */
import { join } from 'node:path';
import type { Logger } from 'pino';
import { credentialsSchema } from './api/schema.ts';
import { asWeftError, WeftError } from './base/errors.ts';
import type { Config } from './config.ts';
import type { TargetCredentials } from './control/access.ts';
import type { ControlStore } from './control/control-store.ts';
import { Secrets } from './control/secrets.ts';
import { sealingKeys, upgradeVolumeRecords } from './control/volume-upgrade.ts';
import type { Random } from './env/random.ts';
import { makeSecretKeys, openPrivate, readSecretKeys } from './env/secret-key-file.ts';

/** Two users and secrets of 255 bytes. */
const maxDiscoveryFileBytes = 2_048;

/**
 * The fabric's secrets, with everything in the control store sealed with the key in use.
 * @throws WeftError CONFIG_INVALID, CORRUPT: the key file is missing, not the right one, or damaged.
 */
export async function openSecrets(
  config: Pick<Config, 'secretsKeyFile' | 'secretsLost'>,
  dataDirectory: string,
  env: { store: ControlStore; random: Random; log: Pick<Logger, 'info' | 'warn'> },
): Promise<Secrets> {
  const { store, random, log } = env;
  const keyFile = config.secretsKeyFile ?? join(dataDirectory, 'secrets.key');
  const renewLost = config.secretsLost === 'renew';
  const found = await readSecretKeys(keyFile);
  if (found === null && !renewLost && (await sealingKeys(store)).size > 0) {
    throw new WeftError(
      'CONFIG_INVALID',
      `there is no key file ${keyFile}, and the CHAP secrets of volumes are sealed with its key: put it back, or ` +
        'name the place it is at now with --secrets-key-file. If it is lost for good, --secrets-lost renew gives ' +
        'these volumes new secrets; no data is lost',
      { details: { keyFile } },
    );
  }
  const secrets = new Secrets(found ?? (await makeSecretKeys(keyFile, random)), random);
  if (found === null) log.info({ keyFile }, 'a key file was made: keep a copy of it, apart from the data');
  const { sealed, resealed, renewed } = await upgradeVolumeRecords({
    store,
    secrets,
    random,
    keyFile,
    renewLost,
  });
  if (sealed.length > 0)
    log.info({ volumes: sealed.length }, 'CHAP secrets were sealed that were in the clear');
  if (resealed.length > 0)
    log.info({ volumes: resealed.length }, 'CHAP secrets were sealed with the new key');
  if (renewed.length > 0)
    log.warn({ volumes: renewed }, 'CHAP secrets were lost and are new: tell initiators');
  return secrets;
}

/** Null without a file. @throws WeftError CONFIG_INVALID naming the file, and nothing of what is in it. */
export async function readDiscoveryChap(path: string | null): Promise<TargetCredentials | null> {
  if (path === null) return null;
  const words = (await readPrivate(path)).split(/\s+/).filter(Boolean);
  const pairs = [words.slice(0, 2), words.slice(2, 4)];
  const [chap, mutualChap] = pairs.map(
    ([user, secret]) => credentialsSchema.safeParse({ user, secret }).data,
  );
  const isMutual = words.length === 4;
  const isGood = chap !== undefined && (isMutual ? mutualChap !== undefined : words.length === 2);
  if (!isGood || chap.secret === mutualChap?.secret) {
    throw new WeftError(
      'CONFIG_INVALID',
      `iscsi.discoveryChap: ${path} must hold a user and a secret of 12 to 255 printable ASCII characters, and for ` +
        'mutual CHAP another user and another secret, with spaces or line ends between them',
    );
  }
  return { chap, mutualChap: mutualChap ?? null };
}

async function readPrivate(path: string): Promise<string> {
  try {
    const file = await openPrivate(path);
    try {
      const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(maxDiscoveryFileBytes) });
      return buffer.toString('utf8', 0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw new WeftError('CONFIG_INVALID', `iscsi.discoveryChap: ${asWeftError(cause).message}`, { cause });
  }
}
