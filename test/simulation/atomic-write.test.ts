/**
 * WRITE ATOMIC against crashes and reads: every slot of the volume is written by atomic writes alone, each filled with
 * a number of its own, so a slot of two numbers is a torn write.
 */
import t from 'tap';
import { extentSizeBytes, KiB, MiB, sectorSizeBytes } from '../../daemon/base/limits.ts';
import { ScsiStatus } from '../../daemon/scsi/command.ts';
import { DeviceServer } from '../../daemon/scsi/device-server.ts';
import { maxAtomicWriteBlocks } from '../../daemon/scsi/limits.ts';
import { LogicalUnit } from '../../daemon/scsi/logical-unit.ts';
import type { Loss } from './sector-ledger.ts';
import { SimulatedNode } from './simulated-node.ts';

const seeds = 6;
/** Seconds of work; the rest is patience with a busy machine. */
const limitMs = 120_000;
const crashesPerSeed = 4;
const volumeBytes = 8 * MiB;

interface Slot {
  offsetBytes: number;
  lengthBytes: number;
  issued: number;
  acknowledged: number;
  /** Acknowledged with FUA, or before a flush. */
  durable: number;
}

/** Of many lengths, beginning at blocks that begin no chunk; the last in two extents. */
function slots(): Slot[] {
  const lengths = [
    4 * KiB,
    12 * KiB,
    64 * KiB,
    68 * KiB,
    256 * KiB,
    MiB,
    maxAtomicWriteBlocks * sectorSizeBytes,
  ];
  const slot = (offsetBytes: number, lengthBytes: number): Slot => {
    return { offsetBytes, lengthBytes, issued: 0, acknowledged: 0, durable: 0 };
  };
  let end = 4 * KiB;
  const inOneExtent = lengths.map((lengthBytes) => {
    const offsetBytes = end;
    end += lengthBytes + 4 * KiB;
    return slot(offsetBytes, lengthBytes);
  });
  return [...inOneExtent, slot(extentSizeBytes - 300 * KiB, 600 * KiB)];
}

class AtomicWriter {
  readonly node: SimulatedNode;
  readonly slots = slots();
  readonly faults: string[] = [];
  reads = 0;
  #server!: DeviceServer;
  #life = 0;
  #number = 0;

  constructor(seed: number) {
    this.node = new SimulatedNode({ seed, durability: 'flush', volumeBytes, journalFileBytes: 4 * MiB });
  }

