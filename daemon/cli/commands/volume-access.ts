import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { Attachment, Volume, WantedCredentials } from '../../api/schema.ts';
import { WeftError } from '../../base/errors.ts';
import { Session } from '../session.ts';
import { facts } from '../table.ts';

/** In the help of every option that takes credentials. */
export const credentialsHelp = 'auto, none, or a file with user and secret ("-": standard input)';

interface AccessOptions {
  chap?: string;
  mutualChap?: string;
  allow?: string;
  keepSessions?: boolean;
  showSecrets?: boolean;
}

export function addAccess(volume: Command): void {
  volume
    .command('access')
    .description('who may log in to a volume: look at it, or change it')
    .argument('<name>')
    .option('--chap <how>', `what initiators must know: ${credentialsHelp}; auto renews the secret`)
    .option('--mutual-chap <how>', `what the volume proves itself with: ${credentialsHelp}`)
    .option('--allow <names>', 'only these initiators, commas between, * at the end of a name; "any": all')
    .option(
      '--keep-sessions',
      'let those stay that logged in with the old secret, until their connection ends',
    )
    .option('--show-secrets', 'the CHAP users and secrets too')
    .action(async (name: string, options: AccessOptions, command: Command) => {
      const session = new Session(command);
      const change = accessOf(options);
      const isChange = Object.keys(change).length > 0;
      if (options.keepSessions && change.chap === undefined) {
        throw new WeftError(
          'INVALID_ARGUMENT',
          '--keep-sessions goes with --chap, and no change of it was given',
        );
      }
      const keepSessions = options.keepSessions === true ? { keepSessions: true } : {};
      const updated = isChange
        ? await session.client.updateVolume(name, { ...change, ...keepSessions })
        : { ...(await session.client.volume(name)), droppedSessions: 0 };
      const attachment = options.showSecrets ? await session.client.attachment(name) : null;
      const { authentication, allowedInitiators, droppedSessions } = updated;
      const secrets = attachment === null ? {} : secretsOf(attachment);
      session.show(
        { name, authentication, allowedInitiators, droppedSessions, ...secrets },
        facts([
          ['name', name],
          ...accessFacts(updated, attachment),
          ...(isChange ? [['sessions dropped', String(droppedSessions)] satisfies [string, string]] : []),
        ]),
      );
    });
}

/** What --chap, --mutual-chap and --allow ask for. @throws WeftError INVALID_ARGUMENT. */
export function accessOf({ chap, mutualChap, allow }: Pick<AccessOptions, 'chap' | 'mutualChap' | 'allow'>): {
  chap?: WantedCredentials;
  mutualChap?: WantedCredentials;
  allowedInitiators?: string[];
} {
  if (chap === '-' && mutualChap === '-') {
    throw new WeftError(
      'INVALID_ARGUMENT',
      'only one of --chap and --mutual-chap can come from standard input',
    );
  }
  return {
    ...(chap === undefined ? {} : { chap: credentialsOf('--chap', chap) }),
    ...(mutualChap === undefined ? {} : { mutualChap: credentialsOf('--mutual-chap', mutualChap) }),
    ...(allow === undefined ? {} : { allowedInitiators: allow === 'any' ? [] : namesOf(allow) }),
  };
}

/** From a file rather than the command line: everybody on the machine can read that. */
function credentialsOf(option: string, how: string): WantedCredentials {
  if (how === 'auto' || how === 'none') return how;
  let text: string;
  try {
    text = readFileSync(how === '-' ? 0 : how, 'utf8');
  } catch (cause) {
    throw new WeftError(
      'INVALID_ARGUMENT',
      `${option}: ${(cause as Error).message}; give ${credentialsHelp}`,
      {
        cause,
      },
    );
  }
  const [user, secret, ...more] = text.split(/\s+/).filter(Boolean);
  if (user === undefined || secret === undefined || more.length > 0) {
    const where = how === '-' ? 'standard input' : how;
    throw new WeftError(
      'INVALID_ARGUMENT',
      `${option}: ${where} must hold a user and a secret, a space between`,
    );
  }
  return { user, secret };
}

function namesOf(list: string): string[] {
  const names = list
    .split(',')
    .map((name) => name.trim())
    .filter(Boolean);
  if (names.length > 0) return names;
  throw new WeftError('INVALID_ARGUMENT', '--allow: name at least one initiator, or "any"');
}

export function secretsOf({ chap, mutualChap }: Attachment): Pick<Attachment, 'chap' | 'mutualChap'> {
  return { chap, mutualChap };
}

export function accessFacts(volume: Volume, attachment: Attachment | null): [string, string][] {
  const pairs: [string, string][] = [
    ['authentication', volume.authentication],
    ['initiators', volume.allowedInitiators.join(', ') || 'any'],
  ];
  if (attachment === null) return pairs;
  const { chap, mutualChap } = attachment;
  pairs.push(['CHAP user', chap?.user ?? 'none'], ['CHAP secret', chap?.secret ?? 'none']);
  if (mutualChap !== null) {
    pairs.push(['mutual CHAP user', mutualChap.user], ['mutual CHAP secret', mutualChap.secret]);
  }
  return pairs;
}
