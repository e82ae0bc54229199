import { type Command, Option } from 'commander';
import type { Role } from '../../api/schema.ts';
import { Session } from '../session.ts';
import { table } from '../table.ts';

export function addTokenCommands(program: Command): void {
  const token = program.command('token').description('who may speak to the fabric (administrators)');
  token
    .command('create')
    .description('make a token; it is shown this one time')
    .argument('<name>')
    .addOption(
      new Option('--role <role>', 'admin: everything; plugin: its own volumes; viewer: reads all but secrets')
        .choices(['admin', 'plugin', 'viewer'])
        .makeOptionMandatory(),
    )
    .action(async (name: string, options: { role: Role }, command: Command) => {
      const session = new Session(command);
      const created = await session.client.createToken({ name, role: options.role });
      session.show(created, created.token);
    });
  token
    .command('ls')
    .description('list them')
    .action(async (_options: object, command: Command) => {
      const session = new Session(command);
      const tokens = await session.client.tokens();
      const rows = tokens.map(({ name, role, createdAt }) => [name, role, createdAt]);
      session.show(tokens, table(['NAME', 'ROLE', 'CREATED'], rows));
    });
  token
    .command('rm')
    .description('revoke tokens at once')
    .argument('<names...>')
    .action(async (names: string[], _options: object, command: Command) => {
      const session = new Session(command);
      for (const name of names) await session.client.removeToken(name);
      session.show(
        names.map((name) => ({ name, state: 'removed' })),
        names.map((name) => `token ${name} is revoked`).join('\n'),
      );
    });
}
