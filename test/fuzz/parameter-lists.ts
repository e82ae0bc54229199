/** The parameter lists commands take as data-out: shaped as their standards say, with a wrong length or field here and there. */
import type { SeededRandom } from '../simulation/seeded-random.ts';
import type { Content } from './conversation.ts';

/** Where a list says how long it is, or how long a part is: sometimes that is not so. */
function claimed(random: SeededRandom, right: number, most: number): number {
  if (random.chance(0.85)) return right;
  return Math.min(most, random.pick([0, 1, right + 1, Math.max(0, right - 1), right + 16, most, most - 1]));
}

export function anyLba(random: SeededRandom, blockCount: number, length = 1): bigint {
  const last = BigInt(blockCount) - 1n;
  const inside = () => BigInt(random.below(blockCount));
  const edges = [0n, 1n, 7n, 8n, last, last + 1n, last + 1n - BigInt(length), last - 7n];
  const far = [2n ** 21n - 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n];
  const lba = random.chance(0.6) ? inside() : random.chance(0.75) ? random.pick(edges) : random.pick(far);
  return lba < 0n ? 0n : random.chance(0.5) ? lba & ~7n : lba;
}

/** UNMAP parameter list, SBC-4 5.32.2: length (2), descriptors' length (2), reserved (4), 16 bytes a descriptor. */
function unmapList(random: SeededRandom, blockCount: number): Buffer {
  const count = random.chance(0.95) ? random.below(9) : random.pick([255, 256, 257, 1000]);
  const list = Buffer.alloc(8 + count * 16);
  list.writeUInt16BE(claimed(random, list.length - 2, 0xffff), 0);
  list.writeUInt16BE(claimed(random, count * 16, 0xffff), 2);
  for (let index = 0; index < count; index++) {
    const length = random.pick([
      0,
      1,
      8,
      64,
      1024,
      random.below(blockCount),
      random.chance(0.1) ? 2 ** 32 - 1 : 8,
    ]);
    list.writeBigUInt64BE(anyLba(random, blockCount, length), 8 + index * 16);
    list.writeUInt32BE(length, 16 + index * 16);
  }
  return list;
}

/** Keys that several initiators use, so that they meet. */
function reservationKey(random: SeededRandom): bigint {
  return random.pick([0n, 1n, 2n, 0xabcdn, 2n ** 64n - 1n]);
}

/** An iSCSI TransportID, SPC-4 7.6.4.6. */
function transportId(random: SeededRandom): Buffer {
  const name = `iqn.2026-11.test:fuzz-shared-${random.below(3)}`;
  const text = random.chance(0.5) ? name : `${name},i,0x80000000000${random.below(4)}`;
  const id = Buffer.alloc(4 + Math.ceil((text.length + 1) / 4) * 4);
  id[0] = (text.includes(',i,') ? 0x40 : 0) | random.pick([5, 5, 5, 5, 0, 6, 15]);
  id.writeUInt16BE(claimed(random, id.length - 4, 0xffff), 2);
  id.write(text, 4);
  return id;
}

/** PERSISTENT RESERVE OUT, SPC-4 6.16.3: two keys, flags at 20 (SPEC_I_PT 08, ALL_TG_PT 04, APTPL 01), TransportIDs. */
function reserveOutList(random: SeededRandom): Buffer {
  const list = Buffer.alloc(24);
  list.writeBigUInt64BE(reservationKey(random), 0);
  list.writeBigUInt64BE(reservationKey(random), 8);
  list[20] = random.chance(0.8) ? random.pick([0, 0, 0, 1]) : random.below(256);
  if (random.chance(0.85)) return list;
  const ids = Array.from({ length: random.below(4) }, () => transportId(random));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(claimed(random, Buffer.concat(ids).length, 2 ** 32 - 1));
  return Buffer.concat([list, length, ...ids]);
}

/** REGISTER AND MOVE, SPC-4 6.16.4: keys, flags at 17 (UNREG 02, APTPL 01), port (18), TransportID's length (20). */
function registerAndMoveList(random: SeededRandom): Buffer {
  const id = transportId(random);
  const list = Buffer.alloc(24);
  list.writeBigUInt64BE(reservationKey(random), 0);
  list.writeBigUInt64BE(reservationKey(random), 8);
  list[17] = random.below(4);
  list.writeUInt16BE(random.pick([0, 1, 2, 0xffff]), 18);
  list.writeUInt32BE(claimed(random, id.length, 2 ** 32 - 1), 20);
  return Buffer.concat([list, id]);
}

/** From byte 2 on, by page code. */
const usualBits: Readonly<Record<number, readonly string[]>> = {
  8: ['04', '04', '00'],
  10: ['001000000000ffff', '041000000000ffff', '021008000000ffff', '001008000000ffff'],
  28: ['08'],
};

/** MODE SELECT, SPC-4 7.5: a header of 4 or 8 bytes, block descriptors, pages with their lengths. */
function modeList(random: SeededRandom, headerBytes: 4 | 8): Buffer {
  const header = Buffer.alloc(headerBytes);
  const descriptor = random.chance(0.7) ? Buffer.alloc(0) : Buffer.alloc(random.pick([8, 8, 16, 5]));
  if (headerBytes === 4) header[3] = claimed(random, descriptor.length, 0xff);
  else header.writeUInt16BE(claimed(random, descriptor.length, 0xffff), 6);
  if (random.chance(0.1)) header[random.below(headerBytes)] = random.below(256);
  const pages: Buffer[] = [];
  for (let count = random.below(4); count > 0; count--) {
    const [code, length] = random.pick([
      [0x08, 18],
      [0x0a, 10],
      [0x1c, 10],
      [0x01, 10],
      [0x3f, 2],
      [random.below(64), random.below(30)],
    ] as const);
    const page = Buffer.alloc(2 + length);
    page[0] = code | (random.chance(0.1) ? random.pick([0x40, 0x80]) : 0);
    page[1] = claimed(random, length, 0xff);
    // What the unit reports for WCE, the queue algorithm and so on, so that other bits get a chance to matter.
    const usual = usualBits[code];
    if (usual !== undefined) Buffer.from(random.pick(usual), 'hex').copy(page, 2);
    if (length > 0 && random.chance(0.3)) page[2 + random.below(length)] = random.below(256);
    pages.push(page);
  }
  return Buffer.concat([header, descriptor, ...pages]);
}

