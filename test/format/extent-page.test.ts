import { crc32c } from '@node-rs/crc32';
import t from 'tap';
import { decodeExtentPage, encodeExtentPage } from '../../daemon/format/extent-page.ts';

t.test('the bytes of an extent page stay what they are', async (t) => {
  const page = encodeExtentPage([1, 0, 2 ** 40 + 3]);
  t.equal(
    page.toString('hex'),
    [
      '5746455001000300',
      '0'.repeat(32),
      '00000000',
      'a2c78a9d',
      '0100000000000000',
      '0000000000000000',
      '0300000000010000',
    ].join(''),
  );
});

t.test('a page is read as it was written', async (t) => {
  const chunkIds = Array.from({ length: 1024 }, (_, slot) => (slot % 3 === 0 ? 0 : slot * 1_234_567_891));
  t.same([...decodeExtentPage(encodeExtentPage(chunkIds))], chunkIds);
});

t.test('one wrong bit anywhere in a page is noticed', async (t) => {
  const page = encodeExtentPage([7, 0, 9]);
  for (let bit = 0; bit < page.length * 8; bit++) {
    const rotten = Buffer.from(page);
    rotten[bit >> 3]! ^= 1 << (bit & 7);
    t.throws(() => decodeExtentPage(rotten), { code: 'CORRUPT' }, `bit ${bit}`);
  }
});

t.test('a page that is cut off is refused', async (t) => {
  const page = encodeExtentPage([7, 0, 9]);
  for (const length of [0, 10, 32, page.length - 8]) {
    t.throws(() => decodeExtentPage(page.subarray(0, length)), { code: 'CORRUPT' });
  }
});

t.test('a page of a newer version is refused as such', async (t) => {
  const page = encodeExtentPage([7]);
  page[4] = 2;
  page.writeUInt32LE(crc32c(Buffer.concat([page.subarray(0, 28), page.subarray(32)])), 28);
  t.throws(() => decodeExtentPage(page), { code: 'FORMAT_TOO_NEW' });
});
