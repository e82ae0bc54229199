import { createHash } from 'node:crypto';
import t from 'tap';
import type { WeftError } from '../../daemon/base/errors.ts';
import {
  batchHeaderBytes,
  checksumBlocks,
  decodeBatchHeader,
  encodeBatchHeader,
  type JournalRecord,
  maxBatchBlocks,
  maxBatchHeaderBytes,
  maxBatchRecords,
} from '../../daemon/format/journal-batch.ts';
import {
  decodeJournalFileHeader,
  encodeJournalFileHeader,
  journalFileHeaderBytes,
} from '../../daemon/format/journal-file.ts';

const incarnation = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
const identity = { incarnation, fileNumber: 7 };
const fileHeader = {
  incarnation,
  fileNumber: 7,
  firstBatch: 2 ** 40 + 3,
  durableBatch: 2 ** 40 + 1,
  fileSizeBytes: 2 ** 26,
};
const records: JournalRecord[] = [
  {
    kind: 'write',
    volumeKey: 2 ** 33 + 1,
    offsetBytes: 2 ** 45 + 4096,
    lengthBytes: 8192,
    epoch: 5,
    sequence: 6,
    data: Buffer.concat([Buffer.alloc(4096, 0xaa), Buffer.alloc(4096, 0x55)]),
  },
  { kind: 'zero', volumeKey: 9, offsetBytes: 8192, lengthBytes: 2 ** 40, epoch: 5, sequence: 7, data: null },
];

function encoded(): Buffer {
  const checksums = new Uint32Array(2);
  checksumBlocks(records[0]!.data!, checksums, 0);
  const header = Buffer.alloc(batchHeaderBytes(2, 2), 0xff);
  encodeBatchHeader(header, identity, 12, 11, records, checksums);
  return Buffer.concat([header, records[0]!.data!]);
}

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
const corrupt = { code: 'CORRUPT' };

t.test('the bytes of a file header stay what they are', async (t) => {
  const page = encodeJournalFileHeader(fileHeader);
  t.equal(page.length, journalFileHeaderBytes);
  t.equal(
    page.subarray(0, 64).toString('hex'),
    '574546544a524e4c01000000d962284c000102030405060708090a0b0c0d0e0f07000000000000000300000000010000' +
      '01000000000100000000000400000000',
  );
  t.ok(page.subarray(64).equals(Buffer.alloc(4096 - 64)), 'the rest is zeros');
  t.same(decodeJournalFileHeader(page, 'f'), fileHeader);
});

t.test('the bytes of a batch header stay what they are', async (t) => {
  const bytes = encoded();
  t.equal(
    bytes.subarray(0, 176).toString('hex'),
    '57464a4201000000c06352f500100000000102030405060708090a0b0c0d0e0f07000000000000000c00000000000000' +
      '0b0000000000000000300000020000000100000001000000010000000200000000100000002000000020000000000000' +
      '05000000000000000600000000000000656bd64effd4eef3020000000000000009000000000000000020000000000000' +
      '0000000000010000050000000000000007000000000000000000000000000000',
  );
  t.equal(sha256(bytes), '19e2d7b590a4ecf0867a348269e70b98d097dfea41c5d23726d5d5a5e4590561');
  const batch = decodeBatchHeader(bytes, 0, identity, 'f');
  t.match(batch, { batchNumber: 12, durableBatch: 11, headerBytes: 4096, totalBytes: 4096 * 3 });
  t.match(batch.records[0], {
    kind: 'write',
    volumeKey: 2 ** 33 + 1,
    offsetBytes: 2 ** 45 + 4096,
    lengthBytes: 8192,
    epoch: 5,
    sequence: 6,
    headerOffsetBytes: 64,
    payloadOffsetBytes: 4096,
  });
  const checksums = new Uint32Array(2);
  checksumBlocks(records[0]!.data!, checksums, 0);
  t.same([...batch.records[0]!.checksums], [...checksums]);
  t.match(batch.records[1], {
    kind: 'zero',
    volumeKey: 9,
    offsetBytes: 8192,
    lengthBytes: 2 ** 40,
    sequence: 7,
  });
});

