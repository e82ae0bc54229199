import { randomBytes } from 'node:crypto';
import t from 'tap';
import { directFromBytes } from '../../daemon/env/direct-writer.ts';
import { SystemDisk, withoutFirst } from '../../daemon/env/system-disk.ts';
import { diskConformance, read, write } from './disk-conformance.ts';

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

t.test('a log reads back what was written to it, whether past the page cache or through it', async (t) => {
  const disk = new SystemDisk(t.testdir({}));
  const file = await disk.open('log', 'create', 'log');
  const expected: Buffer[] = [];
  let position = 0;
  // Read after every write: a cached page must not hide what a direct write has put below it.
  for (const lengths of [
    [4096],
    [directFromBytes],
    [512, 100],
    [3996 - 512],
    [4096, 2 * directFromBytes - 1, 1],
    [8192],
  ]) {
    const pieces = lengths.map((length) => randomBytes(length));
    await write(file, pieces, position);
    expected.push(...pieces);
    position += lengths.reduce((sum, length) => sum + length, 0);
    const found = await read(file, position, 0);
    t.ok(found.bytes.equals(Buffer.concat(expected)), `${position} bytes`);
  }
  const again = randomBytes(directFromBytes);
  await write(file, [again], 4096);
  const found = await read(file, directFromBytes, 4096);
  t.ok(found.bytes.equals(again), 'overwritten in place');
  await file.close();
});
