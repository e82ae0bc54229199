/** What every implementation of `Disk` promises. Power loss is not among it: only a simulated disk can lose it. */
import type { Test } from 'tap';
import type { Disk, DiskFile } from '../../daemon/env/disk.ts';

export interface DiskUnderTest {
  disk: Disk;
  /** Lets a simulated disk's work happen until the promise has settled. */
  settle: <Result>(promise: Promise<Result>) => Promise<Result>;
}

export function diskConformance(t: Test, open: (t: Test) => DiskUnderTest): void {
  const promise = (
    name: string,
    body: (t: Test, disk: Disk, use: DiskUnderTest['settle']) => Promise<void>,
  ) => {
    t.test(name, async (t) => {
      const { disk, settle } = open(t);
      await settle(body(t, disk, settle));
    });
  };

  promise('what was written is read back, across pieces and pages', async (t, disk) => {
    const file = await disk.open('data', 'create');
    const pieces = [1, 5000, 0, 4096, 17].map((length, index) => Buffer.alloc(length, index + 65));
    await write(file, pieces, 1000);
    t.equal(await file.size(), 1000 + 9114);
    const { bytes } = await read(file, 9114, 1000);
    t.ok(bytes.equals(Buffer.concat(pieces)));
    await file.close();
    const again = await disk.open('data', 'read');
    t.ok((await read(again, 9114, 1000)).bytes.equals(Buffer.concat(pieces)));
    await again.close();
  });

  promise('more pieces than the system takes at once are all written', async (t, disk) => {
    const file = await disk.open('data', 'create');
    const pieces = Array.from({ length: 2500 }, (_, index) => Buffer.from(`piece ${index}\n`));
    await write(file, pieces, 3);
    const all = Buffer.concat(pieces);
    t.ok((await read(file, all.length, 3)).bytes.equals(all));
    await file.close();
  });

  promise('nothing to write is written, and called back later', async (t, disk) => {
    const file = await disk.open('data', 'create');
    await write(file, [], 100);
    t.equal(await file.size(), 0);
    await file.close();
  });

  promise('no callback comes before the call returns', async (t, disk) => {
    const file = await disk.open('data', 'create');
    let called = false;
    const asked = [
      new Promise((resolve) => file.write([], 0, resolve)),
      new Promise((resolve) => file.write([Buffer.from('a')], 0, resolve)),
      new Promise((resolve) => file.read(Buffer.alloc(1), 0, resolve)),
      new Promise((resolve) => file.sync(resolve)),
    ].map((promise) =>
      promise.then(() => {
        called = true;
      }),
    );
    t.equal(called, false);
    await Promise.all(asked);
    await file.close();
  });

  promise('a read stops at the end of the file, and holes are zeros', async (t, disk) => {
    const file = await disk.open('data', 'create');
    await write(file, [Buffer.from('end')], 10_000);
    const { bytes, count } = await read(file, 20_000, 4000, 0xff);
    t.equal(count, 6003);
    t.ok(bytes.subarray(0, 6000).every((byte) => byte === 0));
    t.equal(bytes.subarray(6000, 6003).toString(), 'end');
    t.equal((await read(file, 10, 50_000)).count, 0);
    await file.close();
  });

  promise('a file may have two names, and lives as long as one of them', async (t, disk) => {
    await disk.makeDirectory('a');
    await disk.makeDirectory('b');
    const file = await disk.open('a/first', 'create');
    await write(file, [Buffer.from('one')], 0);
    await disk.link('a/first', 'b/second');
    await write(file, [Buffer.from('two')], 3);
    await file.close();
    await disk.remove('a/first');
    t.same(await disk.list('a'), []);
    const second = await disk.open('b/second', 'read');
    t.equal((await read(second, 6, 0)).bytes.toString(), 'onetwo');
    await second.close();
    await t.rejects(disk.link('a/first', 'b/third'), { code: 'NOT_FOUND' });
    await disk.link('b/second', 'a/first');
    await t.rejects(disk.link('b/second', 'a/first'), { code: 'ALREADY_EXISTS' });
  });

  promise('a truncated file forgets what lay behind, also when it grows again', async (t, disk) => {
    const file = await disk.open('data', 'create');
    await write(file, [Buffer.alloc(10_000, 1)], 0);
    await file.truncate(5000);
    t.equal(await file.size(), 5000);
    await file.truncate(9000);
    t.equal(await file.size(), 9000);
    const { bytes } = await read(file, 9000, 0);
    t.ok(bytes.subarray(0, 5000).every((byte) => byte === 1));
    t.ok(bytes.subarray(5000).every((byte) => byte === 0));
    await file.close();
  });

  promise('a file is opened as asked or not at all', async (t, disk) => {
    await t.rejects(disk.open('none', 'read'), { code: 'NOT_FOUND', message: /none/ });
    await t.rejects(disk.open('none', 'write'), { code: 'NOT_FOUND' });
    await t.rejects(disk.open('no/such/directory', 'create'), { code: 'NOT_FOUND' });
    const file = await disk.open('one', 'create');
    await t.rejects(disk.open('one', 'create'), { code: 'ALREADY_EXISTS', message: /one/ });
    await write(file, [Buffer.from('kept')], 0);
    await file.close();
    const reader = await disk.open('one', 'read');
    await t.rejects(write(reader, [Buffer.from('x')], 0), { code: 'IO_ERROR', message: /one/ });
    await t.rejects(reader.truncate(0), { code: 'IO_ERROR' });
    await reader.close();
    const writer = await disk.open('one', 'write');
    t.equal((await read(writer, 4, 0)).bytes.toString(), 'kept');
    await writer.close();
  });

  promise('directories are made with their parents, and list their names in order', async (t, disk) => {
    t.same(await disk.list('a/b'), []);
    await disk.makeDirectory('a/b');
    await disk.makeDirectory('a/b');
    for (const name of ['z', 'k', 'a']) await (await disk.open(`a/b/${name}`, 'create')).close();
    t.same(await disk.list('a/b'), ['a', 'k', 'z']);
    t.same(await disk.list('a'), ['b']);
    t.same(await disk.list(''), ['a']);
    await disk.syncDirectory('a/b');
    await disk.syncDirectory('');
    await t.rejects(disk.syncDirectory('nowhere'), { code: 'NOT_FOUND' });
  });

  promise('removing works once and again, and leaves open files readable', async (t, disk) => {
    const file = await disk.open('data', 'create');
    await write(file, [Buffer.from('still here')], 0);
    await disk.remove('data');
    await disk.remove('data');
    t.same(await disk.list(''), []);
    t.equal((await read(file, 10, 0)).bytes.toString(), 'still here');
    await file.close();
  });

  promise('renaming replaces what has the new name', async (t, disk) => {
    await disk.makeDirectory('d');
    for (const [name, text] of [
      ['new', 'new content'],
      ['d/old', 'old'],
    ] as const) {
      const file = await disk.open(name, 'create');
      await write(file, [Buffer.from(text)], 0);
      await file.close();
    }
    await disk.rename('new', 'd/old');
    t.same(await disk.list(''), ['d']);
    const file = await disk.open('d/old', 'read');
    t.equal(await file.size(), 11);
    await file.close();
    await t.rejects(disk.rename('new', 'x'), { code: 'NOT_FOUND' });
  });

  promise('writes side by side all arrive, and a sync answers', async (t, disk) => {
    const file = await disk.open('data', 'create');
    await Promise.all(
      Array.from({ length: 64 }, (_, index) => write(file, [Buffer.alloc(4096, index)], index * 4096)),
    );
    await sync(file);
    const { bytes } = await read(file, 64 * 4096, 0);
    t.ok(bytes.every((byte, at) => byte === at >> 12));
    await file.close();
  });

  promise('space is told in bytes', async (t, disk) => {
    const { totalBytes, freeBytes } = await disk.space();
    t.ok(totalBytes > 0 && freeBytes > 0 && freeBytes <= totalBytes);
  });

  promise('a path out of the store is refused', async (t, disk) => {
    for (const path of ['/etc/passwd', '..', '../x', 'a/../../x', 'a\0b']) {
      await t.rejects(async () => disk.open(path, 'read'), { code: 'INVALID_ARGUMENT' });
      await t.rejects(async () => disk.remove(path), { code: 'INVALID_ARGUMENT' });
      await t.rejects(async () => disk.rename('a', path));
      await t.rejects(async () => disk.list(path), { code: 'INVALID_ARGUMENT' });
    }
  });
}

export function write(file: DiskFile, pieces: readonly Uint8Array[], position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(pieces, position, (error) => (error ? reject(error) : resolve()));
  });
}

export function read(
  file: DiskFile,
  length: number,
  position: number,
  filler = 0,
): Promise<{ bytes: Buffer; count: number }> {
  const bytes = Buffer.alloc(length, filler);
  return new Promise((resolve, reject) => {
    file.read(bytes, position, (error, count) => (error ? reject(error) : resolve({ bytes, count })));
  });
}

export function sync(file: DiskFile): Promise<void> {
  return new Promise((resolve, reject) => file.sync((error) => (error ? reject(error) : resolve())));
}