  async start(): Promise<void> {
    await this.node.start();
    this.#life += 1;
    const identity = { uuid: '0199f3d2-7b1c-4c7a-9a3e-0123456789ab' };
    this.#server = new DeviceServer({
      units: new Map([[0, new LogicalUnit({ device: this.node.volume, identity })]]),
    });
  }

  write(slot: Slot, fua: boolean): void {
    this.#number += 1;
    const number = this.#number;
    slot.issued = number;
    const cdb = Buffer.alloc(16);
    cdb[0] = 0x9c;
    cdb[1] = fua ? 0x08 : 0;
    cdb.writeBigUInt64BE(BigInt(slot.offsetBytes / sectorSizeBytes), 2);
    cdb.writeUInt16BE(slot.lengthBytes / sectorSizeBytes, 12);
    const stamp = Buffer.alloc(4);
    stamp.writeUInt32BE(number);
    this.#execute(cdb, Buffer.alloc(slot.lengthBytes, stamp), () => {
      slot.acknowledged = Math.max(slot.acknowledged, number);
      if (fua) slot.durable = Math.max(slot.durable, number);
    });
  }

  flush(): void {
    const before = this.slots.map(({ acknowledged }) => acknowledged);
    this.#execute(Buffer.from('91000000000000000000000000000000', 'hex'), Buffer.alloc(0), () => {
      for (const [index, slot] of this.slots.entries()) slot.durable = Math.max(slot.durable, before[index]!);
    });
  }

  /** A copy begins to read chunks that end amid a slot. */
  copyPart({ offsetBytes, lengthBytes }: Slot): void {
    const { volume } = this.node;
    const { allocationUnitBytes: unitBytes } = volume;
    const units = Math.ceil(lengthBytes / unitBytes);
    const from = offsetBytes - (offsetBytes % unitBytes);
    volume.prepareShare(from, this.node.random.between(1, units) * unitBytes, () => {});
  }

  /** What the slot holds must be one number, from `atLeast` on. */
  read(slot: Slot, atLeast: number, done: () => void = () => {}): void {
    const cdb = Buffer.alloc(16);
    cdb[0] = 0x88;
    cdb.writeBigUInt64BE(BigInt(slot.offsetBytes / sectorSizeBytes), 2);
    cdb.writeUInt32BE(slot.lengthBytes / sectorSizeBytes, 10);
    this.#execute(cdb, Buffer.alloc(0), (data) => {
      const first = data.readUInt32BE(0);
      const where = `slot at ${slot.offsetBytes}+${slot.lengthBytes}`;
      if (!data.equals(Buffer.alloc(data.length, data.subarray(0, 4)))) this.faults.push(`${where} is torn`);
      if (first < atLeast || first > slot.issued)
        this.faults.push(`${where} holds ${first}, not ${atLeast} to ${slot.issued}`);
      this.reads += 1;
      done();
    });
  }

  /** Replies to commands of an earlier life are nobody's. */
  #execute(cdb: Buffer, dataOut: Buffer, good: (data: Buffer) => void): void {
    const life = this.#life;
    const command = { lun: Buffer.alloc(8), cdb, dataOut, expectedInBytes: 2 * MiB, nexus: 'a', port: 1 };
    this.#server.execute(command, (reply) => {
      if (life !== this.#life) return;
      if (reply.status === ScsiStatus.good) good(Buffer.concat(reply.dataIn));
      else this.faults.push(`status ${reply.status}, sense ${reply.sense?.toString('hex')}`);
      reply.release?.();
    });
  }

  /** Writes, reads, flushes and drains, many at once, until some events later. */
  async work(): Promise<void> {
    const { node, slots } = this;
    const { clock, random } = node;
    const crashAtEvent = clock.eventCount + random.between(20, 600);
    while (clock.eventCount < crashAtEvent) {
      const slot = random.pick(slots);
      const choice = random.next();
      if (choice < 0.5) this.write(slot, random.chance(0.2));
      else if (choice < 0.9) this.read(slot, slot.acknowledged);
      else if (choice < 0.94) this.copyPart(slot);
      else if (choice < 0.97) this.flush();
      else void node.replica.drain().catch(() => {});
      const pause = Math.min(crashAtEvent, clock.eventCount + random.below(12));
      await clock.run(() => clock.eventCount >= pause);
    }
  }

  async verify(loss: Loss): Promise<void> {
    for (const slot of this.slots) {
      let done = false;
      this.read(slot, loss === 'power' ? slot.durable : slot.acknowledged, () => {
        done = true;
      });
      const known = this.faults.length;
      await this.node.clock.run(() => done || this.faults.length > known);
      // From here on what is there is what counts.
      slot.acknowledged = Math.min(slot.acknowledged, slot.durable);
    }
  }
}

t.setTimeout(limitMs);

t.test(
  'a crash at any moment leaves an atomic write whole or undone, and no read sees a part',
  { timeout: limitMs },
  async (t) => {
    let reads = 0;
    for (let seed = 1; seed <= seeds; seed += 1) {
      const writer = new AtomicWriter(seed);
      await writer.start();
      for (let crash = 0; crash < crashesPerSeed; crash += 1) {
        await writer.work();
        const loss: Loss = writer.node.random.chance(0.3) ? 'process' : 'power';
        writer.node.crash(loss);
        await writer.start();
        await writer.verify(loss);
      }
      reads += writer.reads;
      if (writer.faults.length > 0) t.fail(`seed ${seed}: ${writer.faults.slice(0, 3).join('; ')}`);
    }
    t.ok(reads > seeds * crashesPerSeed * slots().length, `${reads} reads`);
  },
);

t.test('what is stored of an atomic write before power fails does not outlive the rest of it', async (t) => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const writer = new AtomicWriter(seed);
    const { node } = writer;
    await writer.start();
    const slot = writer.slots.at(-1)!;
    writer.write(slot, true);
    await node.clock.run(() => slot.durable > 0);
    await node.clock.settle(node.replica.drain());
    writer.write(slot, false);
    await node.clock.run(() => slot.acknowledged > slot.durable);
    const { volume } = node;
    const from = slot.offsetBytes - (slot.offsetBytes % volume.allocationUnitBytes);
    // A copy begins to read, and stores its source: the chunks of one extent.
    const stored = new Promise((resolve) => volume.prepareShare(from, extentSizeBytes - from, resolve));
    t.equal(await node.clock.settle(stored), null);
    node.crash('power');
    await writer.start();
    await writer.verify('power');
    t.same(writer.faults, [], `seed ${seed}`);
  }
});
