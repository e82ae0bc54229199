import { type Command, Option } from 'commander';
import type { Container, ContainerUpdate } from '../../api/schema.ts';
import { WeftError } from '../../base/errors.ts';
import { formatSize, parseSize } from '../../base/size.ts';
import { Session } from '../session.ts';
import { facts, table } from '../table.ts';

interface PolicyOptions {
  durability?: 'flush' | 'sync';
  quota?: string;
  retention?: string;
}

interface CreateOptions extends PolicyOptions {
  chunkSize?: string;
}

export function addContainerCommands(program: Command): void {
  const container = program.command('container').description('storage containers: policies for volumes');
  addCreate(container);
  addSet(container);
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
    .addOption(durabilityOption('for volumes that name none (default: flush)'))
    .option('--quota <size>', 'largest sum of volume sizes, the trash included (default: none)')
    .option('--retention <time>', 'how long removed volumes can be restored: 0, 12h, 7d (default: 1d)')
    .action(async (name: string, options: CreateOptions, command: Command) => {
      const { chunkSize } = options;
      const wanted = {
        name,
        ...(chunkSize === undefined ? {} : { chunkSizeBytes: parseSize(chunkSize, '--chunk-size') }),
        ...policyOf(options),
      };
      const session = new Session(command);
      session.show(await session.client.createContainer(wanted), `container ${name} made`);
    });
}

function addSet(container: Command): void {
  container
    .command('set')
    .description('change the policy for volumes that are made, and removed, from now on')
    .argument('<name>')
    .addOption(durabilityOption('for volumes that name none'))
    .option('--quota <size>', 'largest sum of volume sizes, the trash included; none: any')
    .option('--retention <time>', 'how long removed volumes can be restored: 0, 12h, 7d')
    .action(async (name: string, options: PolicyOptions, command: Command) => {
      const wanted = policyOf(options);
      if (Object.keys(wanted).length === 0) {
        throw new WeftError('INVALID_ARGUMENT', 'say what to change: --durability, --quota or --retention');
      }
      const session = new Session(command);
      const container = await session.client.updateContainer(name, wanted);
      session.show(container, containerFacts(container));
    });
}

function durabilityOption(meaning: string): Option {
  return new Option('--durability <mode>', meaning).choices(['flush', 'sync']);
}

function policyOf({ durability, quota, retention }: PolicyOptions): ContainerUpdate {
  return {
    ...(durability === undefined ? {} : { durability }),
    ...(quota === undefined ? {} : { quotaBytes: quota === 'none' ? null : parseSize(quota, '--quota') }),
    ...(retention === undefined ? {} : { trashRetentionSeconds: parseDuration(retention, '--retention') }),
  };
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
