import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { ApiFabric, adminToken } from '../api/api-fabric.ts';

const program = new URL('../../daemon/cli/weft.ts', import.meta.url).pathname;

interface Outcome {
  code: number | undefined;
  out: string;
  err: string;
}

async function weft(args: string[], environment: Record<string, string> = {}): Promise<Outcome> {
  const env = { PATH: process.env['PATH'] ?? '', ...environment };
  const result = await execa(process.execPath, [program, ...args], { env, extendEnv: false, reject: false });
  return { code: result.exitCode, out: result.stdout, err: result.stderr };
}

t.test('the life of a volume, as a script sees it', async (t) => {
  const fabric = await ApiFabric.start(t);
  const environment = { WEFT_URL: fabric.url, WEFT_TOKEN: adminToken };
  const json = async (...args: string[]): Promise<Record<string, unknown>> => {
    const { code, out, err } = await weft([...args, '--json'], environment);
    t.equal(code, 0, `${args.join(' ')}: ${err}`);
    return JSON.parse(out) as Record<string, unknown>;
  };
  t.match(await json('volume', 'create', 'db', '--size', '1g', '--durability', 'sync'), {
    name: 'db',
    size: 1_073_741_824,
    durability: 'sync',
    container: 'default',
  });
  const inspected = await json('volume', 'inspect', 'db');
  t.match(inspected, {
    name: 'db',
    size: 1_073_741_824,
    used: 16_384,
    iqn: /^iqn\.2026-11\.io\.weft:volume-[0-9a-f-]{36}$/,
    lun: 0,
    portals: ['127.0.0.1:3260'],
  });
  t.notOk('chap' in inspected, 'no secret unless asked for');
  const { chap } = await fabric.client().attachment('db');
  t.match(await json('volume', 'inspect', 'db', '--show-secrets'), { chap: chap ?? {} });
  t.match(await json('volume', 'resize', 'db', '--size', '1.5g'), { size: 1_610_612_736 });
  t.match(await json('volume', 'resize', 'db', '2g'), { size: 2_147_483_648 });
  t.match(await json('volume', 'ls'), [{ name: 'db' }]);
  await fabric.client().claimVolume('db', { holder: 'host-a', initiator: 'iqn.2026-11.example:a' });
  t.match(await weft(['volume', 'rm', 'db'], environment), { code: 5, err: /^weft: .*claimed by host-a/ });
  t.match(await json('volume', 'release', 'db'), { name: 'db', claim: null });
  t.match(await json('volume', 'rm', 'db'), [{ name: 'db', state: 'trash', purgeAt: /^2026-11-02T/ }]);
  t.match(await json('trash', 'ls'), [{ name: 'db', state: 'trash' }]);
  t.match(await json('volume', 'restore', 'db', '--as', 'db2'), { name: 'db2', state: 'online' });
  t.match(await json('volume', 'rm', 'db2', '--purge'), [{ name: 'db2', state: 'purged' }]);
  t.match(await json('status'), { state: 'ready', volumes: { online: 0, trash: 0 } });
});