/** An identification CSCD descriptor, SPC-4 6.4.5.2: type E4, device type 0, a designator of 16 bytes (NAA 6). */
function copyPoint(random: SeededRandom): Buffer {
  const point = Buffer.alloc(32);
  point[0] = random.chance(0.95) ? 0xe4 : random.below(256);
  point[4] = 0x01;
  point[5] = random.chance(0.9) ? 0x03 : random.below(256);
  point[7] = claimed(random, 16, 0xff);
  point.writeUIntBE(512, 29, 3);
  return point;
}

/** A block device to block device segment, SPC-4 6.4.6.4: type 02, length 18h, source, destination, blocks, LBAs. */
function copySegment(random: SeededRandom, blockCount: number, points: number): Buffer {
  const segment = Buffer.alloc(28);
  segment[0] = random.chance(0.92) ? 0x02 : random.below(256);
  segment[1] = random.pick([0, 0, 2, 1]);
  segment.writeUInt16BE(claimed(random, 0x18, 0xffff), 2);
  const point = () => (random.chance(0.9) ? random.below(Math.max(1, points)) : random.below(65_536));
  segment.writeUInt16BE(point(), 4);
  segment.writeUInt16BE(point(), 6);
  const length = random.chance(0.9) ? random.below(600) : random.pick([0, 0xffff]);
  segment.writeUInt16BE(length, 10);
  segment.writeBigUInt64BE(anyLba(random, blockCount, length), 12);
  segment.writeBigUInt64BE(anyLba(random, blockCount, length), 20);
  return segment;
}

/** EXTENDED COPY (LID1 and LID4), SPC-4 6.4.3 and 6.5: header, CSCD descriptors, segment descriptors, inline data. */
function copyList(random: SeededRandom, blockCount: number, header: 'LID1' | 'LID4'): Content {
  const points = Array.from({ length: random.chance(0.95) ? random.between(1, 3) : 70 }, () =>
    copyPoint(random),
  );
  const count = random.chance(0.95) ? random.below(4) : 300;
  const segments = Array.from({ length: count }, () => copySegment(random, blockCount, points.length));
  const inline = random.chance(0.9) ? Buffer.alloc(0) : random.bytes(random.below(64));
  const pointBytes = claimed(random, points.length * 32, 0xffff);
  const segmentBytes = claimed(random, count * 28, 0xffff);
  const list = Buffer.alloc(header === 'LID1' ? 16 : 48);
  if (header === 'LID1') {
    list[0] = random.below(256);
    list[1] = random.pick([0x00, 0x10, 0x18, 0x20, 0xff]);
    list.writeUInt16BE(pointBytes, 2);
    list.writeUInt32BE(segmentBytes, 8);
    list.writeUInt32BE(claimed(random, inline.length, 2 ** 32 - 1), 12);
  } else {
    list[0] = 0x01;
    list[1] = random.pick([0x00, 0x18, 0x30]);
    list.writeUInt16BE(claimed(random, 0x20, 0xffff), 2);
    list[16] = random.below(256);
    list.writeUInt32BE(random.below(8), 20);
    list.writeUInt16BE(pointBytes, 42);
    list.writeUInt16BE(segmentBytes, 44);
    list.writeUInt16BE(claimed(random, inline.length, 0xffff), 46);
  }
  const designators = points.map((_, index) => ({
    at: list.length + index * 32 + 8,
    volume: random.below(8),
  }));
  return { hex: Buffer.concat([list, ...points, ...segments, inline]).toString('hex'), designators };
}

/** SET TARGET PORT GROUPS, SPC-4 6.36: reserved (4), then state and group, 4 bytes each. */
function portGroupList(random: SeededRandom): Buffer {
  const list = Buffer.alloc(4 + 4 * random.below(4));
  for (let at = 4; at < list.length; at += 4) {
    list[at] = random.below(16);
    list.writeUInt16BE(random.pick([0, 1, 2, 0xffff]), at + 2);
  }
  return list;
}

/** The list a command with that operation code and service action takes. */
export function parameterList(
  random: SeededRandom,
  opcode: number,
  serviceAction: number,
  blockCount: number,
): Content {
  if (opcode === 0x83) return copyList(random, blockCount, serviceAction === 0 ? 'LID1' : 'LID4');
  const list = () => {
    if (opcode === 0x42) return unmapList(random, blockCount);
    if (opcode === 0x15) return modeList(random, 4);
    if (opcode === 0x55) return modeList(random, 8);
    if (opcode === 0x5f) return serviceAction === 7 ? registerAndMoveList(random) : reserveOutList(random);
    if (opcode === 0xa4) return portGroupList(random);
    return random.bytes(random.below(64));
  };
  const bytes = list();
  if (random.chance(0.05) && bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
  const cut = random.chance(0.04) ? random.below(bytes.length + 1) : bytes.length;
  return { hex: bytes.toString('hex', 0, cut) };
}
