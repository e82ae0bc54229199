import { type Command, Option } from 'commander';
import type { Attachment, Volume } from '../../api/schema.ts';
import { WeftError } from '../../base/errors.ts';
import { formatSize, parseSize } from '../../base/size.ts';
import { Session } from '../session.ts';
import { facts, table } from '../table.ts';
import { accessFacts, accessOf, addAccess, credentialsHelp, secretsOf } from './volume-access.ts';

export function addVolumeCommands(program: Command): void {
  const volume = program.command('volume').description('make, look at, grow and remove volumes');
  addCreate(volume);
  addLooking(volume);
  addResize(volume);
  addAccess(volume);
  addRemoval(volume);
}

function addCreate(volume: Command): void {
  volume
    .command('create')
    .description('make a volume')
    .argument('<name>', 'unique across the fabric')
    .option('--size <size>', 'how large: 10g, 512m, plain bytes', '10g')
    .option('--container <name>', 'the storage container it is made in (default: "default")')
    .addOption(
      new Option('--durability <mode>', "when a write is acknowledged (default: the container's)").choices([
        'flush',
        'sync',
      ]),
    )
    .addOption(
      new Option('--physical-block <bytes>', 'what initiators are told of; 512 for those that refuse 4096')
        .choices(['512', '4096'])
        .default('4096'),
    )
    .option('--chap <how>', `what initiators must know: ${credentialsHelp}`, 'auto')
    .option('--mutual-chap <how>', `what the volume proves itself with: ${credentialsHelp}`)
    .option('--allow <names>', 'only these initiators, commas between, * at the end of a name')
    .option('--group <group>', 'make it the next LUN of this group of volumes, behind one iSCSI target')
    .action(async (name: string, options: CreateOptions, command: Command) => {
      const sizeBytes = parseSize(options.size, '--size');
      const session = new Session(command);
      const created = await session.client.createVolume({
        name,
        sizeBytes,
        ...accessOf(options),
        ...(options.container === undefined ? {} : { container: options.container }),
        ...(options.durability === undefined ? {} : { durability: options.durability }),
        ...(options.group === undefined ? {} : { group: options.group }),
        ...(options.physicalBlock === '512' ? { physicalBlockBytes: 512 } : {}),
      });
      session.show(
        volumeJson(created),
        `volume ${name} made: ${formatSize(created.sizeBytes)}, ${created.iqn}`,
      );
    });
}

interface CreateOptions {
  size: string;
  chap: string;
  mutualChap?: string;
  allow?: string;
  container?: string;
  group?: string;
  physicalBlock: '512' | '4096';
  durability?: 'flush' | 'sync';
}

function addLooking(volume: Command): void {
  volume
    .command('ls')
    .description('list the volumes')
    .action(async (_options: object, command: Command) => {
      const session = new Session(command);
      const volumes = await session.client.volumes();
      session.show(volumes.map(volumeJson), volumeTable(volumes));
    });
  volume
    .command('inspect')
    .description('everything about one volume')
    .argument('<name>')
    .option('--show-secrets', 'the CHAP users and secrets too')
    .action(async (name: string, options: { showSecrets?: boolean }, command: Command) => {
      const session = new Session(command);
      const found = await session.client.volume(name);
      const attachment = options.showSecrets ? await session.client.attachment(name) : null;
      const chap = attachment === null ? {} : secretsOf(attachment);
      session.show({ ...volumeJson(found), ...chap }, volumeFacts(found, attachment));
    });
}

function addResize(volume: Command): void {
  volume
    .command('resize')
    .description('make a volume larger')
    .argument('<name>')
    .argument('[size]', 'the new size: 20g, 512m, plain bytes')
    .option('--size <size>', 'the same as an option')
    .action(async (name: string, size: string | undefined, options: { size?: string }, command: Command) => {
      const written = size ?? options.size;
      if (written === undefined || (size !== undefined && options.size !== undefined)) {
        throw new WeftError(
          'INVALID_ARGUMENT',
          `say the new size once: weft volume resize ${name} --size 20g`,
        );
      }
      const sizeBytes = parseSize(written, '--size');
      const session = new Session(command);
      const grown = await session.client.updateVolume(name, { sizeBytes });
      session.show(volumeJson(grown), `volume ${name} has ${formatSize(grown.sizeBytes)} now`);
    });
}

