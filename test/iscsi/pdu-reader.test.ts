import { randomBytes } from 'node:crypto';
import { crc32c } from '@node-rs/crc32';
import t from 'tap';
import { Outbox } from '../../daemon/iscsi/outbox.ts';
import { dataLengthOf } from '../../daemon/iscsi/pdu.ts';
import { PduReader, type PduSink, type ReaderSettings } from '../../daemon/iscsi/pdu-reader.ts';
import { digestOf } from './initiator.ts';

const plain: ReaderSettings = { headerDigest: false, dataDigest: false, maxDataBytes: 256 * 1024 };

/** Collects what a reader finds; places what is asked of it when `places`. */
class Collector implements PduSink {
  readonly found: string[] = [];
  placedCount = 0;
  private readonly places: boolean;
  constructor(places = false) {
    this.places = places;
  }
  place(_bhs: Buffer, lengthBytes: number): Buffer | null {
    return this.places ? Buffer.alloc(lengthBytes) : null;
  }
  pdu(bhs: Buffer, data: Buffer, placed: boolean): void {
    if (placed) this.placedCount += 1;
    this.found.push(nameOf(bhs, data));
  }
  damaged(): void {
    this.found.push('damaged');
  }
  violated(violation: string): void {
    this.found.push(violation);
  }
}

const nameOf = (bhs: Buffer, data: Buffer) => `${bhs.readUInt32BE(16)}:${data.length}:${crc32c(data)}`;

function pduOf(tag: number, data: Buffer, settings: ReaderSettings, ahsBytes = 0): Buffer {
  const header = Buffer.alloc(48 + ahsBytes);
  header[4] = ahsBytes / 4;
  header.writeUIntBE(data.length, 5, 3);
  header.writeUInt32BE(tag, 16);
  const padded = Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
  const parts: Buffer[] = [header];
  if (settings.headerDigest) parts.push(digestOf(header));
  parts.push(padded);
  if (settings.dataDigest && padded.length > 0) parts.push(digestOf(padded));
  return Buffer.concat(parts);
}

/** Feeds bytes in pieces of the given sizes, over and over. */
function feed(reader: PduReader, bytes: Buffer, sizes: readonly number[]): void {
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const room = reader.room();
    const copied = bytes.copy(room, 0, at, Math.min(bytes.length, at + sizes[turn % sizes.length]!));
    at += copied;
    reader.filled(copied);
  }
}

t.test('however the bytes are split, the same PDUs come out', async (t) => {
  const lengths = [0, 1, 3, 4, 48, 1000, 16_383, 16_384, 16_385, 50_001, 0, 262_144, 7];
  for (const digests of [false, true]) {
    const settings = { ...plain, headerDigest: digests, dataDigest: digests };
    const datas = lengths.map((length) => randomBytes(length));
    const stream = Buffer.concat(
      datas.map((data, tag) => pduOf(tag, data, settings, tag % 3 === 0 ? 16 : 0)),
    );
    const expected = datas.map((data, tag) => `${tag}:${data.length}:${crc32c(data)}`);
    for (const sizes of [[1], [47, 1], [48], [7, 4096, 13], [60_000], [1_000_000], [16_384, 3]]) {
      for (const places of [false, true]) {
        const sink = new Collector(places);
        feed(new PduReader(sink, settings), stream, sizes);
        t.same(sink.found, expected, `digests ${digests}, pieces of ${sizes}, places ${places}`);
        if (places && sizes[0] === 7) t.ok(sink.placedCount > 0, 'long data lands at its place');
      }
    }
  }
});

t.test('the digests are the ones of RFC 3720 appendix B.4', async (t) => {
  t.equal(digestOf(Buffer.alloc(32)).toString('hex'), 'aa36918a');
  t.equal(digestOf(Buffer.alloc(32, 0xff)).toString('hex'), '43aba862');
  t.equal(digestOf(Buffer.from(Array.from({ length: 32 }, (_, n) => n))).toString('hex'), '4e79dd46');
});

t.test('a header that is wrong ends the parsing; wrong data is told', async (t) => {
  const settings = { ...plain, headerDigest: true, dataDigest: true };
  const one = pduOf(1, randomBytes(20_000), settings);
  const header = Buffer.from(one);
  header[17]! ^= 1;
  const sink = new Collector();
  feed(new PduReader(sink, settings), Buffer.concat([header, one]), [500]);
  t.same(sink.found, ['header digest']);
  const data = Buffer.from(one);
  data[1000]! ^= 1;
  const second = new Collector(true);
  feed(new PduReader(second, settings), Buffer.concat([data, one]), [500]);
  t.match(second.found, ['damaged', /^1:20000:/]);
});

