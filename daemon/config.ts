/**
 * weftd's configuration: one table of keys, read from a JSON file, the environment and flags; the later wins.
 *
 * | in the file           | in the environment         | as a flag               |
 * |-----------------------|----------------------------|-------------------------|
 * | "iscsi.advertise"     | WEFTD_ISCSI_ADVERTISE      | --iscsi-advertise       |
 * | "journal.fileSize"    | WEFTD_JOURNAL_FILE_SIZE    | --journal-file-size     |
 */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { namePattern } from './api/schema.ts';
import { asWeftError, WeftError } from './base/errors.ts';
import { GiB, MiB, TiB } from './base/limits.ts';
import { formatSize, parseSize, sizeSyntax } from './base/size.ts';

export interface HostPort {
  host: string;
  port: number;
}

export interface Config {
  dataDirectory: string;
  api: HostPort;
  /** In the order of their portal group tags. */
  iscsi: HostPort[];
  /** Portals told to initiators, HOST:PORT; empty: the addresses weftd listens on. */
  iscsiAdvertise: string[];
  nodeName: string;
  logLevel: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal';
  journal: { capacityBytes: number; fileSizeBytes: number };
  cacheBytes: number;
  /** Null: in the data directory. */
  secretsKeyFile: string | null;
  /** What becomes of secrets whose key is gone. */
  secretsLost: 'refuse' | 'renew';
  /** What becomes of reservations that cannot be read. */
  reservationsLost: 'refuse' | 'forget';
  /** A file with what discovery sessions need to know; null: nothing. */
  discoveryChapFile: string | null;
}

/** 'run' with a configuration, or what to print instead. */
export type Invocation = { action: 'run'; config: Config } | { action: 'print'; text: string };

interface Key {
  schema: z.ZodType;
  /** As it would be written in the file; undefined: must be given. */
  fallback: unknown;
  /** What is allowed, for errors and --help. */
  allowed: string;
  meaning: string;
  /** Who takes the file's name for its content writes a secret here: what was found is not repeated. */
  isBesideSecret?: true;
}

const minJournalFileBytes = 16 * MiB;
const maxCacheBytes = TiB;
const maxJournalFileBytes = GiB;
const maxJournalBytes = TiB;
/** Listening addresses; discovery tells all of them for every target. */
const maxPortals = 16;

