import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openDataDirectory } from '../../daemon/env/data-directory.ts';
import { decodeStoreLabel, encodeStoreLabel } from '../../daemon/format/store-label.ts';

t.test('a new directory is labelled, and every start is counted', async (t) => {
  const path = join(t.testdir(), 'data');
  const first = await openDataDirectory(path, 0);
  t.equal(first.label.starts, 1);
  t.equal(statSync(path).mode & 0o777, 0o700);
  first.unlock();
  const second = await openDataDirectory(path, 1);
  t.equal(second.label.starts, 2);
  t.equal(second.label.nodeId, first.label.nodeId);
  t.equal(second.label.createdAt, '1970-01-01T00:00:00.000Z');
  second.unlock();
});

t.test('a second daemon on the directory is refused while the first lives', async (t) => {
  const path = t.testdir();
  const module = new URL('../../daemon/env/data-directory.ts', import.meta.url).href;
  const holder = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `const m = await import(${JSON.stringify(module)}); await m.openDataDirectory(${JSON.stringify(path)}, 0);
       process.stdout.write('held'); setInterval(() => {}, 1000);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await once(holder.stdout, 'data');
  await t.rejects(openDataDirectory(path, 0), { code: 'LOCKED' });
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  const mine = await openDataDirectory(path, 0);
  t.equal(mine.label.starts, 2, 'the lock went with the process');
  mine.unlock();
});

t.test('a damaged, foreign, missing or newer label is refused and left alone', async (t) => {
  const path = t.testdir();
  const label = join(path, 'label.json');
  (await openDataDirectory(path, 0)).unlock();
  const good = readFileSync(label, 'utf8');
  for (const [bad, code] of [
    [good.replace('"starts":1', '"starts":2'), 'CORRUPT'],
    ['{}', 'CORRUPT'],
    ['null', 'CORRUPT'],
    ['\0\0\0', 'CORRUPT'],
    ['', 'CORRUPT'],
    [good.replace('"version":1', '"version":2'), 'FORMAT_TOO_NEW'],
  ] as const) {
    writeFileSync(label, bad);
    await t.rejects(openDataDirectory(path, 0), { code });
    t.equal(readFileSync(label, 'utf8'), bad);
  }
  rmSync(label);
  writeFileSync(join(path, 'control.db'), 'precious');
  await t.rejects(openDataDirectory(path, 0), { code: 'CORRUPT' }, 'data without a label');
});

t.test(
  'a directory that lost a database is refused: what the others hold would look like leftovers',
  async (t) => {
    const path = t.testdir();
    (await openDataDirectory(path, 0)).unlock();
    mkdirSync(join(path, 'segments'));
    writeFileSync(join(path, 'control.db'), 'the catalog');
    await t.rejects(openDataDirectory(path, 0), { code: 'CORRUPT', details: { missing: ['map.db'] } });
    writeFileSync(join(path, 'map.db'), 'the map');
    rmSync(join(path, 'control.db'));
    await t.rejects(openDataDirectory(path, 0), { code: 'CORRUPT', details: { missing: ['control.db'] } });
    writeFileSync(join(path, 'control.db'), 'the catalog');
    (await openDataDirectory(path, 0)).unlock();
  },
);

t.test('a fresh ext4 file system is an empty directory', async (t) => {
  const path = t.testdir({ 'lost+found': {} });
  (await openDataDirectory(path, 0)).unlock();
  t.pass('lost+found is no data');
});

t.test('a directory with nothing but what a provisioning tool put there is a new one', async (t) => {
  const path = t.testdir({ 'admin.token': 'token', 'secrets.key': 'keys' });
  const opened = await openDataDirectory(path, 0);
  t.equal(opened.label.starts, 1);
  opened.unlock();
});

t.test('the label is these bytes', async (t) => {
  const label = {
    nodeId: '00000000-0000-4000-8000-000000000000',
    starts: 3,
    createdAt: '2026-11-21T00:00:00.000Z',
  };
  const bytes = encodeStoreLabel(label);
  t.equal(
    bytes.toString().replace(/"crc32c":"[0-9a-f]{8}"/, '"crc32c":"…"'),
    '{"magic":"WEFT-NODE","version":1,"nodeId":"00000000-0000-4000-8000-000000000000","starts":3,' +
      '"createdAt":"2026-11-21T00:00:00.000Z","crc32c":"…"}\n',
  );
  t.same(decodeStoreLabel(bytes, 'label.json'), label);
});

t.test('a path that cannot be a directory is refused at once, naming it', async (t) => {
  const file = join(t.testdir({ file: 'x' }), 'file');
  for (const path of [file, join(file, 'below'), '/proc/weft', '/proc/weft/data']) {
    await t.rejects(openDataDirectory(path, 0), {
      code: 'IO_ERROR',
      message: new RegExp(`^${path} cannot be the data directory .*--data$`),
    });
  }
});

t.test('directories above the data directory are made with it', async (t) => {
  const path = join(t.testdir(), 'srv/weft/data');
  (await openDataDirectory(path, 0)).unlock();
  t.equal(statSync(path).mode & 0o777, 0o700);
});
