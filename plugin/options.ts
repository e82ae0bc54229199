/**
 * The options of `docker volume create -d weft -o KEY=VALUE`: one table, from which reading, comparing, `-o help` and
 * every refusal are made.
 */
import { type Durability, defaultContainerName, namePattern } from '../daemon/api/schema.ts';
import { WeftError } from '../daemon/base/errors.ts';
import {
  defaultVolumeSizeBytes,
  MiB,
  maxVolumeSizeBytes,
  volumeSizeGranuleBytes,
} from '../daemon/base/limits.ts';
import { formatSize, parseSize } from '../daemon/base/size.ts';

export type FilesystemType = 'ext4' | 'xfs';

/** Values as they were written, by option. */
export type OptionSource = Readonly<Partial<Record<OptionName, string>>>;
export const noOptions: OptionSource = {};

/** What a volume is made with. */
export interface VolumeOptions {
  sizeBytes: number;
  /** null: the fabric's default container. */
  container: string | null;
  fs: FilesystemType;
  /** null: what the container says. */
  durability: Durability | null;
  uid: number;
  gid: number;
  /** Permission bits of the root directory. */
  mode: number;
}

/** The smallest volumes their mkfs accepts, rounded up to something useful, in bytes. */
const minFilesystemBytes: Record<FilesystemType, number> = { ext4: 16 * MiB, xfs: 300 * MiB };

interface OptionDefinition {
  allowed: string;
  fallback: string;
  /** Puts the value into the options, or throws for a bad one. */
  read(text: string, into: VolumeOptions): void;
}

const definitions = {
  size: {
    allowed: `a size: 10g, 512m, or plain bytes; at most ${formatSize(maxVolumeSizeBytes)}`,
    fallback: formatSize(defaultVolumeSizeBytes),
    read: (text, into) => {
      into.sizeBytes = roundUp(parseSize(text, 'size'));
    },
  },
  sizeMb: {
    allowed: 'the size in MiB, a whole number; not together with size',
    fallback: 'none',
    read: (text, into) => {
      into.sizeBytes = roundUp(wholeNumber(text, 1, maxVolumeSizeBytes / MiB) * MiB);
    },
  },
  container: {
    allowed: 'the name of a storage container of the fabric',
    fallback: defaultContainerName,
    read: (text, into) => {
      if (!namePattern.test(text)) throw new Error('not a name');
      into.container = text;
    },
  },
  fs: {
    allowed: 'ext4 or xfs',
    fallback: 'ext4',
    read: (text, into) => {
      if (text !== 'ext4' && text !== 'xfs') throw new Error('not a filesystem');
      into.fs = text;
    },
  },
  durability: {
    allowed: 'flush (survives power loss once flushed) or sync (every write does)',
    fallback: 'what the container says',
    read: (text, into) => {
      if (text !== 'flush' && text !== 'sync') throw new Error('not a durability');
      into.durability = text;
    },
  },
  uid: {
    allowed: 'the owner of the root directory, a whole number from 0 to 4294967294',
    fallback: '0',
    read: (text, into) => {
      into.uid = wholeNumber(text, 0, maxUserId);
    },
  },
  gid: {
    allowed: 'the group of the root directory, a whole number from 0 to 4294967294',
    fallback: '0',
    read: (text, into) => {
      into.gid = wholeNumber(text, 0, maxUserId);
    },
  },
  mode: {
    allowed: 'the permissions of the root directory in octal, 0 to 7777',
    fallback: '0755',
    read: (text, into) => {
      if (!/^0?o?[0-7]{1,4}$/.test(text)) throw new Error('not octal');
      into.mode = Number.parseInt(text.replace('o', ''), 8);
    },
  },
} satisfies Record<string, OptionDefinition>;

export type OptionName = keyof typeof definitions;
const optionNames = Object.keys(definitions) as OptionName[];
/** 2^32 - 1 means "leave as it is" to chown. */
const maxUserId = 0xffff_fffe;

function roundUp(sizeBytes: number): number {
  return Math.ceil(sizeBytes / volumeSizeGranuleBytes) * volumeSizeGranuleBytes;
}

function wholeNumber(text: string, least: number, most: number): number {
  const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!(number >= least && number <= most)) throw new Error('not in range');
  return number;
}

function isOptionName(name: string): name is OptionName {
  return Object.hasOwn(definitions, name);
}

/** What `-o help` answers. */
export function optionHelp(defaults: OptionSource = noOptions, overrides: OptionSource = noOptions): string {
  const lines = optionNames.map((name) => {
    const standard =
      overrides[name] !== undefined
        ? `always ${overrides[name]} on this host`
        : `default: ${defaults[name] ?? definitions[name].fallback}`;
    return `  -o ${name}=...  ${definitions[name].allowed} (${standard})`;
  });
  return [
    'options of Weft volumes; nothing was created:',
    ...lines,
    '  -o help  prints this',
    'example: docker volume create -d weft -o size=2g -o fs=xfs db',
  ].join('\n');
}

