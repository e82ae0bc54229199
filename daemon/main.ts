/** weftd: reads its configuration, runs a node, ends when told to. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { asWeftError, type ErrorCode } from './base/errors.ts';
import { type Invocation, readInvocation } from './config.ts';
import { startNode } from './node.ts';

/** sysexits.h: what systemd and scripts see. */
const exitCodes: Partial<Record<ErrorCode, number>> = {
  CONFIG_INVALID: 78,
  LOCKED: 75,
  UNAVAILABLE: 75,
  CORRUPT: 65,
  FORMAT_TOO_NEW: 65,
};

const npxPollMs = 250;

/** The version of the package this file belongs to, whether it runs as source or built. */
function packageVersion(): string {
  for (const up of ['..', '../..']) {
    try {
      const file = join(import.meta.dirname, up, 'package.json');
      return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
    } catch {
      // One level further up.
    }
  }
  return 'unknown';
}

function complain(thrown: unknown): never {
  const error = asWeftError(thrown);
  process.stderr.write(`weftd: ${error.code}: ${error.message}\n`);
  if (error.code === 'INTERNAL')
    process.stderr.write(`${(error.cause as Error | undefined)?.stack ?? error.stack}\n`);
  process.exit(exitCodes[error.code] ?? 70);
}

async function main(): Promise<void> {
  // Volumes' data and their secrets are the owner's alone, whoever makes the file.
  process.umask(0o077);
  const version = packageVersion();
  let invocation: Invocation;
  try {
    invocation = readInvocation(process.argv.slice(2), process.env, version);
  } catch (error) {
    complain(error);
  }
  if (invocation.action === 'print') {
    process.stdout.write(`${invocation.text}\n`);
    return;
  }
  const log = pino({ level: invocation.config.logLevel, base: null });
  // A fault of the programmer: what is in memory is not to be trusted any more, what is on disk is.
  process.on('uncaughtException', (error) => {
    log.fatal({ error: error.message, stack: error.stack }, 'weftd ends on a fault of its own');
    process.exit(70);
  });
  const node = await startNode(invocation.config, version, log).catch(complain);
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, 'weftd drains and ends');
    node.stop().then(
      () => process.exit(0),
      (error) => complain(error),
    );
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  whenNpxEnds(() => stop('SIGTERM'));
}

/**
 * npx hands a signal to the shell it runs us in, and that shell ends without handing it on: weftd would stay behind,
 * with its lock and its ports. So when that shell goes, weftd was told to end.
 */
function whenNpxEnds(ended: () => void): void {
  const shell = process.ppid;
  if (process.env['npm_lifecycle_event'] !== 'npx' || !isShellOfNpx(shell)) return;
  const watch = setInterval(() => {
    if (process.ppid === shell) return;
    clearInterval(watch);
    ended();
  }, npxPollMs);
  watch.unref();
}

/** Rather than a program that npx runs, and that runs weftd on its own account. */
function isShellOfNpx(pid: number): boolean {
  try {
    return /^(\/\S+\/)?sh\0-c\0(--\0)?\S*weftd/.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
  } catch {
    return false;
  }
}

await main();