t.test('who may log in: secrets come from files, and are shown only when asked for', async (t) => {
  const fabric = await ApiFabric.start(t);
  const environment = { WEFT_URL: fabric.url, WEFT_TOKEN: adminToken };
  const directory = t.testdir({
    chap: 'host-a a-secret-of-my-own\n',
    target: 'weft\nanother-of-my-own\n',
    bad: 'x',
  });
  const file = (name: string) => join(directory, name);
  const run = async (...args: string[]) => {
    const outcome = await weft(args, environment);
    t.equal(outcome.code, 0, `${args.join(' ')}: ${outcome.err}`);
    return outcome.out;
  };
  const initiators = 'iqn.2026-11.example:a, iqn.2026-11.example:b*';
  await run('volume', 'create', 'db', '--chap', file('chap'), '--mutual-chap', 'auto', '--allow', initiators);
  const shown = await run('volume', 'access', 'db');
  t.match(
    shown,
    /authentication: +mutual-chap\ninitiators: +iqn\.2026-11\.example:a, iqn\.2026-11\.example:b\*$/,
  );
  t.notMatch(shown, /secret/);
  const secret = /CHAP user: +host-a\nCHAP secret: +a-secret-of-my-own\nmutual CHAP user: +weft-\w+\n/;
  t.match(await run('volume', 'access', 'db', '--show-secrets'), secret);
  t.match(await run('volume', 'inspect', 'db', '--show-secrets'), secret);
  const { id } = await fabric.client().volume('db');
  fabric.host.login(id, 'iqn.2026-11.example:a');
  t.match(
    await run('volume', 'access', 'db', '--mutual-chap', file('target'), '--allow', 'iqn.2026-11.example:b'),
    /sessions dropped: +1$/,
  );
  t.match(await fabric.client().attachment('db'), {
    mutualChap: { user: 'weft', secret: 'another-of-my-own' },
  });
  fabric.host.login(id, 'iqn.2026-11.example:b');
  const kept = await run(
    'volume',
    'access',
    'db',
    '--chap',
    'auto',
    '--keep-sessions',
    '--allow',
    'any',
    '--json',
  );
  t.match(JSON.parse(kept), { name: 'db', allowedInitiators: [], droppedSessions: 0 });
  t.match(await run('volume', 'access', 'db', '--chap', 'auto'), /sessions dropped: +1$/);
  const piped = await execa(process.execPath, [program, 'volume', 'access', 'db', '--chap', '-'], {
    env: { PATH: process.env['PATH'] ?? '', ...environment },
    extendEnv: false,
    input: 'host-c from-standard-input',
  });
  t.match(piped.stdout, /authentication: +mutual-chap/);
  t.match(await fabric.client().attachment('db'), {
    chap: { user: 'host-c', secret: 'from-standard-input' },
  });
  for (const [args, says] of [
    [['--chap', file('missing')], /--chap: ENOENT.*auto, none, or a file/],
    [['--chap', file('bad')], /--chap: .*bad must hold a user and a secret/],
    [['--allow', ' , '], /name at least one initiator/],
    [['--allow', 'host-a'], /iqn\., eui\. or naa\./],
    [['--keep-sessions'], /goes with --chap/],
    [['--chap', '-', '--mutual-chap', '-'], /only one of/],
  ] as const) {
    t.match(await weft(['volume', 'access', 'db', ...args], environment), { code: 2, err: says });
  }
  t.match(
    await run('logins'),
    /^LAST +ADDRESS .*\n2026-11-01\S+ +10\.0\.0\.66 +iqn\S+:x +iqn\S+:t +2 +CHAP failed$/,
  );
  t.match(await run('status'), /logins: +5 since the start, and 3 that failed/);
});

t.test('trash, containers and tokens', async (t) => {
  const fabric = await ApiFabric.start(t);
  const tokenFile = join(t.testdir(), 'token');
  writeFileSync(tokenFile, `${adminToken}\n`);
  const run = async (...args: string[]) => {
    const outcome = await weft(['--url', fabric.url, '--token-file', tokenFile, ...args]);
    t.equal(outcome.code, 0, `${args.join(' ')}: ${outcome.err}`);
    return outcome.out;
  };
  await run('container', 'create', 'fast', '--chunk-size', '4k', '--quota', '10g', '--retention', '12h');
  t.match(await run('container', 'ls'), /^NAME .*\n.*\nfast +0 +0 B +0 B +10 GiB {2}flush +12h$/);
  t.match(await run('container', 'inspect', 'fast'), /chunk size: +4 KiB/);
  await run('volume', 'create', 'a', '--container', 'fast', '--size', '512m', '--chap', 'none');
  t.match(await run('volume', 'ls'), /^NAME +SIZE +USED .*\na +512 MiB +16 KiB +fast +flush +-$/);
  t.match(await run('volume', 'inspect', 'a', '--show-secrets'), /CHAP secret: +none/);
  await run('volume', 'rm', 'a');
  t.match(await run('trash', 'ls'), /^NAME .*\na /);
  t.match(await run('trash', 'rm', 'a'), /is gone/);
  t.equal(await run('trash', 'empty'), '0 volumes are gone');
  t.match(await run('container', 'set', 'fast', '--quota', 'none', '--retention', '7d'), /trash kept: +7d$/m);
  t.match(await run('container', 'ls'), /\nfast .* - +flush +7d$/);
  await run('container', 'rm', 'fast');
  const token = await run('token', 'create', 'host-a', '--role', 'plugin');
  t.match(await run('status', '--token', token), /^node: +node-1/);
  t.match(await run('token', 'ls'), /host-a +plugin/);
  await run('token', 'rm', 'host-a');
  t.match(await weft(['volume', 'ls'], { WEFT_URL: fabric.url, WEFT_TOKEN: token }), { code: 4 });
});

