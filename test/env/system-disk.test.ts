import t from 'tap';
import { SystemDisk, withoutFirst } from '../../daemon/env/system-disk.ts';
import { diskConformance, write } from './disk-conformance.ts';

diskConformance(t, (t) => ({ disk: new SystemDisk(t.testdir({})), settle: (promise) => promise }));

t.test('what a short writev left is written next', async (t) => {
  const pieces = ['abc', '', 'de', 'f'].map((text) => Buffer.from(text));
  for (let count = 0; count <= 6; count++) {
    t.equal(
      Buffer.concat(withoutFirst(pieces, count)).toString(),
      'abcdef'.slice(count),
      `${count} bytes written`,
    );
  }
});

t.test('errors carry the path, the errno and a code', async (t) => {
  const full = new SystemDisk('/dev');
  const file = await full.open('full', 'write');
  await t.rejects(write(file, [Buffer.alloc(10)], 0), { code: 'NO_SPACE', message: /\/dev\/full/ });
  await t.rejects(write(file, [Buffer.alloc(10), Buffer.alloc(5)], 0), { code: 'NO_SPACE' });
  await file.close();
  const directory = t.testdir({ sub: {} });
  await t.rejects(new SystemDisk(directory).open('sub', 'write'), {
    code: 'IO_ERROR',
    details: { errno: 'EISDIR' },
    message: new RegExp(`${directory}/sub`),
  });
});
