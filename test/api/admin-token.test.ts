import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ensureAdminToken } from '../../daemon/api/admin-token.ts';
import { Catalog } from '../../daemon/control/catalog.ts';
import { systemRandom } from '../../daemon/env/random.ts';
import { ManualClock } from '../control/manual-clock.ts';
import { testSecrets } from '../control/test-secrets.ts';
import { MemoryControlState, MemoryControlStore } from '../simulation/memory-control-store.ts';
import { FakeVolumeHost } from './fake-volume-host.ts';

function node(t: { testdir(): string }) {
  const state = new MemoryControlState();
  const directory = t.testdir();
  return {
    directory,
    file: join(directory, 'admin.token'),
    async start() {
      const { tokens } = await startCatalog(state);
      await ensureAdminToken(directory, tokens);
      return { tokens, token: readFileSync(join(directory, 'admin.token'), 'utf8').trim() };
    },
  };
}

async function startCatalog(state: MemoryControlState): Promise<Catalog> {
  const catalog = new Catalog({
    store: new MemoryControlStore(state),
    host: new FakeVolumeHost(),
    clock: new ManualClock(),
    random: systemRandom,
    secrets: testSecrets,
    onFault: () => undefined,
  });
  await catalog.start();
  return catalog;
}

t.test('the first start leaves a token only its owner can read, and later starts keep it', async (t) => {
  const { start, file } = node(t);
  const first = await start();
  t.equal(statSync(file).mode & 0o777, 0o600);
  t.strictSame(first.tokens.byToken(first.token), { name: 'admin', role: 'admin' });
  const second = await start();
  t.equal(second.token, first.token);
  t.strictSame(second.tokens.byToken(first.token), { name: 'admin', role: 'admin' });
});

t.test('a start cut off between the file and the record is made up for by the next', async (t) => {
  const { start, file } = node(t);
  writeFileSync(file, 'weft_left-behind-by-the-start-that-was-cut-off\n');
  const { tokens, token } = await start();
  t.strictSame(tokens.byToken(token), { name: 'admin', role: 'admin' });
  t.equal(token, 'weft_left-behind-by-the-start-that-was-cut-off');
});

t.test('a removed file is made again with a new token, and the old one is dead', async (t) => {
  const { start, file } = node(t);
  const first = await start();
  rmSync(file);
  const second = await start();
  t.not(second.token, first.token);
  t.equal(second.tokens.byToken(first.token), null);
  t.ok(second.tokens.byToken(second.token));
});

t.test('an administrator that was removed stays removed, whatever the file says', async (t) => {
  const { start, file } = node(t);
  const first = await start();
  await first.tokens.create('root2', 'admin');
  await first.tokens.remove('admin');
  const second = await start();
  t.equal(second.tokens.byToken(first.token), null);
  rmSync(file);
  await t.rejects(start(), { code: 'ENOENT' }, 'no file is made either');
});

t.test('a file that holds something else is refused, not overwritten', async (t) => {
  const { start, file } = node(t);
  writeFileSync(file, 'hello');
  await t.rejects(start(), { code: 'CONFIG_INVALID', message: /remove the file/ });
  t.equal(readFileSync(file, 'utf8'), 'hello');
});
