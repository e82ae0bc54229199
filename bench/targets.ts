/** The iSCSI targets that are measured: each starts on its own ports and data, and ends without a trace. */
import { open, readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';

const readyWithinMs = 20_000;
const endWithinMs = 30_000;
/** What may stay in a journal that has nothing to do, in bytes. */
const quietJournalBytes = 2 ** 20;
const sharesOfASecond = 100; // USER_HZ, which Linux fixes for /proc

export interface Target {
  name: string;
  /** What load.c logs in to: `iscsi://HOST:PORT/IQN/LUN`. */
  url: string;
  /** The processor time its process has taken so far, in seconds. */
  cpuSeconds(): Promise<number>;
  /** Resolves when the work it left for later is done, or after some seconds. */
  quiet(): Promise<void>;
}

export interface Server {
  version: string;
  targets: Target[];
  stop(): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}

async function cpuSecondsOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / sharesOfASecond;
}

/**
 * Starts a server whose output goes to a file, and waits until `ready` says so.
 * @throws Error with the end of that output when it ends before, or takes too long; it is gone then.
 */
async function startServer(command: string, args: string[], logFile: string, ready: () => Promise<boolean>) {
  const child = execa(command, args, {
    stdin: 'ignore',
    stdout: { file: logFile },
    stderr: { file: logFile, append: true },
    reject: false,
    forceKillAfterDelay: endWithinMs,
  });
  let ended = false;
  void child.then(() => {
    ended = true;
  });
  const deadline = Date.now() + readyWithinMs;
  while (!(await ready().catch(() => false))) {
    if (!ended && Date.now() < deadline) {
      await delay(50);
      continue;
    }
    child.kill('SIGKILL');
    const said = (await readFile(logFile, 'utf8').catch(() => '')).slice(-2000);
    const what = ended ? 'ended at once' : `is not ready after ${readyWithinMs / 1000} s`;
    throw new Error(`${command} ${what}; its last words:\n${said}`);
  }
  if (child.pid === undefined) throw new Error(`${command} does not start`);
  return { child, pid: child.pid };
}

/** weftd with one volume a durability mode. */
export async function startWeft(
  root: string,
  directory: string,
  sizeBytes: number,
  durabilities: readonly string[],
): Promise<Server> {
  const api = `127.0.0.1:${await freePort()}`;
  const portal = `127.0.0.1:${await freePort()}`;
  const data = join(directory, 'weft');
  const { child, pid } = await startServer(
    join(root, 'bin/weftd'),
    ['--data', data, '--api', api, '--iscsi', portal],
    join(directory, 'weftd.log'),
    async () => (await fetch(`http://${api}/healthz`)).ok,
  );
  const env = {
    WEFT_URL: `http://${api}`,
    WEFT_TOKEN: (await readFile(join(data, 'admin.token'), 'utf8')).trim(),
  };
  const weft = async (...args: string[]): Promise<Record<string, unknown>> => {
    const { stdout } = await execa(join(root, 'bin/weft'), [...args, '--json'], { env });
    return JSON.parse(stdout) as Record<string, unknown>;
  };
  const journalUsedBytes = async (): Promise<number> => {
    const { journal } = (await weft('status')) as { journal: { usedBytes: number } };
    return journal.usedBytes;
  };
  const quiet = async (): Promise<void> => {
    // The journal is drained soon after the last write; this bounds how long "soon" is waited for.
    for (let round = 0; round < 60 && (await journalUsedBytes()) > quietJournalBytes; round++)
      await delay(500);
  };
  const targets: Target[] = [];
  for (const durability of durabilities) {
    const name = `bench-${durability}`;
    await weft(
      ...['volume', 'create', name, '--size', String(sizeBytes)],
      ...['--durability', durability, '--chap', 'none'],
    );
    const volume = await weft('volume', 'inspect', name);
    targets.push({
      name: `weft-${durability}`,
      url: `iscsi://${portal}/${String(volume.iqn)}/${String(volume.lun)}`,
      cpuSeconds: () => cpuSecondsOf(pid),
      quiet,
    });
  }
  const { version } = await weft('status');
  return {
    version: String(version),
    targets,
    stop: async () => {
      child.kill('SIGTERM');
      await child;
    },
  };
}

/** tgtd with one thin LUN on a sparse file. */
export async function startTgt(directory: string, sizeBytes: number): Promise<Server> {
  const portal = `127.0.0.1:${await freePort()}`;
  // Any number but 0, which is the system's own tgtd.
  const control = String(10_000 + (process.pid % 20_000));
  const file = join(directory, 'tgt.img');
  const handle = await open(file, 'w');
  await handle.truncate(sizeBytes);
  await handle.close();
  const tgtadm = (...args: string[]) => execa('tgtadm', ['-C', control, '--lld', 'iscsi', ...args]);
  const { child, pid } = await startServer(
    'tgtd',
    ['-f', '-C', control, '--iscsi', `portal=${portal}`],
    join(directory, 'tgtd.log'),
    async () => (await tgtadm('--op', 'show', '--mode', 'system')).exitCode === 0,
  );
  const iqn = 'iqn.2026-11.io.weft:tgt';
  await tgtadm('--op', 'new', '--mode', 'target', '--tid', '1', '-T', iqn);
  await tgtadm(...['--op', 'new', '--mode', 'logicalunit', '--tid', '1', '--lun', '1', '-b', file]);
  await tgtadm(
    ...['--op', 'update', '--mode', 'logicalunit', '--tid', '1', '--lun', '1'],
    ...['--params', 'thin_provisioning=1'],
  );
  await tgtadm('--op', 'bind', '--mode', 'target', '--tid', '1', '-I', 'ALL');
  const { stdout } = await execa('tgtd', ['--version']);
  return {
    version: stdout.trim(),
    targets: [
      {
        name: 'tgt',
        url: `iscsi://${portal}/${iqn}/1`,
        cpuSeconds: () => cpuSecondsOf(pid),
        quiet: async () => {},
      },
    ],
    stop: async () => {
      // SIGTERM does not end tgtd, its own command does.
      await tgtadm('--op', 'delete', '--mode', 'target', '--tid', '1', '--force').catch(() => {});
      await tgtadm('--op', 'delete', '--mode', 'system').catch(() => child.kill('SIGKILL'));
      await child;
    },
  };
}