const keys = {
  data: {
    schema: z
      .string()
      .min(1)
      .transform((path) => resolve(path)),
    fallback: undefined,
    allowed: 'a directory; made when it does not exist',
    meaning: 'where everything is kept',
  },
  api: {
    schema: hostPortSchema(),
    fallback: '127.0.0.1:7480',
    allowed: 'HOST:PORT, an IPv6 address in brackets, port 0 for any free one',
    meaning: 'where the REST API listens',
  },
  iscsi: {
    schema: portalsSchema(),
    fallback: '127.0.0.1:3260',
    allowed: `HOST:PORT, up to ${maxPortals} separated by commas, an IPv6 address in brackets, port 0 for any free one`,
    meaning: 'where the iSCSI target listens; each address is a target port, numbered from 1 in this order',
  },
  'iscsi.advertise': {
    schema: advertiseSchema(),
    fallback: [],
    allowed: 'HOST:PORT, several separated by commas',
    meaning:
      "the portals told to initiators instead of the listening addresses, or of all the machine's for 0.0.0.0; one " +
      'for each listening address, in the same order, or any number for one',
  },
  'node.name': {
    schema: z.string().regex(namePattern),
    fallback: undefined,
    allowed: '1 to 128 letters, digits, "_", "." or "-", starting with a letter or digit',
    meaning: 'the name people know this node by (default: the host name)',
  },
  'log.level': {
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal']),
    fallback: 'info',
    allowed: 'trace, debug, info, warn, error or fatal',
    meaning: 'the least serious line that is logged',
  },
  'journal.capacity': {
    schema: sizeSchema(2 * minJournalFileBytes, maxJournalBytes),
    fallback: '2g',
    allowed: sizeRange(2 * minJournalFileBytes, maxJournalBytes),
    meaning: 'how much the journal holds before writers are slowed down',
  },
  'journal.fileSize': {
    schema: sizeSchema(minJournalFileBytes, maxJournalFileBytes),
    fallback: '64m',
    allowed: sizeRange(minJournalFileBytes, maxJournalFileBytes),
    meaning: 'the length of one journal file; at most half the capacity',
  },
  'cache.size': {
    schema: sizeSchema(MiB, maxCacheBytes),
    fallback: '256m',
    allowed: sizeRange(MiB, maxCacheBytes),
    meaning: 'memory for what was read lately in small pieces',
  },
  'secrets.keyFile': {
    schema: fileSchema(),
    fallback: '',
    allowed: 'a file, mode 0600; made when it does not exist',
    meaning: 'the key that secrets are sealed with (default: secrets.key in the data directory)',
    isBesideSecret: true,
  },
  'secrets.lost': {
    schema: z.enum(['refuse', 'renew']),
    fallback: 'refuse',
    allowed: 'refuse: weftd does not start; renew: these volumes get new secrets',
    meaning: 'what to do with secrets whose key is gone',
  },
  'reservations.lost': {
    schema: z.enum(['refuse', 'forget']),
    fallback: 'refuse',
    allowed: 'refuse: their volumes are not served; forget: they are, without reservations',
    meaning: 'what to do with persistent reservations that are damaged',
  },
  'iscsi.discoveryChap': {
    schema: fileSchema(),
    fallback: '',
    allowed:
      'a file, mode 0600: user and secret, and for mutual CHAP another user and secret, with spaces between',
    meaning: 'what an initiator must know to list targets (default: nothing)',
    isBesideSecret: true,
  },
} as const satisfies Record<string, Key>;

type KeyName = keyof typeof keys;
const keyNames = Object.keys(keys) as KeyName[];

/** A value as it was found, and where. */
interface Found {
  value: unknown;
  source: string;
}

/**
 * @param args without the program's name.
 * @throws WeftError CONFIG_INVALID naming the key, what was found and where, and what is allowed.
 */
export function readInvocation(args: string[], environment: NodeJS.ProcessEnv, version: string): Invocation {
  const flags = readFlags(args);
  if (flags.help) return { action: 'print', text: helpText() };
  if (flags.version) return { action: 'print', text: `weftd ${version}` };
  const found = new Map<KeyName, Found>();
  const variables = readEnvironment(environment);
  const file = flags.config ?? variables.config;
  for (const source of [file === undefined ? new Map() : readFile(file), variables.found, flags.found]) {
    for (const [key, value] of source) found.set(key, value);
  }
  return { action: 'run', config: checked(found) };
}

function checked(found: Map<KeyName, Found>): Config {
  const value = <Name extends KeyName>(name: Name): z.output<(typeof keys)[Name]['schema']> => {
    const key: Key = keys[name];
    const { value, source } = found.get(name) ?? { value: fallbackOf(name), source: 'the default' };
    if (value === undefined) {
      throw invalid(`${name} is not set; give ${flagOf(name)}: ${key.allowed}`, name, undefined);
    }
    const parsed = key.schema.safeParse(value);
    if (parsed.success) return parsed.data as z.output<(typeof keys)[Name]['schema']>;
    const shown = key.isBesideSecret ? 'what was found' : JSON.stringify(value);
    throw invalid(
      `${name}: ${shown} (from ${source}) is not allowed; allowed: ${key.allowed}`,
      name,
      key.isBesideSecret ? undefined : value,
    );
  };
  const config: Config = {
    dataDirectory: value('data'),
    api: value('api'),
    iscsi: value('iscsi'),
    iscsiAdvertise: value('iscsi.advertise'),
    nodeName: value('node.name'),
    logLevel: value('log.level'),
    journal: { capacityBytes: value('journal.capacity'), fileSizeBytes: value('journal.fileSize') },
    cacheBytes: value('cache.size'),
    secretsKeyFile: value('secrets.keyFile'),
    secretsLost: value('secrets.lost'),
    reservationsLost: value('reservations.lost'),
    discoveryChapFile: value('iscsi.discoveryChap'),
  };
  checkAdvertised(config);
  const { capacityBytes, fileSizeBytes } = config.journal;
  if (fileSizeBytes * 2 > capacityBytes) {
    const files = `journal.fileSize: ${formatSize(fileSizeBytes)}`;
    throw invalid(
      `${files} is more than half of journal.capacity (${formatSize(capacityBytes)}); make one smaller or the other larger`,
      'journal.fileSize',
      fileSizeBytes,
    );
  }
  return config;
}