t.test('lengths beyond what was declared are refused before anything is allocated', async (t) => {
  const sink = new Collector();
  feed(new PduReader(sink, { ...plain, maxDataBytes: 8192 }), pduOf(1, randomBytes(8193), plain), [100]);
  t.same(sink.found, ['data segment too long']);
  const ahs = new Collector();
  feed(new PduReader(ahs, plain), pduOf(1, Buffer.alloc(0), plain, 1020), [100]);
  t.same(ahs.found, ['additional header too long']);
});

t.test(
  'what the outbox sends, a reader reads; every buffer is released, and only once it is sent',
  async (t) => {
    for (const digests of [false, true]) {
      const settings = { ...plain, headerDigest: digests, dataDigest: digests };
      const sink = new Collector();
      const reader = new PduReader(sink, settings);
      const wire: { pieces: readonly Buffer[]; sent: () => void }[] = [];
      const turns: (() => void)[] = [];
      const outbox = new Outbox(
        {
          write: (pieces, sent) => wire.push({ pieces, sent }),
          endOfTurn: (fire) => turns.push(fire),
        },
        () => {},
      );
      outbox.headerDigest = digests;
      outbox.dataDigest = digests;
      const expected: string[] = [];
      let released = 0;
      let long = 0;
      for (let tag = 0; tag < 400; tag += 1) {
        const data = randomBytes([0, 1, 100, 4096, 8192, 8193, 30_001][tag % 7]!);
        const at = outbox.header();
        t.ok(outbox.slab.subarray(at, at + 48).every((byte) => byte === 0) || t.fail('a dirty header'));
        outbox.slab.writeUInt32BE(tag, at + 16);
        if (data.length > 8192) long += 1;
        if (data.length === 0) outbox.endEmpty(at);
        else outbox.end(at, data, () => (released += 1));
        expected.push(`${tag}:${data.length}:${crc32c(data)}`);
        if (tag % 50 === 49) for (const fire of turns.splice(0)) fire();
        // What is sent is read at once, so a slab used too early would show.
        if (tag % 100 === 99) {
          for (const { pieces, sent } of wire.splice(0)) {
            feed(reader, Buffer.concat(pieces), [1_000_000]);
            sent();
          }
        }
      }
      t.same(sink.found, expected);
      t.ok(long > 100 && released === expected.filter((name) => !name.includes(':0:')).length);
      t.equal(outbox.unsentBytes, 0);
      t.equal(dataLengthOf(Buffer.alloc(48)), 0);
    }
  },
);

t.test('long data is released with the batch it left in, not with an earlier one', async (t) => {
  const sents: (() => void)[] = [];
  const outbox = new Outbox({ write: (_pieces, sent) => sents.push(sent), endOfTurn: () => {} }, () => {});
  let released = 0;
  outbox.endEmpty(outbox.header());
  outbox.flush();
  outbox.end(outbox.header(), Buffer.alloc(20_000), () => (released += 1));
  outbox.flush();
  sents[0]!();
  t.equal(released, 0);
  sents[1]!();
  t.equal(released, 1);
});

t.test('an outbox that is disposed of releases what it held, once', async (t) => {
  const turns: (() => void)[] = [];
  const sents: (() => void)[] = [];
  const outbox = new Outbox(
    { write: (_pieces, sent) => sents.push(sent), endOfTurn: (fire) => turns.push(fire) },
    () => t.fail('told of sending after the end'),
  );
  let released = 0;
  const add = () => outbox.end(outbox.header(), Buffer.alloc(20_000), () => (released += 1));
  add();
  outbox.flush();
  add();
  outbox.dispose();
  outbox.dispose();
  t.equal(released, 2);
  add();
  for (const fire of turns) fire();
  for (const sent of sents) sent();
  t.equal(released, 3);
});

t.test(
  'readers share one slab: each goes on where it was, whatever the others were fed in between',
  async (t) => {
    const readers = [plain, { ...plain, headerDigest: true, dataDigest: true }, plain].map(
      (settings, index) => {
        const sink = new Collector(index === 2);
        const pdus = Array.from({ length: 40 }, (_, n) => randomBytes(n % 5 === 0 ? 20_000 : n * 300));
        const bytes = Buffer.concat(pdus.map((data, tag) => pduOf(tag, data, settings)));
        const expected = pdus.map((data, tag) => `${tag}:${data.length}:${crc32c(data)}`);
        return { sink, reader: new PduReader(sink, settings), bytes, expected, at: 0 };
      },
    );
    t.equal(readers[0]!.reader.room().buffer, readers[1]!.reader.room().buffer);
    for (let turn = 0; readers.some(({ at, bytes }) => at < bytes.length); turn += 1) {
      for (const [index, each] of readers.entries()) {
        const room = each.reader.room();
        const stepBytes = ((turn * 7919 + index * 104_729) % 9000) + 1;
        const copied = each.bytes.copy(room, 0, each.at, each.at + stepBytes);
        each.at += copied;
        each.reader.filled(copied);
      }
    }
    for (const { sink, expected, reader } of readers) {
      t.same(sink.found, expected);
      t.notOk(reader.isWithinPdu);
    }
  },
);