/** Every key and value checked on its own; the values stay as written. @throws WeftError INVALID_ARGUMENT */
export function checkOptions(given: Readonly<Record<string, string>>): OptionSource {
  for (const [name, text] of Object.entries(given)) {
    if (!isOptionName(name)) {
      throw new WeftError(
        'INVALID_ARGUMENT',
        `unknown option "${name.slice(0, 64)}"; the options are ${optionNames.join(', ')} (-o help explains them)`,
        { details: { option: name.slice(0, 64), allowed: optionNames } },
      );
    }
    checkValue(name, text);
  }
  if (given.size !== undefined && given.sizeMb !== undefined) {
    throw new WeftError('INVALID_ARGUMENT', 'both size and sizeMb are given; give one of them');
  }
  return given;
}

function checkValue(name: OptionName, text: string): void {
  const scratch = fallbackOptions();
  try {
    definitions[name].read(text, scratch);
    if (scratch.sizeBytes > maxVolumeSizeBytes) throw new Error('too large');
  } catch (cause) {
    const found = JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}...` : text);
    throw new WeftError(
      'INVALID_ARGUMENT',
      `bad value ${found} for ${name}: it takes ${definitions[name].allowed}`,
      {
        cause,
        details: { option: name, allowed: definitions[name].allowed },
      },
    );
  }
}

/** "size=20g,fs=xfs", the form of WEFT_DEFAULTS and WEFT_OVERRIDES. */
export function readOptionList(text: string): OptionSource {
  const list: Record<string, string> = {};
  for (const item of text.split(',')) {
    if (item.trim() === '') continue;
    const at = item.indexOf('=');
    if (at < 0)
      throw new WeftError('CONFIG_INVALID', `"${item.slice(0, 80)}" is not KEY=VALUE; write size=20g,fs=xfs`);
    list[item.slice(0, at).trim()] = item.slice(at + 1).trim();
  }
  return checkOptions(list);
}

function fallbackOptions(): VolumeOptions {
  return {
    sizeBytes: defaultVolumeSizeBytes,
    container: null,
    fs: 'ext4',
    durability: null,
    uid: 0,
    gid: 0,
    mode: 0o755,
  };
}

export interface RequestedVolume {
  options: VolumeOptions;
  /** The keys of `options` that somebody chose, and that an existing volume must agree with. */
  chosen: ReadonlySet<keyof VolumeOptions>;
}

/**
 * What a Create asks for, once the host's defaults and overrides are mixed in.
 * @throws WeftError INVALID_ARGUMENT for an unknown option, a bad value, or a volume too small for its filesystem.
 */
export function resolveOptions(
  given: Readonly<Record<string, string>>,
  host: { defaults: OptionSource; overrides: OptionSource; container: string | null },
): RequestedVolume {
  const asked = checkOptions(given);
  const options = fallbackOptions();
  options.container = host.container;
  const chosen = new Set<keyof VolumeOptions>();
  for (const [source, counts] of [
    [host.defaults, false],
    [asked, true],
    [host.overrides, true],
  ] as const) {
    for (const name of optionNames) {
      const text = source[name];
      if (text === undefined) continue;
      definitions[name].read(text, options);
      if (counts) chosen.add(name === 'size' || name === 'sizeMb' ? 'sizeBytes' : name);
    }
  }
  const least = minFilesystemBytes[options.fs];
  if (options.sizeBytes < least) {
    throw new WeftError(
      'INVALID_ARGUMENT',
      `bad value for size: ${formatSize(options.sizeBytes)} is too small; ${options.fs} takes at least ${formatSize(least)}`,
    );
  }
  return { options, chosen };
}

const labelPrefix = 'weft.';

/** The options as the fabric keeps them in the volume's labels. */
export function optionsToLabels(options: VolumeOptions): Record<string, string> {
  return {
    [`${labelPrefix}client`]: 'docker',
    [`${labelPrefix}size`]: String(options.sizeBytes),
    [`${labelPrefix}fs`]: options.fs,
    [`${labelPrefix}uid`]: String(options.uid),
    [`${labelPrefix}gid`]: String(options.gid),
    [`${labelPrefix}mode`]: options.mode.toString(8).padStart(4, '0'),
  };
}

/** The options a volume was made with; what its labels do not say is taken from what it is. */
export function optionsOfVolume(volume: {
  labels: Readonly<Record<string, string>>;
  sizeBytes: number;
  container: string;
  durability: Durability;
  filesystem: { type: FilesystemType } | null;
}): VolumeOptions {
  const options = fallbackOptions();
  options.sizeBytes = volume.sizeBytes;
  if (volume.filesystem !== null) options.fs = volume.filesystem.type;
  for (const name of optionNames) {
    const text = volume.labels[labelPrefix + name];
    if (text === undefined) continue;
    try {
      definitions[name].read(text, options);
    } catch {
      // Labels are free for everybody: one that cannot be read says nothing.
    }
  }
  options.container = volume.container;
  options.durability = volume.durability;
  return options;
}

/** The differences between what is chosen and what exists, in words: "size is 2 GiB, not 1 GiB". */
export function optionDifferences(existing: VolumeOptions, requested: RequestedVolume): string[] {
  const differences: string[] = [];
  for (const key of requested.chosen) {
    const [is, wanted] = [existing[key], requested.options[key]];
    if (is === wanted) continue;
    differences.push(`${key === 'sizeBytes' ? 'size' : key} is ${words(key, is)}, not ${words(key, wanted)}`);
  }
  return differences;
}

function words(key: keyof VolumeOptions, value: string | number | null): string {
  if (key === 'sizeBytes') return formatSize(Number(value));
  if (key === 'mode') return Number(value).toString(8).padStart(4, '0');
  return String(value);
}
