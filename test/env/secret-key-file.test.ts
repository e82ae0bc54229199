import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { systemRandom } from '../../daemon/env/random.ts';
import { makeSecretKeys, openPrivate, readSecretKeys } from '../../daemon/env/secret-key-file.ts';

const directory = t.testdir();
const at = (name: string) => join(directory, name);

t.test('a key file that was made is read again, and never made over', async (t) => {
  t.equal(await readSecretKeys(at('none')), null);
  const keys = await makeSecretKeys(at('secrets.key'), systemRandom);
  t.strictSame(await readSecretKeys(at('secrets.key')), keys);
  await t.rejects(makeSecretKeys(at('secrets.key'), systemRandom), { message: /EEXIST/ });
});

t.test(
  'what is no file is refused at once, by its name, and without advice to change its mode',
  async (t) => {
    mkdirSync(at('directory'), { mode: 0o777 });
    execFileSync('mkfifo', ['-m', '600', at('pipe')]);
    for (const path of [at('directory'), at('pipe'), '/dev/null']) {
      const refused = { code: 'CONFIG_INVALID', message: `${path} is no regular file; name one` };
      await t.rejects(readSecretKeys(path), refused);
      await t.rejects(openPrivate(path), refused);
    }
  },
);

t.test('a file that others may read is refused', async (t) => {
  writeFileSync(at('open'), 'user secret');
  chmodSync(at('open'), 0o640);
  await t.rejects(openPrivate(at('open')), { code: 'CONFIG_INVALID', message: /mode 640.*chmod 600/ });
});