t.test(
  'failures say what to do next on stderr, as JSON with --json, and tell themselves apart',
  async (t) => {
    const fabric = await ApiFabric.start(t);
    await fabric.create('db');
    const deaf = createServer(() => undefined).listen(0, '127.0.0.1');
    const html = createServer((_request, response) => response.end('<html>')).listen(0, '127.0.0.1');
    t.teardown(() => {
      deaf.closeAllConnections();
      deaf.close();
      html.close();
    });
    for (const server of [deaf, html]) if (!server.listening) await once(server, 'listening');
    const urlOf = (server: typeof deaf) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const good = { WEFT_URL: fabric.url, WEFT_TOKEN: adminToken };
    const cases: [string[], Record<string, string>, number, string, RegExp][] = [
      [['volume', 'inspect', 'ghost'], good, 3, 'NOT_FOUND', /no volume ghost/],
      [['volume', 'create', 'db'], good, 5, 'ALREADY_EXISTS', /already/],
      [['volume', 'create', '../x'], good, 2, 'INVALID_ARGUMENT', /a name is/],
      [['volume', 'create', 'x', '--size', '-5g'], good, 2, 'INVALID_ARGUMENT', /--size/],
      [['volume', 'create', 'x', '--durability', 'none'], good, 2, 'INVALID_ARGUMENT', /flush, sync/],
      [['volume', 'create'], good, 2, 'INVALID_ARGUMENT', /missing required argument/],
      [['volume', 'frobnicate'], good, 2, 'INVALID_ARGUMENT', /unknown command/],
      [['volume', 'ls', '--frob'], good, 2, 'INVALID_ARGUMENT', /unknown option/],
      [['volume', 'resize', 'db'], good, 2, 'INVALID_ARGUMENT', /--size 20g/],
      [['volume', 'resize', 'db', '--size', '1m'], good, 2, 'INVALID_ARGUMENT', /can only grow/],
      [['volume', 'inspect', '..'], good, 2, 'INVALID_ARGUMENT', /not a name/],
      [['container', 'set', 'default'], good, 2, 'INVALID_ARGUMENT', /say what to change/],
      [['container', 'set', 'nope', '--retention', '0'], good, 3, 'NOT_FOUND', /container ls/],
      [['container', 'create', 'c', '--retention', 'soon'], good, 2, 'INVALID_ARGUMENT', /--retention/],
      [['status'], { WEFT_URL: fabric.url }, 4, 'UNAUTHENTICATED', /WEFT_TOKEN/],
      [['status'], { ...good, WEFT_TOKEN: 'wrong' }, 4, 'UNAUTHENTICATED', /unknown credentials/],
      [['status', '--token-file', '/nowhere'], good, 4, 'UNAUTHENTICATED', /nowhere/],
      [['status'], { ...good, WEFT_URL: 'ftp://x' }, 2, 'INVALID_ARGUMENT', /http:\/\/HOST:PORT/],
      [['status'], { ...good, WEFT_URL: 'http://127.0.0.1:1' }, 6, 'UNAVAILABLE', /cannot reach weftd/],
      [['status'], { ...good, WEFT_URL: urlOf(html) }, 6, 'UNAVAILABLE', /not weftd/],
      [['status', '--timeout', '0.2'], { ...good, WEFT_URL: urlOf(deaf) }, 6, 'TIMEOUT', /within 0.2 s/],
    ];
    const check = async ([args, environment, code, name, says]: (typeof cases)[number]) => {
      const { code: found, out, err } = await weft([...args, '--json'], environment);
      t.equal(found, code, `${args.join(' ')}: exit code`);
      t.equal(out, '', 'nothing on stdout');
      t.match(JSON.parse(err), { error: { code: name, message: says } }, args.join(' '));
    };
    // Two at a time: each is a process of its own.
    while (cases.length > 0) await Promise.all(cases.splice(0, 2).map(check));
    t.match(await weft(['volume', 'inspect', 'ghost'], good), {
      out: '',
      err: /^weft: there is no volume ghost$/,
    });
  },
);

t.test('what could not be removed does not hide what was', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('a');
  const good = { WEFT_URL: fabric.url, WEFT_TOKEN: adminToken };
  t.match(await weft(['volume', 'rm', 'a', 'ghost'], good), {
    code: 3,
    out: /^volume a is in the trash/,
    err: /ghost/,
  });
});

t.test('help says how, with the exit codes', async (t) => {
  const { code, out } = await weft(['--help']);
  t.equal(code, 0);
  t.match(out, /Exit codes:\n {2}0 {2}done/);
  t.match(await weft(['volume', 'create', '--help']), { code: 0, out: /--token-file/ });
  t.match(await weft(['--version']), { code: 0, out: /^\d+\.\d+\.\d+$/ });
  t.match(await weft(['volume']), { code: 2, err: /Usage: weft volume/ });
});
