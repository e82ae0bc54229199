import type { Command } from 'commander';
import type { Volume } from '../../api/schema.ts';
import { WeftError } from '../../base/errors.ts';
import { formatSize } from '../../base/size.ts';
import { Session } from '../session.ts';
import { table } from '../table.ts';
import { volumeJson } from './volume.ts';

export function addTrashCommands(program: Command): void {
  const trash = program.command('trash').description('removed volumes, until they are destroyed');
  trash
    .command('ls')
    .description('list them, the last removed first')
    .action(async (_options: object, command: Command) => {
      const session = new Session(command);
      const volumes = await session.client.trash();
      const rows = volumes.map((volume) => [
        volume.name,
        volume.id,
        formatSize(volume.sizeBytes),
        formatSize(volume.usedBytes),
        volume.removedAt ?? '',
        volume.purgeAt ?? '',
      ]);
      session.show(
        volumes.map(volumeJson),
        table(['NAME', 'ID', 'SIZE>', 'USED>', 'REMOVED', 'DESTROYED AT'], rows),
      );
    });
  trash
    .command('rm')
    .description('destroy removed volumes now; nothing brings them back')
    .argument('<ids...>', 'their ids, or names when only one of the name is there')
    .action(async (wanted: string[], _options: object, command: Command) => {
      const session = new Session(command);
      const volumes = await session.client.trash();
      // All are found before the first is destroyed.
      const doomed = wanted.map((idOrName) => pick(volumes, idOrName));
      const gone: Volume[] = [];
      try {
        for (const volume of doomed) {
          await session.client.purge(volume.id);
          gone.push(volume);
        }
      } finally {
        session.show(
          gone.map(({ id, name }) => ({ id, name, state: 'purged' })),
          gone.map(({ id, name }) => `volume ${name} (${id}) is gone`).join('\n'),
        );
      }
    });
  trash
    .command('empty')
    .description('destroy all removed volumes now; nothing brings them back')
    .action(async (_options: object, command: Command) => {
      const session = new Session(command);
      const purged = await session.client.emptyTrash();
      session.show({ purged }, `${purged} ${purged === 1 ? 'volume is' : 'volumes are'} gone`);
    });
}

function pick(volumes: Volume[], idOrName: string): Volume {
  const found = volumes.filter((volume) => volume.id === idOrName || volume.name === idOrName);
  if (found.length === 1 && found[0] !== undefined) return found[0];
  if (found.length === 0) {
    throw new WeftError(
      'NOT_FOUND',
      `there is no ${idOrName} in the trash; "weft trash ls" shows what is there`,
    );
  }
  const ids = found.map((volume) => `${volume.id} (removed ${volume.removedAt})`).join(', ');
  throw new WeftError(
    'INVALID_ARGUMENT',
    `several volumes ${idOrName} are in the trash; say which by its id: ${ids}`,
  );
}
