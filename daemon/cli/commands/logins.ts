import type { Command } from 'commander';
import { Session } from '../session.ts';
import { table } from '../table.ts';

export function addLoginsCommand(program: Command): void {
  program
    .command('logins')
    .description('initiators that could not log in since weftd started, and why (administrators)')
    .action(async (_options: object, command: Command) => {
      const session = new Session(command);
      const logins = await session.client.failedLogins();
      const rows = logins.map(({ lastAt, address, initiator, target, reason, count }) => {
        return [lastAt, address, initiator || '-', target || 'discovery', String(count), reason];
      });
      session.show(logins, table(['LAST', 'ADDRESS', 'INITIATOR', 'TARGET', 'COUNT>', 'WHY'], rows));
    });
}
