import { type Command, Option } from 'commander';
import type { Container } from '../../api/schema.ts';
import { WeftError } from '../../base/errors.ts';
import { formatSize, parseSize } from '../../base/size.ts';
import { Session } from '../session.ts';
import { facts, table } from '../table.ts';

interface CreateOptions {
  chunkSize?: string;
  durability?: 'flush' | 'sync';
  quota?: string;
  retention?: string;
}

export function addContainerCommands(program: Command): void {
  const container = program.command('container').description('storage containers: policies for volumes');
  addCreate(container);
  container
    .command('ls')
    .description('list them')
    .action(async (_options: object, command: Command) => {
      const session = new Session(command);
      const containers = await session.client.containers();
      const rows = containers.map((one) => [
        one.name,
        String(one.volumeCount),
        formatSize(one.provisionedBytes),
        formatSize(one.usedBytes),
        one.quotaBytes === null ? '-' : formatSize(one.quotaBytes),
        one.durability,
        duration(one.trashRetentionSeconds),
      ]);
      const headings = ['NAME', 'VOLUMES>', 'PROVISIONED>', 'USED>', 'QUOTA>', 'DURABILITY', 'TRASH KEPT'];
      session.show(containers, table(headings, rows));
    });
  container
    .command('inspect')
    .description('everything about one')
    .argument('<name>')
    .action(async (name: string, _options: object, command: Command) => {
      const session = new Session(command);
      const found = await session.client.container(name);
      session.show(found, containerFacts(found));
    });
  container
    .command('rm')
    .description('remove those without volumes')
    .argument('<names...>')
    .action(async (names: string[], _options: object, command: Command) => {
      const session = new Session(command);
      for (const name of names) await session.client.removeContainer(name);
      session.show(
        names.map((name) => ({ name, state: 'removed' })),
        names.map((name) => `container ${name} is removed`).join('\n'),
      );
    });
}

function addCreate(container: Command): void {
  container
    .command('create')
    .description('make one')
    .argument('<name>')
    .option('--chunk-size <size>', 'unit of allocation and checksums: 4k, 8k, 16k, 32k or 64k (default: 16k)')
    .addOption(
      new Option('--durability <mode>', 'for volumes that name none (default: flush)').choices([
        'flush',
        'sync',
      ]),
    )
    .option('--quota <size>', 'largest sum of volume sizes, the trash included (default: none)')
    .option('--retention <time>', 'how long removed volumes can be restored: 0, 12h, 7d (default: 1d)')
    .action(async (name: string, options: CreateOptions, command: Command) => {
      const { chunkSize, durability, quota, retention } = options;
      const wanted = {
        name,
        ...(chunkSize === undefined ? {} : { chunkSizeBytes: parseSize(chunkSize, '--chunk-size') }),
        ...(durability === undefined ? {} : { durability }),
        ...(quota === undefined ? {} : { quotaBytes: parseSize(quota, '--quota') }),
        ...(retention === undefined
          ? {}
          : { trashRetentionSeconds: parseDuration(retention, '--retention') }),
      };
      const session = new Session(command);
      session.show(await session.client.createContainer(wanted), `container ${name} made`);
    });
}

function containerFacts(container: Container): string {
  return facts([
    ['name', container.name],
    ['volumes', String(container.volumeCount)],
    ['provisioned', formatSize(container.provisionedBytes)],
    ['used', formatSize(container.usedBytes)],
    ['quota', container.quotaBytes === null ? 'none' : formatSize(container.quotaBytes)],
    ['durability', container.durability],
    ['chunk size', formatSize(container.chunkSizeBytes)],
    ['replication factor', String(container.replicationFactor)],
    ['trash kept', duration(container.trashRetentionSeconds)],
    ['created', container.createdAt],
  ]);
}

const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Seconds of "0", "90s", "30m", "12h", "7d". @throws WeftError INVALID_ARGUMENT. */
function parseDuration(text: string, what: string): number {
  const [, digits, unit = 's'] = /^(\d{1,9})([smhd])?$/.exec(text) ?? [];
  if (digits === undefined) {
    throw new WeftError('INVALID_ARGUMENT', `${what}: "${text}" is not a time; write 0, 90s, 30m, 12h or 7d`);
  }
  return Number(digits) * (unitSeconds[unit] ?? 1);
}

function duration(seconds: number): string {
  if (seconds === 0) return 'not at all';
  const unit = ['d', 'h', 'm'].find((name) => seconds % (unitSeconds[name] ?? 1) === 0) ?? 's';
  return `${seconds / (unitSeconds[unit] ?? 1)}${unit}`;
}
