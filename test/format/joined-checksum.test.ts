import { randomBytes } from 'node:crypto';
import { crc32c } from '@node-rs/crc32';
import t from 'tap';
import { joinedChecksum } from '../../daemon/format/joined-checksum.ts';

for (const pieceBytes of [1, 7, 4096, 16_384, 65_536]) {
  t.test(`pieces of ${pieceBytes} bytes have the checksum of what they are together`, async (t) => {
    for (const count of [1, 2, 3, 32]) {
      const data = randomBytes(count * pieceBytes);
      const checksums = Uint32Array.from({ length: count }, (_, index) =>
        crc32c(data.subarray(index * pieceBytes, (index + 1) * pieceBytes)),
      );
      t.equal(joinedChecksum(checksums, 0, count, pieceBytes), crc32c(data), `${count} pieces`);
    }
  });
}

t.test('only the pieces asked for are joined', async (t) => {
  const data = randomBytes(4 * 4096);
  const checksums = [0, 1, 2, 3].map((index) => crc32c(data.subarray(index * 4096, (index + 1) * 4096)));
  t.equal(joinedChecksum(checksums, 1, 2, 4096), crc32c(data.subarray(4096, 3 * 4096)));
});

t.test('the check value of crc32c comes out of its halves', async (t) => {
  const halves = ['1234', '5678'].map((text) => crc32c(Buffer.from(text)));
  t.equal(joinedChecksum(halves, 0, 2, 4), crc32c(Buffer.from('12345678')));
});
