import t from 'tap';
import {
  checkSegmentHeader,
  chunkFault,
  chunkHeaderBytes,
  chunkRecordBytes,
  decodeChunkHeader,
  encodeChunkHeader,
  encodeSegmentHeader,
  segmentHeaderBytes,
} from '../../daemon/format/segment-chunk.ts';

const header = {
  chunkId: 2 ** 33 + 7,
  volumeKey: 5,
  chunkIndex: 2 ** 34 - 1,
  codec: 0,
  tier: 1,
  rawBytes: 16384,
  storedBytes: 11,
  checksum: 0,
  segmentNumber: 42,
};

/** A record of the eleven bytes "hello, weft". */
function record(): Buffer {
  const bytes = Buffer.alloc(chunkRecordBytes(11));
  bytes.write('hello, weft', chunkHeaderBytes);
  encodeChunkHeader(bytes, 0, { ...header, checksum: 0xba1f_b0fa });
  return bytes;
}

t.test('the bytes of a chunk header stay what they are', async (t) => {
  t.equal(
    record().subarray(0, chunkHeaderBytes).toString('hex'),
    [
      '5746434b01000100',
      '0700000002000000',
      '0500000000000000',
      'ffffffff03000000',
      '004000000b000000',
      'fab01fba2a000000',
      '0'.repeat(80),
      '00000000',
      '6a7ce052',
    ].join(''),
  );
});

t.test('the bytes of a segment header stay what they are', async (t) => {
  const page = encodeSegmentHeader(42);
  t.equal(page.length, segmentHeaderBytes);
  t.equal(page.subarray(0, 24).toString('hex'), '574546545345470a010000002a0000000000000000000000');
  t.ok(page.subarray(16, 4092).every((byte) => byte === 0));
  t.equal(page.subarray(4092).toString('hex'), 'dd68100d');
});

t.test('a chunk header is read as it was written', async (t) => {
  t.same(decodeChunkHeader(record(), 0), { ...header, checksum: 0xba1f_b0fa });
});

t.test('records begin at multiples of eight bytes', async (t) => {
  t.equal(chunkRecordBytes(1), 104);
  t.equal(chunkRecordBytes(8), 104);
  t.equal(chunkRecordBytes(9), 112);
  t.equal(chunkRecordBytes(16384), 96 + 16384);
});

t.test('one wrong bit anywhere in the header or the payload is noticed', async (t) => {
  const whole = record();
  const checksum = whole.readUInt32LE(40);
  t.equal(chunkFault(whole, 0, header.chunkId, 11, checksum), null);
  for (let bit = 0; bit < (chunkHeaderBytes + 11) * 8; bit++) {
    const rotten = Buffer.from(whole);
    rotten[bit >> 3]! ^= 1 << (bit & 7);
    if (chunkFault(rotten, 0, header.chunkId, 11, checksum) === null) t.fail(`bit ${bit} went unnoticed`);
  }
});

t.test('a chunk that is not the one the map means is refused', async (t) => {
  const whole = record();
  const checksum = whole.readUInt32LE(40);
  t.match(chunkFault(whole, 0, header.chunkId + 1, 11, checksum), /another chunk/);
  t.match(chunkFault(whole, 0, header.chunkId, 12, checksum), /length/);
  t.match(chunkFault(whole, 0, header.chunkId, 11, checksum + 1), /checksum differs/);
  t.match(chunkFault(whole.subarray(0, 100), 0, header.chunkId, 11, checksum), /cut off/);
  t.match(chunkFault(whole.subarray(0, 50), 0, header.chunkId, 11, checksum), /cut off/);
});

t.test('a segment header that is damaged or of another segment is refused', async (t) => {
  t.doesNotThrow(() => checkSegmentHeader(encodeSegmentHeader(42), 42));
  t.throws(() => checkSegmentHeader(encodeSegmentHeader(41), 42), { code: 'CORRUPT' });
  t.throws(() => checkSegmentHeader(Buffer.alloc(segmentHeaderBytes), 42), { code: 'CORRUPT' });
  t.throws(() => checkSegmentHeader(encodeSegmentHeader(42).subarray(0, 100), 42), { code: 'CORRUPT' });
  const rotten = encodeSegmentHeader(42);
  rotten[2000]! ^= 1;
  t.throws(() => checkSegmentHeader(rotten, 42), { code: 'CORRUPT' });
});

t.test('a chunk of a newer version is refused as such', async (t) => {
  const { crc32c } = await import('@node-rs/crc32');
  const newer = record();
  newer[4] = 2;
  newer.writeUInt32LE(crc32c(newer.subarray(0, 92)), 92);
  t.throws(() => decodeChunkHeader(newer, 0), { code: 'FORMAT_TOO_NEW' });
  t.match(chunkFault(newer, 0, header.chunkId, 11, newer.readUInt32LE(40)), /version 2/);
});
