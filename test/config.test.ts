import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';
import { type Config, parseHostPort, readInvocation } from '../daemon/config.ts';

const directory = t.testdir();
let files = 0;
function file(content: unknown): string {
  const path = join(directory, `config-${files++}.json`);
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

function config(args: string[], environment: Record<string, string> = {}): Config {
  const invocation = readInvocation(args, environment, '1.2.3');
  if (invocation.action !== 'run') throw new Error('expected a configuration');
  return invocation.config;
}

t.test('a data directory is all that must be said; the rest listens on loopback', async (t) => {
  const defaults = config(['--data', 'some/where']);
  t.equal(defaults.dataDirectory, resolve('some/where'));
  t.match(defaults, {
    api: { host: '127.0.0.1', port: 7480 },
    iscsi: [{ host: '127.0.0.1', port: 3260 }],
    iscsiAdvertise: [],
    logLevel: 'info',
    journal: { capacityBytes: 2_147_483_648, fileSizeBytes: 67_108_864 },
    cacheBytes: 268_435_456,
  });
  t.match(defaults.nodeName, /^[a-zA-Z0-9]/);
});

t.test('flags win over the environment, and that over the file', async (t) => {
  const path = file({ data: '/file', api: '1.1.1.1:1', iscsi: '1.1.1.1:1', 'node.name': 'file' });
  const environment = { WEFTD_CONFIG: path, WEFTD_API: '2.2.2.2:2', WEFTD_ISCSI: '2.2.2.2:2', HOME: '/' };
  const merged = config(['--iscsi', '[::1]:3'], environment);
  t.equal(merged.dataDirectory, '/file');
  t.equal(merged.nodeName, 'file');
  t.strictSame(merged.api, { host: '2.2.2.2', port: 2 });
  t.strictSame(merged.iscsi, [{ host: '::1', port: 3 }]);
  t.equal(config(['--config', file({ data: '/other' })], environment).dataDirectory, '/other');
});

t.test('every key can be given in every place', async (t) => {
  const expected = {
    iscsiAdvertise: ['10.0.0.1:3260', 'storage.example:3261'],
    logLevel: 'debug',
    journal: { capacityBytes: 268_435_456, fileSizeBytes: 33_554_432 },
    cacheBytes: 1_048_576,
  };
  const flags = ['--iscsi-advertise', '10.0.0.1:3260, storage.example:3261', '--log-level', 'debug'];
  flags.push('--journal-capacity', '256m', '--journal-file-size', '32m', '--cache-size', '1m');
  t.match(config(['--data', '/d', ...flags]), expected);
  const environment = {
    WEFTD_DATA: '/d',
    WEFTD_ISCSI_ADVERTISE: '10.0.0.1:3260,storage.example:3261',
    WEFTD_LOG_LEVEL: 'debug',
    WEFTD_JOURNAL_CAPACITY: '256m',
    WEFTD_JOURNAL_FILE_SIZE: '33554432',
    WEFTD_CACHE_SIZE: '1m',
  };
  t.match(config([], environment), expected);
  const document = {
    data: '/d',
    'iscsi.advertise': ['10.0.0.1:3260', 'storage.example:3261'],
    'log.level': 'debug',
    'journal.capacity': '256m',
    'journal.fileSize': 33_554_432,
    'cache.size': 1_048_576,
  };
  t.match(config(['--config', file(document)]), expected);
});

t.test('several addresses for iSCSI keep their order, in every place', async (t) => {
  const two = [
    { host: '10.0.0.1', port: 3260 },
    { host: '::1', port: 3261 },
  ];
  t.strictSame(config(['--data', '/d', '--iscsi', '10.0.0.1:3260,[::1]:3261']).iscsi, two);
  t.strictSame(config(['--config', file({ data: '/d', iscsi: ['10.0.0.1:3260', '[::1]:3261'] })]).iscsi, two);
  const advertised = ['--iscsi', '0.0.0.0:1,0.0.0.0:2', '--iscsi-advertise', 'a:1,b:2'];
  t.strictSame(config(['--data', '/d', ...advertised]).iscsiAdvertise, ['a:1', 'b:2']);
});

t.test('what is wrong is refused, naming the key, what was found and what is allowed', async (t) => {
  const wrong: [string[], Record<string, string>, RegExp][] = [
    [[], {}, /^data is not set; give --data/],
    [['--data', ''], {}, /^data: ""/],
    [['--data', '/d', '--api', '7480'], {}, /^api: "7480" \(from --api\).*HOST:PORT/],
    [['--data', '/d', '--api', 'host:70000'], {}, /^api: "host:70000"/],
    [['--data', '/d', '--api', '::1:80'], {}, /^api: /],
    [['--data', '/d'], { WEFTD_ISCSI: 'x' }, /^iscsi: "x" \(from the variable WEFTD_ISCSI\)/],
    [['--data', '/d'], { WEFTD_ISCSI_ADVERTISE: '10.0.0.1' }, /^iscsi\.advertise: "10\.0\.0\.1"/],
    [['--data', '/d'], { WEFTD_ISCSI_ADVERTISE: '10.0.0.1:0' }, /^iscsi\.advertise: /],
    [['--data', '/d', '--iscsi', ''], {}, /^iscsi: ""/],
    [['--data', '/d', '--iscsi', '1.1.1.1:1,1.1.1.1'], {}, /^iscsi: .*HOST:PORT, up to 16/],
    [['--data', '/d', '--iscsi', Array(17).fill('1.1.1.1:1').join()], {}, /^iscsi: /],
    [
      ['--data', '/d', '--iscsi', 'a:1,b:2', '--iscsi-advertise', 'c:1,d:2,e:3'],
      {},
      /^iscsi\.advertise: has 3 entries for 2 listening addresses; give one for each/,
    ],
    [['--data', '/d'], { WEFTD_APl: '1.1.1.1:1' }, /^WEFTD_APl is no variable.*WEFTD_API/],
    [['--data', '/d', '--node-name', 'a b'], {}, /^node\.name: "a b"/],
    [['--data', '/d', '--log-level', 'loud'], {}, /^log\.level: "loud".*debug/],
    [['--data', '/d', '--journal-capacity', '-1'], {}, /journal-capacity/],
    [['--data', '/d', '--journal-capacity=-1'], {}, /^journal\.capacity: "-1".*32 MiB to 1 TiB/],
    [['--data', '/d', '--journal-capacity', '1'], {}, /^journal\.capacity: "1"/],
    [
      ['--data', '/d', '--journal-capacity', '64m', '--journal-file-size', '64m'],
      {},
      /^journal\.fileSize: 64 MiB/,
    ],
    [['--data', '/d', '--jurnal', '1'], {}, /--jurnal.*allowed:.*--journal-capacity/],
    [['--data', '/d', 'stray'], {}, /stray/],
    [['--data'], {}, /--data/],
    [['--config', join(directory, 'missing.json')], {}, /^config: .*missing\.json cannot be read/],
    [['--config', file('{')], {}, /^config: .* is not JSON/],
    [['--config', file([])], {}, /^config: .* one JSON object/],
    [['--config', file({ data: '/d', jurnal: 1 })], {}, /^jurnal \(in .*journal\.capacity/],
    [['--config', file({ data: 1 })], {}, /^data: 1 \(from /],
    [['--config', file({ data: '/d', api: null })], {}, /^api: null/],
  ];
  for (const [args, environment, message] of wrong) {
    t.throws(
      () => readInvocation(args, environment, '1'),
      { code: 'CONFIG_INVALID', message },
      String(message),
    );
  }
});

t.test('--help lists every key with its default, --version the version', async (t) => {
  const help = readInvocation(['--help'], {}, '1.2.3');
  t.equal(help.action, 'print');
  for (const word of [
    '--data',
    'WEFTD_JOURNAL_FILE_SIZE',
    'default: 127.0.0.1:3260',
    'default: 64m',
    'must be given',
  ]) {
    t.match(help, { text: new RegExp(word) });
  }
  t.strictSame(readInvocation(['--version'], {}, '1.2.3'), { action: 'print', text: 'weftd 1.2.3' });
});

t.test('addresses are read with IPv6 in brackets', async (t) => {
  t.strictSame(parseHostPort('[::1]:0'), { host: '::1', port: 0 });
  t.strictSame(parseHostPort('name:65535'), { host: 'name', port: 65_535 });
  for (const text of ['', ':80', 'host', 'host:', 'host:x', 'host:65536', '[::1]', 'http://a:1', 'a b:1']) {
    t.equal(parseHostPort(text), null, text);
  }
});

t.test('a secret written where the name of its file belongs is not repeated', (t) => {
  const secret = 'cHaP-sEcReT-misplaced';
  for (const key of ['iscsi.discoveryChap', 'secrets.keyFile']) {
    for (const value of [{ user: 'a', secret }, ['a', secret]]) {
      const read = () => config(['--data', 'd', '--config', file({ [key]: value })]);
      const error = t.throws(read, { code: 'CONFIG_INVALID', message: new RegExp(`^${key}: .* a file`) });
      t.notMatch(JSON.stringify([error, (error as Error).message]), new RegExp(secret));
    }
  }
  t.end();
});
