import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ensureHostId } from '../../plugin/host-id.ts';
import { initiatorOf } from '../../plugin/userspace.ts';

t.test('a host keeps its id, and two hosts of one name are two initiators', async (t) => {
  const here = t.testdir();
  const id = await ensureHostId(here);
  t.match(id, /^[0-9a-f]{8}$/);
  t.equal(await ensureHostId(here), id);
  t.same(readdirSync(here), ['host-id'], 'nothing else is left');
  t.not(initiatorOf('node', id), initiatorOf('node', '00000000'));
  t.equal(initiatorOf('Host_1', '0a1b2c3d'), 'iqn.2026-11.io.weft.host:host-1-0a1b2c3d');
});

t.test('an id that was cut off by a crash is made anew', async (t) => {
  const directory = t.testdir();
  writeFileSync(join(directory, 'host-id'), 'a1b2');
  t.match(await ensureHostId(directory), /^[0-9a-f]{8}$/);
});
