import t from 'tap';
import { blockSizeBytes, sectorSizeBytes, sliceSizeBytes } from '../../daemon/base/limits.ts';
import type { Done, Replica, VolumeIdentity, WriteOrder } from '../../daemon/replica/replica.ts';
import { Volume } from '../../daemon/volume/volume.ts';

/** Keeps bytes in memory and answers in an order the test chooses. */
class HeldReplica implements Replica {
  readonly bytes = Buffer.alloc(64 * blockSizeBytes);
  readonly orders: WriteOrder[] = [];
  readonly durable: boolean[] = [];
  readonly held: (() => void)[] = [];

  write(_v: VolumeIdentity, offset: number, data: Buffer, order: WriteOrder, durable: boolean, done: Done) {
    this.orders.push(order);
    this.durable.push(durable);
    this.held.push(() => {
      data.copy(this.bytes, offset);
      done(null);
    });
  }
  zero(_v: VolumeIdentity, offset: number, length: number, order: WriteOrder, durable: boolean, done: Done) {
    this.orders.push(order);
    this.durable.push(durable);
    this.held.push(() => {
      this.bytes.fill(0, offset, offset + length);
      done(null);
    });
  }
  read(_v: VolumeIdentity, offset: number, target: Buffer, done: Done) {
    this.held.push(() => {
      this.bytes.copy(target, 0, offset, offset + target.length);
      done(null);
    });
  }
  prepareCopy(_source: VolumeIdentity, _offset: number, _length: number, done: Done) {
    this.held.push(() => done(null));
  }
  copy(
    _v: VolumeIdentity,
    offset: number,
    length: number,
    _source: VolumeIdentity,
    sourceOffset: number,
    order: WriteOrder,
    durable: boolean,
    done: Done,
  ) {
    this.orders.push(order);
    this.durable.push(durable);
    this.held.push(() => {
      this.bytes.copy(this.bytes, offset, sourceOffset, sourceOffset + length);
      done(null);
    });
  }
  flush(done: Done) {
    this.held.push(() => done(null));
  }
  allocation(
    _v: VolumeIdentity,
    _offset: number,
    limit: number,
    done: (error: Error | null, mapped: boolean, length: number) => void,
  ) {
    this.held.push(() => done(null, true, limit));
  }
  /** Answers everything, and what follows from it. */
  answerAll() {
    for (let next = this.held.shift(); next !== undefined; next = this.held.shift()) next();
  }
}

function open(durability: 'flush' | 'sync' = 'flush') {
  const replica = new HeldReplica();
  const identity = { volumeKey: 1, chunkSizeBytes: 16384 };
  const volume = new Volume({ identity, sizeBytes: replica.bytes.length, durability, epoch: 7, replica });
  return { replica, volume };
}

const answered = (error: Error | null): void => {
  if (error !== null) throw error;
};

t.test('a write of part of a block keeps the rest of the block', async (t) => {
  const { replica, volume } = open();
  replica.bytes.fill('old');
  const expected = Buffer.from(replica.bytes);
  for (const [offset, length] of [
    [512, 512],
    [blockSizeBytes - 512, 1024],
    [3 * blockSizeBytes + 1024, 2 * blockSizeBytes],
    [8 * blockSizeBytes, blockSizeBytes + 512],
    [12 * blockSizeBytes - 512, 2 * blockSizeBytes + 512],
  ] as const) {
    const data = Buffer.alloc(length, `new${offset}`);
    data.copy(expected, offset);
    volume.write(offset, data, false, answered);
    replica.answerAll();
  }
  t.ok(replica.bytes.equals(expected));
});

t.test('overlapping changes in flight together happen in the order they were asked for', async (t) => {
  const { replica, volume } = open();
  const expected = Buffer.alloc(replica.bytes.length);
  let answers = 0;
  const change = (offset: number, length: number, letter: string): void => {
    const data = Buffer.alloc(length, letter);
    data.copy(expected, offset);
    volume.write(offset, data, false, (error) => {
      answered(error);
      answers++;
    });
  };
  change(0, 2 * blockSizeBytes, 'a');
  change(512, 512, 'b');
  change(1024, 512, 'c');
  change(0, blockSizeBytes, 'd');
  change(512, 1024, 'e');
  change(blockSizeBytes, blockSizeBytes, 'f');
  volume.unmap(blockSizeBytes + 512, 512, false, (error) => {
    answered(error);
    answers++;
  });
  expected.fill(0, blockSizeBytes + 512, blockSizeBytes + 1024);
  replica.answerAll();
  t.equal(answers, 7);
  t.ok(replica.bytes.equals(expected));
});

