import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import {
  carryCounts,
  countDown,
  countOf,
  countUp,
  decode,
  encode,
  newRecord,
  RecordStore,
} from '../../plugin/records.ts';

const golden =
  '{"format":"weft-plugin-volume","version":1,"crc32c":CRC,"record":{"name":"db","id":"id-1","iqn":"iqn.x",' +
  '"mounts":{"c1":2},"carried":{},"bootId":"boot","generation":7,"claimEpoch":3,"claimLost":false}}\n';

function record() {
  const made = newRecord('db', 'id-1', 'iqn.x', 'boot');
  countUp(made, 'c1');
  countUp(made, 'c1');
  return { ...made, generation: 7, claimEpoch: 3 };
}

t.test('a record has these bytes', async (t) => {
  const text = encode('weft-plugin-volume', record());
  t.equal(text.replace(/"crc32c":\d+/, '"crc32c":CRC'), golden);
  t.equal(/"crc32c":(\d+)/.exec(text)?.[1], '1344956279');
  t.same(decode('weft-plugin-volume', text), record());
});

t.test('a record that was changed, cut off, or is of another format is refused', async (t) => {
  const text = encode('weft-plugin-volume', record());
  for (const bad of [
    '',
    '{',
    'null',
    '7',
    text.slice(0, -10),
    text.replace('c1', 'c2'),
    text.replace('"version":1', '"version":0'),
  ]) {
    t.throws(() => decode('weft-plugin-volume', bad), { code: 'CORRUPT' }, bad.slice(0, 40));
  }
  t.throws(() => decode('weft-plugin-fabric', text), { code: 'CORRUPT' });
  t.throws(() => decode('weft-plugin-volume', text.replace('"version":1', '"version":2')), {
    code: 'FORMAT_TOO_NEW',
  });
});

t.test('what was saved is loaded; what is damaged is put aside and named', async (t) => {
  const directory = t.testdir();
  const store = new RecordStore(directory);
  t.same(await store.load(), { records: [], volumes: [], damaged: [] });
  await store.save(record());
  await store.save({ ...record(), name: 'other' });
  await store.remove('other');
  await store.remove('other');
  // Of a write that was cut off.
  writeFileSync(join(directory, 'volumes/db.json.tmp'), '{"fo');
  writeFileSync(
    join(directory, 'volumes/bad.json'),
    encode('weft-plugin-volume', { ...record(), name: '../x' }),
  );
  writeFileSync(join(directory, 'fabric.json'), 'nonsense');
  const loaded = await new RecordStore(directory).load();
  t.same(loaded.records, [record()]);
  t.equal(loaded.damaged.length, 2);
  t.equal(
    readdirSync(join(directory, 'volumes')).filter((name) => name.startsWith('bad.json.damaged-')).length,
    1,
  );
  const again = await new RecordStore(directory).load();
  t.same([again.records.length, again.damaged.length], [1, 0]);
  t.ok(readFileSync(join(directory, 'volumes/db.json')).length > 0);
  mkdirSync(join(directory, 'volumes/directory.json'));
  t.match((await store.load()).damaged, [/directory\.json/]);
});

t.test(
  'counts are per id, this process first, then those of earlier ones, and none after a reboot',
  async (t) => {
    const made = record();
    t.equal(countDown(made, 'unknown'), false);
    t.equal(countDown(made, '__proto__'), false);
    t.equal(countDown(made, 'c1'), true);
    carryCounts(made, 'boot');
    t.same([made.mounts, made.carried], [{}, { c1: 1 }]);
    countUp(made, 'c1');
    countDown(made, 'c1');
    t.same([made.mounts, made.carried], [{}, { c1: 1 }]);
    countUp(made, 'c1');
    carryCounts(made, 'boot');
    t.same(made.carried, { c1: 2 });
    countUp(made, 'c2');
    carryCounts(made, 'next boot');
    t.equal(countOf(made.mounts) + countOf(made.carried), 0);
  },
);
