import t, { type Test } from 'tap';
import { DockerFabric } from './docker-fabric.ts';
import { importPostgres, postgresEntrypoint, postgresImage } from './docker-image.ts';
import { eventually } from './eventually.ts';
import { PostgresClient } from './postgres-client.ts';
import { PostgresLedger } from './postgres-ledger.ts';
import { freePort } from './weftd-process.ts';

/** From the fault to a database that commits again. dockerd alone may take 20 s to end and 10 s to start. */
const recoveryLimitMs = 120_000;
/** Commits under way when a fault strikes, and after it. */
const loadCount = 150;

t.test('a database on a volume keeps every committed row, whatever is killed', async (t) => {
  const fabric = await DockerFabric.start(t);
  const { dockerd, weftd, plugin } = fabric;
  await importPostgres(dockerd);
  const port = await freePort();
  const ledger = new PostgresLedger(port);
  t.teardown(() => ledger.stop());
  t.teardown(async () => {
    if (!t.passing())
      t.comment(`the database's log:\n${(await dockerd.tryDocker('logs', '--tail=60', 'db')).stderr}`);
  });

  const inDatabase = (...command: string[]) =>
    dockerd.tryDocker('exec', 'db', 'setpriv', '--reuid=postgres', ...command);
  const pgbench = (...options: string[]) => {
    return inDatabase(
      'sh',
      '-c',
      `exec /usr/lib/postgresql/*/bin/pgbench -h 127.0.0.1 -p ${port} ${options.join(' ')} postgres`,
    );
  };

  async function commits(count: number, limitMs: number): Promise<number> {
    const startedMs = performance.now();
    const before = ledger.acknowledged.size;
    await eventually(`${count} more commits`, limitMs, () => ledger.acknowledged.size >= before + count);
    return performance.now() - startedMs;
  }

  /** pgbench's own books: what its transactions did to accounts, tellers and branches is in the history. */
  async function expectBooksToBalance(t: Test): Promise<void> {
    const client = await PostgresClient.connect(port, 'postgres', 30_000);
    const [sums] = await client.query(`begin isolation level repeatable read; select
      (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
      (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history)`);
    client.close();
    t.equal(new Set(sums).size, 1, `pgbench's sums agree: ${sums}`);
  }

  async function fault(name: string, strike: (t: Test) => Promise<unknown>): Promise<void> {
    await t.test(name, async (t) => {
      const load = pgbench('-n', '-c2', '-T600', '-R100');
      await commits(loadCount, 60_000);
      await fabric.noteLoopDevices();
      await strike(t);
      const tookMs = await commits(loadCount, recoveryLimitMs);
      t.pass(`the database commits again after ${(tookMs / 1000).toFixed(1)} s`);
      t.same(await ledger.verify(), [], `all of ${ledger.acknowledged.size} acknowledged commits are there`);
      await expectBooksToBalance(t);
      await inDatabase('sh', '-c', 'kill $(pidof pgbench) 2>/dev/null; true');
      await load;
    });
  }

  await t.test('the database starts on a new volume', async (t) => {
    await fabric.docker('volume', 'create', '-d', 'weft', '-o', 'size=2g', 'db');
    await fabric.docker(
      ...[
        'run',
        '-d',
        '--name=db',
        '--restart=always',
        '--network=host',
        '--shm-size=128m',
        `--env=PORT=${port}`,
      ],
      ...[
        '-v=db:/data',
        `-v=${postgresEntrypoint}:/entrypoint:ro`,
        '--stop-signal=SIGINT',
        postgresImage,
        '/entrypoint',
      ],
    );
    await eventually(
      'the database answers',
      120_000,
      async () => (await PostgresClient.connect(port)).close() ?? true,
    );
    await ledger.create();
    const filled = await pgbench('-i', '-s2', '-q');
    t.equal(filled.exitCode, 0, filled.stderr);
    ledger.start();
    await commits(loadCount, 60_000);
    t.same(await ledger.verify(), []);
  });

  await fault('docker kill of the database', async () => {
    await fabric.docker('kill', 'db');
    // The engine takes a kill for a wish, and restarts only what ends by itself.
    await fabric.docker('start', 'db');
  });
  await fault('kill -9 of the database’s processes', async () => {
    const pid = await fabric.docker('inspect', '-f', '{{.State.Pid}}', 'db');
    process.kill(Number(pid), 'SIGKILL');
  });
  await fault('kill -9 of weftd', async () => {
    await weftd.kill9();
    await weftd.startAgain();
  });
  await fault('weftd away for ten seconds', async (t) => {
    t.ok(await weftd.shutDown(), 'it drains and ends by itself');
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    await weftd.startAgain();
  });
  await fault('kill -9 of the plugin’s process', () => plugin.kill9Node());
  await fault('kill -9 of the plugin’s first process', () => plugin.kill9Init());
  await fault('a restart of dockerd', () => dockerd.restart());
  await fault('kill -9 of dockerd', async () => {
    await dockerd.kill9();
    await dockerd.startAgain();
  });
  await fault('kill -9 of all of them at once', async () => {
    await Promise.all([dockerd.kill9(), weftd.kill9()]);
    await weftd.startAgain();
    await dockerd.startAgain();
  });

  await t.test('an empty volume in the place of the database stops it', async (t) => {
    await ledger.stop();
    await fabric.docker('stop', 'db');
    await fabric.docker(
      'run',
      '--rm',
      '--network=none',
      '-v=db:/data',
      postgresImage,
      'mv',
      '/data/cluster',
      '/data/hidden',
    );
    await fabric.docker('start', 'db');
    await eventually('it refuses', 60_000, async () =>
      /has lost its cluster/.test((await dockerd.tryDocker('logs', 'db')).stderr),
    );
    await fabric.docker('rm', '-f', 'db');
    const left = await fabric.docker(
      'run',
      '--rm',
      '--network=none',
      '-v=db:/data',
      postgresImage,
      'ls',
      '/data',
    );
    t.equal(left, 'hidden', 'and made no other');
  });

  await t.test('after docker volume rm nothing is left', async (t) => {
    await fabric.docker('volume', 'rm', 'db');
    await fabric.expectNothingAttached(t);
    await fabric.expectNoUsedSpace(t);
  });
});