t.test('unmap zeros exactly its range, whole blocks as holes and their ends as data', async (t) => {
  const { replica, volume } = open();
  replica.bytes.fill('x');
  const expected = Buffer.from(replica.bytes);
  for (const [offset, length] of [
    [512, 512],
    [2 * blockSizeBytes, 2 * blockSizeBytes],
    [5 * blockSizeBytes + 512, 3 * blockSizeBytes],
    [20 * blockSizeBytes + 512, blockSizeBytes],
  ] as const) {
    volume.unmap(offset, length, false, answered);
    expected.fill(0, offset, offset + length);
    replica.answerAll();
  }
  t.ok(replica.bytes.equals(expected));
});

t.test('reads of any sectors give the bytes of those sectors', async (t) => {
  const { replica, volume } = open();
  for (let at = 0; at < replica.bytes.length; at += sectorSizeBytes) replica.bytes.writeUInt32LE(at, at);
  for (const [offset, length] of [
    [0, 512],
    [512, 1024],
    [blockSizeBytes - 512, 1024],
    [blockSizeBytes, 3 * blockSizeBytes],
  ] as const) {
    const target = Buffer.alloc(length);
    volume.read(offset, target, answered);
    replica.answerAll();
    t.ok(target.equals(replica.bytes.subarray(offset, offset + length)), `${length} bytes at ${offset}`);
  }
});

t.test(
  'every change has the epoch and the next sequence, and the durability the volume promises',
  async (t) => {
    const lazy = open('flush');
    lazy.volume.write(0, Buffer.alloc(4096), false, answered);
    lazy.volume.write(0, Buffer.alloc(4096), true, answered);
    lazy.volume.unmap(0, 4096, false, answered);
    t.same(lazy.replica.orders, [
      { epoch: 7, sequence: 1 },
      { epoch: 7, sequence: 2 },
      { epoch: 7, sequence: 3 },
    ]);
    t.same(lazy.replica.durable, [false, true, false]);
    const strict = open('sync');
    strict.volume.write(0, Buffer.alloc(4096), false, answered);
    t.same(strict.replica.durable, [true]);
  },
);

t.test('a closing volume finishes what is in flight and refuses what is new', async (t) => {
  const { replica, volume } = open();
  let wrote = false;
  volume.write(0, Buffer.alloc(4096, 'a'), false, (error) => {
    answered(error);
    wrote = true;
  });
  volume.write(512, Buffer.alloc(512, 'b'), false, answered);
  const closed = volume.close().then(() => wrote);
  const refusal = await new Promise<Error | null>((resolve) =>
    volume.write(0, Buffer.alloc(4096), false, resolve),
  );
  t.match(refusal, { code: 'SHUTTING_DOWN' });
  replica.answerAll();
  t.equal(await closed, true, 'closed after the write was answered');
  t.equal(replica.bytes.toString('latin1', 510, 514), 'aabb', 'the partial write behind it was done too');
});

t.test('what crosses a slice is split there, and each slice is numbered by itself', async (t) => {
  const changes: { kind: string; offset: number; length: number; sequence: number }[] = [];
  const replica = {
    write: (
      _v: VolumeIdentity,
      offset: number,
      data: Buffer,
      { sequence }: WriteOrder,
      _d: boolean,
      done: Done,
    ) => {
      changes.push({ kind: 'write', offset, length: data.length, sequence });
      queueMicrotask(() => done(null));
    },
    zero: (
      _v: VolumeIdentity,
      offset: number,
      length: number,
      { sequence }: WriteOrder,
      _d: boolean,
      done: Done,
    ) => {
      changes.push({ kind: 'zero', offset, length, sequence });
      queueMicrotask(() => done(null));
    },
  } as unknown as Replica;
  const identity = { volumeKey: 1, chunkSizeBytes: 16384 };
  const volume = new Volume({
    identity,
    sizeBytes: 4 * sliceSizeBytes,
    durability: 'flush',
    epoch: 1,
    replica,
  });
  const done = (run: (done: Done) => void) =>
    new Promise<void>((resolve, reject) => run((error) => (error === null ? resolve() : reject(error))));
  await done((end) => volume.write(0, Buffer.alloc(4096), false, end));
  await done((end) => volume.write(sliceSizeBytes - 4096, Buffer.alloc(12288), false, end));
  await done((end) => volume.unmap(sliceSizeBytes - 8192, sliceSizeBytes + 16384, false, end));
  t.same(changes, [
    { kind: 'write', offset: 0, length: 4096, sequence: 1 },
    { kind: 'write', offset: sliceSizeBytes - 4096, length: 4096, sequence: 2 },
    { kind: 'write', offset: sliceSizeBytes, length: 8192, sequence: 1 },
    { kind: 'zero', offset: sliceSizeBytes - 8192, length: 8192, sequence: 3 },
    { kind: 'zero', offset: sliceSizeBytes, length: sliceSizeBytes, sequence: 2 },
    { kind: 'zero', offset: 2 * sliceSizeBytes, length: 8192, sequence: 1 },
  ]);
});
