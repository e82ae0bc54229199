import { hostname } from 'node:os';
import t from 'tap';
import { readBasics, readSettings } from '../../plugin/settings.ts';

t.test('without any setting the plugin looks for a fabric on this host', async (t) => {
  const settings = readSettings({ WEFT_URL: '', PRISM_IP: ' ' });
  t.match(settings, {
    url: 'http://127.0.0.1:7480',
    token: null,
    portal: null,
    container: null,
    node: hostname(),
    attach: 'auto',
    mountDirectory: '/mnt/weft',
    stateDirectory: '/mnt/weft/.state',
  });
  t.same(readBasics({}), { socketPath: '/run/docker/plugins/weft.sock', logLevel: 'info' });
});

t.test("the Nutanix plugin's names are understood", async (t) => {
  const settings = readSettings({
    PRISM_IP: '10.0.0.5',
    DATASERVICES_IP: '10.0.0.6',
    PRISM_USERNAME: 'docker',
    PRISM_PASSWORD: 'a-token',
    DEFAULT_CONTAINER: 'gold',
  });
  t.match(settings, {
    url: 'http://10.0.0.5:7480',
    portal: '10.0.0.6:3260',
    username: 'docker',
    password: 'a-token',
    container: 'gold',
  });
});

t.test('addresses are taken as people write them', async (t) => {
  const urls: [string, string][] = [
    ['weft.example', 'http://weft.example:7480'],
    ['weft.example:81', 'http://weft.example:81'],
    ['https://weft.example/', 'https://weft.example'],
    ['::1', 'http://[::1]:7480'],
    ['[fd00::1]:99', 'http://[fd00::1]:99'],
  ];
  for (const [written, url] of urls) t.equal(readSettings({ PRISM_IP: written }).url, url);
  t.equal(readSettings({ WEFT_PORTAL: 'fd00::1' }).portal, '[fd00::1]:3260');
  t.equal(
    readSettings({ WEFT_URL: 'http://a', PRISM_IP: 'b' }).url,
    'http://a',
    "Weft's own names come first",
  );
});

t.test('every bad value is named with what is allowed, and no secret is repeated', async (t) => {
  const bad: [Record<string, string>, RegExp][] = [
    [{ WEFT_URL: 'ftp://x' }, /WEFT_URL: "ftp:\/\/x".*http:\/\/HOST:PORT/],
    [{ PRISM_IP: 'a b' }, /PRISM_IP: "a b"/],
    [{ WEFT_TOKEN: 'geheim x' }, /WEFT_TOKEN: it contains white space/],
    [{ WEFT_PORTAL: 'x:99999' }, /WEFT_PORTAL: "x:99999"/],
    [{ WEFT_CONTAINER: '../x' }, /WEFT_CONTAINER: "\.\.\/x"/],
    [{ WEFT_LOG_LEVEL: 'loud' }, /WEFT_LOG_LEVEL: "loud".*fatal, error, warn/],
    [{ WEFT_ATTACH: 'nbd' }, /WEFT_ATTACH: "nbd".*auto, open-iscsi, userspace/],
    [{ WEFT_DEFAULTS: 'size' }, /WEFT_DEFAULTS: "size" is not KEY=VALUE/],
    [{ WEFT_DEFAULTS: 'size=huge' }, /WEFT_DEFAULTS: bad value "huge" for size/],
    [{ WEFT_OVERRIDES: 'colour=red' }, /WEFT_OVERRIDES: unknown option "colour"/],
    [{ WEFT_STATE_DIR: 'state' }, /WEFT_STATE_DIR: "state".*absolute/],
    [{ PRISM_USERNAME: 'docker' }, /PRISM_USERNAME and PRISM_PASSWORD: give both/],
  ];
  for (const [environment, message] of bad) {
    t.throws(() => readSettings(environment), { code: 'CONFIG_INVALID', message });
  }
  t.notMatch(
    t.throws(() => readSettings({ WEFT_TOKEN: 'geheim x' })),
    /geheim/,
  );
  const all = Object.assign({}, ...bad.map(([environment]) => environment));
  t.throws(() => readSettings(all), /WEFT_URL.*WEFT_CONTAINER.*WEFT_ATTACH.*WEFT_OVERRIDES/s);
});
