import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';

const main = join(import.meta.dirname, '../daemon/main.ts');

interface Started {
  /** Of weftd itself. */
  pid: number;
  shell: ReturnType<typeof spawn>;
}

/** weftd as npx runs it: in a shell of its own that stays in front. */
async function startInShell(data: string, environment: Record<string, string>): Promise<Started> {
  const listen = '--api 127.0.0.1:0 --iscsi 127.0.0.1:0';
  // After `-c`, npx names the program: "sh -c 'weftd' ...". `: ` keeps the shell from becoming it.
  const command = `weftd() { "${process.execPath}" "${main}" --data "${data}" ${listen}; }; weftd; :`;
  const shell = spawn('sh', ['-c', command], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  shell.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  while (!said.includes('weftd is ready')) {
    if (shell.exitCode !== null) throw new Error(`weftd ended: ${said}`);
    await delay(20);
  }
  const pid = Number(execFileSync('pgrep', ['-P', String(shell.pid)], { encoding: 'utf8' }));
  return { pid, shell };
}

async function endsWithin(pid: number, limitMs: number): Promise<boolean> {
  for (const endMs = Date.now() + limitMs; Date.now() < endMs; await delay(50)) {
    try {
      process.kill(pid, 0);
    } catch {
      return true;
    }
  }
  return false;
}

t.test('told to end through npx, weftd ends, though the shell between says nothing', async (t) => {
  const { pid, shell } = await startInShell(join(t.testdir(), 'data'), { npm_lifecycle_event: 'npx' });
  shell.kill('SIGTERM');
  await once(shell, 'exit');
  t.ok(await endsWithin(pid, 20_000));
});

t.test('without npx weftd outlives the shell it was started from', async (t) => {
  const { pid, shell } = await startInShell(join(t.testdir(), 'data'), { npm_lifecycle_event: '' });
  shell.kill('SIGTERM');
  await once(shell, 'exit');
  t.notOk(await endsWithin(pid, 1_500));
  process.kill(pid, 'SIGTERM');
  t.ok(await endsWithin(pid, 20_000));
});

t.test('whatever weftd keeps is its owner’s alone', async (t) => {
  const data = join(t.testdir(), 'data');
  const { pid, shell } = await startInShell(data, {});
  for (const name of readdirSync(data, { recursive: true, encoding: 'utf8' })) {
    t.equal(statSync(join(data, name)).mode & 0o077, 0, name);
  }
  process.kill(pid, 'SIGTERM');
  await once(shell, 'exit');
});
