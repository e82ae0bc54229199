/** qemu-img, through libiscsi and CHAP, keeps an image of mixed content on a volume. */
import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { GiB, MiB } from '../../daemon/base/limits.ts';
import { createVolume, drained, startWeftd, temporaryDirectory } from './volume-rig.ts';

const raw = ['-f', 'raw', '-O', 'raw'];
const limitMs = 50_000;

/** 1 GiB: random, zeros that are written, text, and holes, in pieces whose ends do not lie on extents. */
async function makeImage(path: string): Promise<{ sha256: string; holeBytes: number }> {
  const file = await open(path, 'wx');
  const hash = createHash('sha256');
  const noise = createCipheriv('aes-128-ctr', randomBytes(16), randomBytes(16));
  const zeros = Buffer.alloc(9 * MiB);
  let holeBytes = 0;
  let at = 0;
  for (let piece = 0; at < GiB; piece++) {
    const lengthBytes = Math.min(5 * MiB + ((piece * 37) % 64) * 65_536, GiB - at);
    let data = zeros.subarray(0, lengthBytes);
    if (piece % 4 === 0) data = noise.update(data);
    if (piece % 4 === 1) data = Buffer.alloc(lengthBytes, `piece ${piece} of the image, a line of text\n`);
    hash.update(data);
    if (piece % 4 === 3) holeBytes += lengthBytes;
    else await file.write(data, 0, lengthBytes, at);
    at += lengthBytes;
  }
  await file.truncate(GiB);
  await file.close();
  return { sha256: hash.digest('hex'), holeBytes };
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path, { highWaterMark: MiB })) hash.update(piece as Buffer);
  return hash.digest('hex');
}

t.test('an image of 1 GiB reads back identical, after kill -9 and after a drain too', async (t) => {
  const directory = await temporaryDirectory(t);
  const image = join(directory, 'image.raw');
  const { sha256, holeBytes } = await makeImage(image);
  const weftd = await startWeftd(t);
  const url = await createVolume(weftd, { name: 'image', sizeBytes: GiB, chap: 'auto' });
  t.match(url, /^iscsi:\/\/[^%]+%[^@]+@127/, 'with CHAP');
  const qemuImg = (...args: string[]) => execa('qemu-img', args, { timeout: limitMs, stdin: 'ignore' });
  const readBack = async () => {
    const copy = join(directory, 'copy.raw');
    await qemuImg('convert', ...raw, url, copy);
    const sha256 = await sha256Of(copy);
    await rm(copy);
    return sha256;
  };

  const refused = await execa('qemu-img', ['info', url.replace(/%[^@]+@/, '%not-the-secret@')], {
    reject: false,
    stdin: 'ignore',
    timeout: limitMs,
  });
  t.not(refused.exitCode, 0, 'not with another secret');

  await qemuImg('convert', '-n', ...raw, image, url);
  await weftd.kill9();
  await weftd.startAgain();
  await qemuImg('compare', '-f', 'raw', '-F', 'raw', image, url);
  t.pass('identical after kill -9 and recovery from the journal');

  await drained(weftd);
  t.equal(await readBack(), sha256, 'identical out of the segments');
  const { usedBytes } = await (await weftd.client()).volume('image');
  t.ok(usedBytes > GiB / 4, `${usedBytes} bytes are used`);
  t.ok(usedBytes <= GiB - holeBytes, `holes take no space: ${usedBytes} bytes used, ${holeBytes} in holes`);
});