function checkAdvertised({ iscsi, iscsiAdvertise }: Config): void {
  if (iscsi.length === 1 || iscsiAdvertise.length === 0 || iscsiAdvertise.length === iscsi.length) return;
  throw invalid(
    `iscsi.advertise: has ${iscsiAdvertise.length} entries for ${iscsi.length} listening addresses; ` +
      'give one for each, in the same order, so that initiators know which leads to which',
    'iscsi.advertise',
    iscsiAdvertise,
  );
}

function readFlags(args: string[]): {
  help: boolean;
  version: boolean;
  config: string | undefined;
  found: Map<KeyName, Found>;
} {
  const flags = new Map(keyNames.map((name) => [flagOf(name).slice(2), name]));
  const options: Record<string, { type: 'string' | 'boolean' }> = {
    help: { type: 'boolean' },
    version: { type: 'boolean' },
    config: { type: 'string' },
  };
  for (const flag of flags.keys()) options[flag] = { type: 'string' };
  let values: Record<string, unknown>;
  try {
    ({ values } = parseArgs({ args, options, strict: true, allowPositionals: false }));
  } catch (error) {
    const allowed = Object.keys(options).map((flag) => `--${flag}`);
    throw invalid(
      `${(error as Error).message.replace(/\.?$/, ';')} allowed: ${allowed.join(' ')}`,
      null,
      args,
    );
  }
  const found = new Map<KeyName, Found>();
  for (const [flag, name] of flags) {
    if (values[flag] !== undefined) found.set(name, { value: values[flag], source: `--${flag}` });
  }
  const config = values['config'] as string | undefined;
  return { help: values['help'] === true, version: values['version'] === true, config, found };
}

function readEnvironment(environment: NodeJS.ProcessEnv): {
  config: string | undefined;
  found: Map<KeyName, Found>;
} {
  const variables = new Map(keyNames.map((name) => [variableOf(name), name]));
  const found = new Map<KeyName, Found>();
  let config: string | undefined;
  for (const [variable, value] of Object.entries(environment)) {
    if (!variable.startsWith('WEFTD_')) continue;
    const name = variables.get(variable);
    if (variable === 'WEFTD_CONFIG') config = value;
    else if (name !== undefined) found.set(name, { value, source: `the variable ${variable}` });
    else {
      const allowed = ['WEFTD_CONFIG', ...variables.keys()].join(', ');
      throw invalid(`${variable} is no variable of weftd; allowed: ${allowed}`, variable, value);
    }
  }
  return { config, found };
}

function readFile(path: string): Map<KeyName, Found> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw invalid(`config: ${path} cannot be read: ${asWeftError(error).message}`, 'config', path);
  }
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw invalid(`config: ${path} is not JSON: ${(error as Error).message}`, 'config', path);
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw invalid(
      `config: ${path} must hold one JSON object, such as {"api": "127.0.0.1:7480"}`,
      'config',
      path,
    );
  }
  const found = new Map<KeyName, Found>();
  for (const [name, value] of Object.entries(document)) {
    if (!(keyNames as string[]).includes(name)) {
      throw invalid(`${name} (in ${path}) is no key of weftd; allowed: ${keyNames.join(', ')}`, name, value);
    }
    found.set(name as KeyName, { value, source: path });
  }
  return found;
}