t.test('the bytes of a batch that says a range is stored stay what they are, of version 2', async (t) => {
  const stored: JournalRecord = {
    kind: 'stored',
    volumeKey: 2 ** 33 + 1,
    offsetBytes: 2 ** 45 + 65536,
    lengthBytes: 2 ** 26,
    epoch: 5,
    sequence: 8,
    data: null,
  };
  const bytes = Buffer.alloc(batchHeaderBytes(1, 0), 0xff);
  encodeBatchHeader(bytes, identity, 12, 11, [stored], new Uint32Array(0));
  t.equal(
    bytes.subarray(0, 112).toString('hex'),
    '57464a420200000098f6e83600100000000102030405060708090a0b0c0d0e0f07000000000000000c00000000000000' +
      '0b0000000000000000100000010000000300000000000000010000000200000000000100002000000000000400000000' +
      '05000000000000000800000000000000',
  );
  t.equal(sha256(bytes), '1951ddf635481076261ef102d693df8c7c06207fc3d2e78047b1ed9a122f549b');
  const { records } = decodeBatchHeader(bytes, 0, identity, 'f');
  const { data, ...facts } = stored;
  t.match(records, [{ ...facts, headerOffsetBytes: 64, payloadOffsetBytes: 0 }]);
});

t.test('a version 1 batch has no record of the later kind', async (t) => {
  const { crc32c } = await import('@node-rs/crc32');
  const bytes = encoded();
  bytes.writeUInt32LE(3, 64 + 48 + 8);
  bytes.writeUInt32LE(0, 8);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, 4096)), 8);
  t.throws(() => decodeBatchHeader(bytes, 0, identity, 'f'), corrupt);
});

t.test('every flipped bit of a header is noticed', async (t) => {
  const page = encodeJournalFileHeader(fileHeader);
  const bytes = encoded();
  for (let bit = 0; bit < 4096 * 8; bit += bit < 200 * 8 ? 1 : 97) {
    page[bit >> 3]! ^= 1 << (bit & 7);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    const fault = (run: () => unknown) => {
      try {
        run();
        return 'accepted';
      } catch (error) {
        return (error as WeftError).code;
      }
    };
    const found = [
      fault(() => decodeJournalFileHeader(page, 'f')),
      fault(() => decodeBatchHeader(bytes, 0, identity, 'f')),
    ];
    if (found[0] !== 'CORRUPT' || found[1] !== 'CORRUPT') t.same(found, ['CORRUPT', 'CORRUPT'], `bit ${bit}`);
    page[bit >> 3]! ^= 1 << (bit & 7);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
  }
  t.ok(decodeBatchHeader(bytes, 0, identity, 'f'), 'and unflipped it is good');
});

t.test('a batch of an earlier use of the file is not taken for one of this use', async (t) => {
  const bytes = encoded();
  t.throws(() => decodeBatchHeader(bytes, 0, { incarnation, fileNumber: 8 }, 'f'), corrupt);
  t.throws(() => decodeBatchHeader(bytes, 0, { incarnation: Buffer.alloc(16), fileNumber: 7 }, 'f'), corrupt);
});

t.test('a batch that is cut off by the end of the file is refused', async (t) => {
  t.throws(() => decodeBatchHeader(encoded().subarray(0, 4096 * 2), 0, identity, 'f'), corrupt);
  t.throws(() => decodeBatchHeader(encoded().subarray(0, 100), 0, identity, 'f'), corrupt);
});

t.test('a newer format is refused as such, not as damage', async (t) => {
  const { crc32c } = await import('@node-rs/crc32');
  const page = encodeJournalFileHeader(fileHeader);
  page.writeUInt32LE(2, 8);
  page.writeUInt32LE(0, 12);
  page.writeUInt32LE(crc32c(page), 12);
  t.throws(() => decodeJournalFileHeader(page, 'f'), { code: 'FORMAT_TOO_NEW' });
  const bytes = encoded();
  bytes.writeUInt32LE(3, 4);
  bytes.writeUInt32LE(0, 8);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, 4096)), 8);
  t.throws(() => decodeBatchHeader(bytes, 0, identity, 'f'), { code: 'FORMAT_TOO_NEW' });
  t.throws(() => decodeBatchHeader(bytes, 0, { incarnation, fileNumber: 8 }, 'f'), corrupt);
});

t.test('the largest batch fits into the largest header', async (t) => {
  t.equal(maxBatchHeaderBytes % 4096, 0);
  t.ok(maxBatchHeaderBytes >= 64 + maxBatchRecords * 48 + maxBatchBlocks * 4);
});
