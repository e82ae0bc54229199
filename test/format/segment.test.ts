import { crc32c } from '@node-rs/crc32';
import t from 'tap';
import {
  checkSegmentHeader,
  decodeGroupHeader,
  encodeGroupHeader,
  encodeSegmentHeader,
  groupBytes,
  groupHeaderBytes,
  payloadRoomBytes,
  segmentHeaderBytes,
} from '../../daemon/format/segment.ts';

const chunks = [
  {
    chunkId: 2 ** 33 + 7,
    payloadOffsetBytes: 4096,
    rawBytes: 16384,
    storedBytes: 11,
    checksum: 0xba1f_b0fa,
    codec: 0,
    tier: 1,
  },
  {
    chunkId: 5,
    payloadOffsetBytes: 4112,
    rawBytes: 4096,
    storedBytes: 4096,
    checksum: 1,
    codec: 0,
    tier: 0,
  },
];

t.test('the bytes of a group header stay what they are', async (t) => {
  const header = encodeGroupHeader(42, 12288, chunks);
  t.equal(header.length, 4096);
  t.equal(
    header.subarray(0, 160).toString('hex'),
    [
      '5746434701000000',
      '48277f1400100000',
      '003000002a000000',
      '0200000000000000',
      '0700000002000000',
      '0010000000400000',
      '0b000000fab01fba',
      '0001000000000000',
      '0'.repeat(64),
      '0500000000000000',
      '1010000000100000',
      '0010000001000000',
      '0000000000000000',
      '0'.repeat(64),
    ].join(''),
  );
  t.ok(header.subarray(160).every((byte) => byte === 0));
});

t.test('the bytes of a segment header stay what they are', async (t) => {
  const page = encodeSegmentHeader(42);
  t.equal(page.length, segmentHeaderBytes);
  t.equal(page.subarray(0, 24).toString('hex'), '574546545345470a020000002a0000000000000000000000');
  t.ok(page.subarray(16, 4092).every((byte) => byte === 0));
  t.equal(page.readUInt32LE(4092), crc32c(page.subarray(0, 4092)));
});

t.test('a group header is read as it was written, wherever it stands', async (t) => {
  const header = encodeGroupHeader(42, 12288, chunks);
  const group = { segmentNumber: 42, headerBytes: 4096, groupBytes: 12288, chunks };
  t.same(decodeGroupHeader(header, 0), group);
  t.same(decodeGroupHeader(Buffer.concat([Buffer.alloc(4096), header]), 4096), group);
});

t.test('payloads begin at multiples of eight bytes, groups at whole pages', async (t) => {
  t.equal(payloadRoomBytes(1), 8);
  t.equal(payloadRoomBytes(8), 8);
  t.equal(payloadRoomBytes(9), 16);
  t.equal(payloadRoomBytes(16384), 16384);
  t.equal(groupHeaderBytes(1), 4096);
  t.equal(groupHeaderBytes(63), 4096);
  t.equal(groupHeaderBytes(64), 8192);
  t.equal(groupBytes(2, 4112), 4096 + 8192);
});

t.test('one wrong bit anywhere in a group header is noticed', async (t) => {
  const header = encodeGroupHeader(42, 12288, chunks);
  for (let bit = 0; bit < header.length * 8; bit += bit < 200 * 8 ? 1 : 61) {
    const rotten = Buffer.from(header);
    rotten[bit >> 3]! ^= 1 << (bit & 7);
    t.throws(() => decodeGroupHeader(rotten, 0), { code: 'CORRUPT' }, `bit ${bit}`);
  }
  t.throws(() => decodeGroupHeader(header.subarray(0, 4000), 0), { code: 'CORRUPT' });
  t.throws(() => decodeGroupHeader(header, 4096), { code: 'CORRUPT' });
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

t.test('what an older version wrote is read, what a newer one wrote is refused as such', async (t) => {
  const page = encodeSegmentHeader(42);
  const versioned = (version: number) => {
    page.writeUInt32LE(version, 8);
    page.writeUInt32LE(crc32c(page.subarray(0, 4092)), 4092);
    return page;
  };
  t.doesNotThrow(() => checkSegmentHeader(versioned(1), 42));
  t.throws(() => checkSegmentHeader(versioned(3), 42), { code: 'FORMAT_TOO_NEW' });
  const newer = encodeGroupHeader(42, 12288, chunks);
  newer.writeUInt32LE(2, 4);
  newer.writeUInt32LE(0, 8);
  newer.writeUInt32LE(crc32c(newer), 8);
  t.throws(() => decodeGroupHeader(newer, 0), { code: 'FORMAT_TOO_NEW' });
});