export function helpText(): string {
  const lines = keyNames.map((name) => {
    const key: Key = keys[name];
    const fallback = fallbackOf(name);
    const without = fallback === undefined ? 'must be given' : `default: ${shown(fallback)}`;
    return `  ${flagOf(name)}  (${name}, ${variableOf(name)})\n      ${key.meaning}\n      ${key.allowed}; ${without}`;
  });
  return [
    'weftd: a node of a Weft fabric',
    '',
    '  weftd --data DIR [--api HOST:PORT] [--iscsi HOST:PORT] [--config FILE]',
    '',
    'Keys, as flags (as written in the JSON file, as an environment variable); flags win over the environment, and',
    'that over the file:',
    '',
    ...lines,
    '  --config  (WEFTD_CONFIG)\n      a JSON file with the keys above',
    '  --help, --version',
    '',
    "The first administrator's token is left in DIR/admin.token.",
  ].join('\n');
}

function shown(fallback: unknown): string {
  return Array.isArray(fallback) || fallback === '' ? 'none' : String(fallback);
}

function fallbackOf(name: KeyName): unknown {
  // A host name may have characters a node name may not.
  if (name === 'node.name')
    return (
      hostname()
        .replaceAll(/[^a-zA-Z0-9_.-]/g, '-')
        .replace(/^[^a-zA-Z0-9]+/, '') || 'node'
    );
  return (keys[name] as Key).fallback;
}

function words(name: string): string[] {
  return name.replaceAll(/[A-Z]/g, (letter) => `.${letter.toLowerCase()}`).split('.');
}

function flagOf(name: string): string {
  return `--${words(name).join('-')}`;
}

function variableOf(name: string): string {
  return `WEFTD_${words(name).join('_').toUpperCase()}`;
}

function invalid(message: string, key: string | null, found: unknown): WeftError {
  return new WeftError('CONFIG_INVALID', message, { details: { key, found } });
}

/** The parts of HOST:PORT; null when it is none. */
export function parseHostPort(text: string): HostPort | null {
  const [, bracketed, plain, digits] =
    /^(?:\[([0-9a-fA-F:.%\w]+)\]|([^\s:/[\]]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  return host === undefined || port > 65_535 ? null : { host, port };
}

function hostPortSchema(): z.ZodType<HostPort> {
  return z.string().transform((text, context) => {
    const parsed = parseHostPort(text);
    if (parsed === null) context.addIssue('not HOST:PORT');
    return parsed ?? z.NEVER;
  });
}

/** Empty: none. */
function fileSchema(): z.ZodType<string | null> {
  return z.string().transform((path) => (path === '' ? null : resolve(path)));
}

/** A list in the file, text with commas elsewhere. */
function listSchema() {
  const split = z.string().transform((text) =>
    text
      .split(',')
      .map((entry) => entry.trim())
      .filter(Boolean),
  );
  return z.union([z.array(z.string()), split]);
}

function advertiseSchema(): z.ZodType<string[]> {
  const announced = (entry: string) => (parseHostPort(entry)?.port ?? 0) > 0;
  return listSchema().refine((entries) => entries.every(announced));
}

function portalsSchema(): z.ZodType<HostPort[]> {
  return listSchema().transform((entries, context) => {
    const parsed = entries.map(parseHostPort).filter((entry) => entry !== null);
    const isGood = parsed.length === entries.length && parsed.length > 0 && parsed.length <= maxPortals;
    if (!isGood) context.addIssue('not a list of HOST:PORT');
    return isGood ? parsed : z.NEVER;
  });
}

function sizeSchema(minBytes: number, maxBytes: number): z.ZodType<number> {
  return z.union([z.string(), z.int()]).transform((written, context) => {
    try {
      const sizeBytes = parseSize(String(written));
      if (sizeBytes >= minBytes && sizeBytes <= maxBytes) return sizeBytes;
    } catch {
      // Told below, with what is allowed.
    }
    context.addIssue('not a size in range');
    return z.NEVER;
  });
}

function sizeRange(minBytes: number, maxBytes: number): string {
  return `${formatSize(minBytes)} to ${formatSize(maxBytes)}; ${sizeSyntax}`;
}