function addRemoval(volume: Command): void {
  volume
    .command('rm')
    .description('move volumes to the trash')
    .argument('<names...>')
    .option('--purge', 'destroy them at once; nothing brings them back')
    .option('--force', 'drop whoever uses them (administrators)')
    .action(async (names: string[], options: { purge?: boolean; force?: boolean }, command: Command) => {
      const session = new Session(command);
      const removed: object[] = [];
      const lines: string[] = [];
      try {
        for (const name of names) {
          const left = await session.client.removeVolume(name, options);
          const { id = null, state = 'purged', purgeAt = null } = left ?? {};
          removed.push({ name, id, state, purgeAt });
          lines.push(
            left === null
              ? `volume ${name} is gone`
              : `volume ${name} is in the trash until ${purgeAt}; "weft volume restore ${name}" brings it back`,
          );
        }
      } finally {
        // What was removed before one could not be.
        if (removed.length > 0) session.show(removed, lines.join('\n'));
      }
    });
  volume
    .command('restore')
    .description('bring a volume back from the trash: the one of this name that was removed last')
    .argument('<name>')
    .option('--as <newname>', 'under another name')
    .option('--id <id>', 'an older one, by its id in "weft trash ls"')
    .action(async (name: string, options: { as?: string; id?: string }, command: Command) => {
      const session = new Session(command);
      const restored =
        options.id === undefined
          ? await session.client.restoreVolume(name, options.as)
          : await session.client.restoreTrash(options.id, options.as);
      session.show(volumeJson(restored), `volume ${restored.name} is back`);
    });
  volume
    .command('release')
    .description('drop the claim on a volume and its sessions, when its holder will not (administrators)')
    .argument('<name>')
    .action(async (name: string, _options: object, command: Command) => {
      const session = new Session(command);
      await session.client.releaseClaim(name);
      session.show({ name, claim: null }, `volume ${name} is claimed by nobody`);
    });
}

/** As the API has it, with the sizes, all in bytes, under short names. */
export function volumeJson(volume: Volume): Record<string, unknown> {
  const { sizeBytes, usedBytes, allocatedBytes, chunkSizeBytes, physicalBlockBytes, ...rest } = volume;
  return {
    ...rest,
    size: sizeBytes,
    used: usedBytes,
    allocated: allocatedBytes,
    chunkSize: chunkSizeBytes,
    physicalBlock: physicalBlockBytes,
  };
}

function volumeTable(volumes: Volume[]): string {
  const rows = volumes.map((volume) => [
    volume.name,
    formatSize(volume.sizeBytes),
    formatSize(volume.usedBytes),
    volume.container,
    volume.durability,
    userOf(volume),
  ]);
  return table(['NAME', 'SIZE>', 'USED>', 'CONTAINER', 'DURABILITY', 'USED BY'], rows);
}

function userOf(volume: Volume): string {
  if (volume.fault !== null) return 'nobody: "weft volume inspect" says why';
  if (volume.claim !== null) return volume.claim.holder;
  return volume.sessions.map((session) => session.initiator).join(', ') || '-';
}

function volumeFacts(volume: Volume, attachment: Attachment | null): string {
  const { claim, filesystem } = volume;
  const labels = Object.entries(volume.labels).map(([key, value]) => `${key}=${value}`);
  const pairs: [string, string][] = [
    ['name', volume.name],
    ['id', volume.id],
    ['container', volume.container],
    ['size', formatSize(volume.sizeBytes)],
    ['used', formatSize(volume.usedBytes)],
    ['allocated', formatSize(volume.allocatedBytes)],
    ['durability', volume.durability],
    ...(volume.fault === null ? [] : [['fault', volume.fault] satisfies [string, string]]),
    ['chunk size', formatSize(volume.chunkSizeBytes)],
    ['physical block', `${volume.physicalBlockBytes} bytes`],
    [
      'filesystem',
      filesystem === null ? 'none recorded' : `${filesystem.type} ${filesystem.uuid}, ${filesystem.state}`,
    ],
    ['created', `${volume.createdAt} by ${volume.createdBy}`],
    ['labels', labels.join(', ') || 'none'],
    ['node', volume.node],
    ...(volume.group === null ? [] : [['group', volume.group] satisfies [string, string]]),
    ['iqn', volume.iqn],
    ['lun', String(volume.lun)],
    ['portals', volume.portals.join(', ')],
    ...accessFacts(volume, attachment),
    ['claim', claim === null ? 'nobody' : `${claim.holder} (${claim.initiator}), lapses ${claim.expiresAt}`],
    ...volume.sessions.map(({ initiator, address, since }): [string, string] => [
      'session',
      `${initiator} from ${address} since ${since}`,
    ]),
  ];
  return facts(pairs);
}
