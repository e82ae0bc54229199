/**
 * Kills the plugin, with SIGKILL, at each step that can be seen from outside: before and after every tool it runs
 * (through scripts that stand before the real tools in its PATH), and before and after every request to the fabric.
 * Then it is started again, and what was asked for is asked for again, as dockerd and people do.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import { PluginFixture } from './plugin-fixture.ts';

const tools = ['losetup', 'blkid', 'wipefs', 'mkfs.ext4', 'e2fsck', 'mount', 'umount', 'dumpe2fs'];

export type KillPoint = { at: number; when: 'before' | 'after' };

/** Each tool counts its runs; the one whose turn it is kills its parent, the plugin. */
function placeScripts(plugin: PluginFixture, kill: KillPoint): void {
  const directory = join(plugin.directory, 'bin');
  mkdirSync(directory);
  const count = join(plugin.directory, 'tool-runs');
  writeFileSync(count, '0\n');
  for (const tool of tools) {
    const script = `#!/bin/bash
read -r runs < ${count}; runs=$((runs + 1)); echo $runs > ${count}
real=$(PATH="\${PATH#*:}" type -P ${tool})
if [ $runs != ${kill.at} ]; then exec "$real" "$@"; fi
echo "${kill.when} ${tool}" > ${plugin.directory}/killed
if [ ${kill.when} = before ]; then kill -KILL $PPID; exit 1; fi
"$real" "$@"; status=$?
kill -KILL $PPID
exit $status
`;
    writeFileSync(join(directory, tool), script);
    chmodSync(join(directory, tool), 0o755);
  }
  plugin.environment.PATH = `${directory}:${process.env.PATH}`;
}

function placeTrap(plugin: PluginFixture, kill: KillPoint): void {
  let requests = 0;
  plugin.fabric.onRequest = (what, when) => {
    // The list that a plugin fetches when it starts is at no fixed place among the others.
    if (when !== kill.when || what === 'GET /volumes') return;
    requests += 1;
    if (requests !== kill.at) return;
    writeFileSync(join(plugin.directory, 'killed'), `${when} ${what}`);
    process.kill(plugin.pid, 'SIGKILL');
    if (when === 'before') throw new Error('the plugin was killed before the fabric had the whole request');
  };
}

/** @returns at which step it was killed; null when the life of the volume has no such step any more. */
export async function liveThroughKill(
  t: Test,
  of: 'tool' | 'request',
  kill: KillPoint,
): Promise<string | null> {
  const plugin = await PluginFixture.make();
  try {
    if (of === 'tool') placeScripts(plugin, kill);
    else placeTrap(plugin, kill);
    await plugin.start();
    const call = async (operation: string, document: Record<string, unknown>) => {
      const tried = await plugin.docker.call(operation, document).catch(() => null);
      if (tried !== null) return tried;
      await plugin.kill();
      await plugin.start();
      return plugin.docker.call(operation, document);
    };
    const must = async (operation: string, document: Record<string, unknown>) => {
      const answer = await call(operation, document);
      if (answer.Err !== '') throw new Error(`${operation}: ${answer.Err}\n${plugin.log}`);
      return answer;
    };

    await must('Create', { Name: 'db', Opts: { size: '16m', uid: '70' } });
    const first = await must('Mount', { Name: 'db', ID: 'a' });
    const file = await open(join(first.Mountpoint, 'row'), 'w');
    await file.writeFile('committed');
    await file.sync();
    await file.close();
    await must('Unmount', { Name: 'db', ID: 'a' });
    const second = await must('Mount', { Name: 'db', ID: 'b' });
    const row = readFileSync(join(second.Mountpoint, 'row'), 'utf8');
    await must('Unmount', { Name: 'db', ID: 'b' });
    const left = await plugin.left();
    const { claim } = plugin.fabric.get('db');
    await must('Remove', { Name: 'db' });

    const killed = existsSync(join(plugin.directory, 'killed'))
      ? readFileSync(join(plugin.directory, 'killed'), 'utf8').trim()
      : null;
    const where = killed ?? 'never';
    t.equal(row, 'committed', `killed ${where}: no data lost`);
    t.same(left, [], `killed ${where}: nothing left mounted or attached`);
    t.equal(claim, null, `killed ${where}: the claim given back`);
    t.equal(plugin.fabric.volumes.size, 0);
    t.equal(plugin.fabric.trash.length, 1, `killed ${where}: made once`);
    return killed;
  } finally {
    await plugin.end();
  }
}
