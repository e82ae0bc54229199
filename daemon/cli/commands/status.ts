import type { Command } from 'commander';
import type { Status } from '../../api/schema.ts';
import { formatSize } from '../../base/size.ts';
import { Session } from '../session.ts';
import { facts } from '../table.ts';

export function addStatusCommand(program: Command): void {
  program
    .command('status')
    .description('how the fabric is')
    .action(async (_options: object, command: Command) => {
      const session = new Session(command);
      const status = await session.client.status();
      session.show(status, statusFacts(status));
    });
}

function statusFacts({
  node,
  state,
  version,
  startedAt,
  portals,
  capacity,
  journal,
  volumes,
  logins,
}: Status): string {
  const used = formatSize(capacity.usedBytes);
  return facts([
    ['node', `${node.name} (${node.id})`],
    ['state', state],
    ['version', version],
    ['started', startedAt],
    ['portals', portals.join(', ')],
    [
      'capacity',
      `${formatSize(capacity.freeBytes)} free of ${formatSize(capacity.totalBytes)}, ${used} used by Weft`,
    ],
    ['journal', `${formatSize(journal.usedBytes)} of ${formatSize(journal.capacityBytes)}`],
    ['volumes', `${volumes.online} online, ${volumes.trash} in the trash, ${volumes.sessions} sessions`],
    ...(volumes.faulty === 0
      ? []
      : [['not served', `${volumes.faulty} volumes: "weft volume ls"`] satisfies [string, string]]),
    ['logins', `${logins.succeeded} since the start, and ${logins.failed} that failed: "weft logins"`],
  ]);
}
