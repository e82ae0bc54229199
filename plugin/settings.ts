/**
 * What the plugin is told by its environment (`docker plugin set weft KEY=VALUE`). An empty value counts as not
 * given: a managed plugin's config.json names every key with an empty default.
 */
import { hostname } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { namePattern } from '../daemon/api/schema.ts';
import { asWeftError, WeftError } from '../daemon/base/errors.ts';
import { noOptions, type OptionSource, readOptionList } from './options.ts';

export const attachEngineNames = ['auto', 'open-iscsi', 'userspace'] as const;
export const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const;
export const defaultSocketPath = '/run/docker/plugins/weft.sock';
/** The REST port of weftd. */
const defaultApiPort = 7480;
/** The iSCSI port, for a data services address that names none. */
const defaultPortalPort = 3260;

export interface Settings {
  url: string;
  /** Bearer token, or null when Basic authentication or none is used. */
  token: string | null;
  username: string | null;
  password: string | null;
  /** HOST:PORT to log in to in place of the portals the fabric names; null: those of the fabric. */
  portal: string | null;
  /** For volumes that name no container; null: the fabric's own default. */
  container: string | null;
  logLevel: (typeof logLevels)[number];
  /** What others see as the holder of a volume. */
  node: string;
  attach: (typeof attachEngineNames)[number];
  /** Used where `docker volume create` gives no value. */
  defaults: OptionSource;
  /** Used in place of whatever `docker volume create` gives. */
  overrides: OptionSource;
  mountDirectory: string;
  stateDirectory: string;
}

/** The few settings that are needed before, and whatever becomes of, the others. */
export interface Basics {
  socketPath: string;
  logLevel: Settings['logLevel'];
}

type Environment = Readonly<Record<string, string | undefined>>;

export function readBasics(environment: Environment): Basics {
  const level = value(environment, 'WEFT_LOG_LEVEL') ?? 'info';
  return {
    socketPath: value(environment, 'WEFT_SOCKET') ?? defaultSocketPath,
    logLevel: logLevels.find((known) => known === level) ?? 'info',
  };
}

/** @throws WeftError CONFIG_INVALID naming every bad key, what was found and what is allowed. */
export function readSettings(environment: Environment): Settings {
  const problems: string[] = [];
  function read<Value>(keys: string[], fallback: Value, parse: (text: string, key: string) => Value): Value {
    for (const key of keys) {
      const text = value(environment, key);
      if (text === undefined) continue;
      try {
        return parse(text, key);
      } catch (thrown) {
        problems.push(`${key}: ${asWeftError(thrown).message}`);
        return fallback;
      }
    }
    return fallback;
  }

  const mountDirectory = read(['WEFT_MOUNT_DIR'], '/mnt/weft', absolutePath);
  const settings: Settings = {
    url: read(['WEFT_URL', 'PRISM_IP'], `http://127.0.0.1:${defaultApiPort}`, asUrl),
    token: read(['WEFT_TOKEN'], null, asSecret),
    username: read(['PRISM_USERNAME'], null, (text) => text),
    password: read(['PRISM_PASSWORD'], null, asSecret),
    portal: read(['WEFT_PORTAL', 'DATASERVICES_IP'], null, asPortal),
    container: read(['WEFT_CONTAINER', 'DEFAULT_CONTAINER'], null, asName),
    logLevel: read(['WEFT_LOG_LEVEL'], 'info', (text) => oneOf(text, logLevels)),
    node: read(['WEFT_NODE'], hostname(), asNode),
    attach: read(['WEFT_ATTACH'], 'auto', (text) => oneOf(text, attachEngineNames)),
    defaults: read(['WEFT_DEFAULTS'], noOptions, readOptionList),
    overrides: read(['WEFT_OVERRIDES'], noOptions, readOptionList),
    mountDirectory,
    stateDirectory: read(['WEFT_STATE_DIR'], join(mountDirectory, '.state'), absolutePath),
  };
  if (settings.token === null && (settings.username === null) !== (settings.password === null)) {
    problems.push(
      "PRISM_USERNAME and PRISM_PASSWORD: give both (a token's name and the token), or WEFT_TOKEN",
    );
  }
  if (problems.length > 0) {
    throw new WeftError(
      'CONFIG_INVALID',
      `the plugin's settings are wrong: ${problems.join('; ')}. ` +
        'Disable the plugin, change them with `docker plugin set`, and enable it again',
      { details: { problems } },
    );
  }
  return settings;
}

function value(environment: Environment, key: string): string | undefined {
  const text = environment[key]?.trim();
  return text === '' ? undefined : text;
}

function refuse(found: string, allowed: string): never {
  throw new WeftError('CONFIG_INVALID', `"${found.slice(0, 80)}" is not allowed; ${allowed}`);
}

function absolutePath(text: string): string {
  return isAbsolute(text) ? text : refuse(text, 'an absolute path is');
}

/** A secret is never repeated in a message. */
function asSecret(text: string): string {
  if (/[\s\p{Cc}]/u.test(text)) throw new WeftError('CONFIG_INVALID', 'it contains white space; it must not');
  return text;
}

function asNode(text: string): string {
  return text.length <= 255 ? text : refuse(text, 'at most 255 characters are');
}

function asName(text: string): string {
  return namePattern.test(text)
    ? text
    : refuse(text, 'letters, digits, "_", "." and "-" are, starting with a letter or digit');
}

function oneOf<Value extends string>(text: string, allowed: readonly Value[]): Value {
  return allowed.find((candidate) => candidate === text) ?? refuse(text, `one of ${allowed.join(', ')} is`);
}

/** A URL, or HOST, HOST:PORT or [IPV6]:PORT, which mean http there. */
function asUrl(text: string): string {
  const written = text.includes('://') ? text : `http://${withPort(text, defaultApiPort)}`;
  const url = URL.canParse(written) ? new URL(written) : null;
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.username !== '') {
    return refuse(text, 'an address (HOST or HOST:PORT) or a URL (http://HOST:PORT, https://HOST) is');
  }
  return written.replace(/\/+$/, '');
}

function asPortal(text: string): string {
  const portal = withPort(text, defaultPortalPort);
  const parts = /^(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/.exec(portal);
  const port = Number(parts?.[1]);
  if (parts === null || port < 1 || port > 65_535) {
    return refuse(text, 'an address is: HOST, HOST:PORT or [IPV6]:PORT');
  }
  return portal;
}

function withPort(text: string, port: number): string {
  if (/^\[[^\]]*\]$/.test(text)) return `${text}:${port}`;
  const colons = text.split(':').length - 1;
  if (colons === 0) return `${text}:${port}`;
  return colons > 1 && !text.startsWith('[') ? `[${text}]:${port}` : text;
}
