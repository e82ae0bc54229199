/** Requests other than commands: pings, text, task management, logout, stray data, and opcodes nobody has (RFC 7143 §11). */
import type { SeededRandom } from '../simulation/seeded-random.ts';
import { type Content, nothing, type RequestStep, type Tag } from './conversation.ts';

const allOnes = 'f'.repeat(8);

function requestOf(opcode: number, fields: Partial<RequestStep>): RequestStep {
  return {
    kind: 'request',
    opcode,
    immediate: false,
    flags: 0x80,
    byte2: 0,
    byte3: 0,
    itt: 'new',
    cmdSnPlus: 0,
    takesTurn: fields.immediate !== true,
    expStatSnPlus: 0,
    lun: '0'.repeat(16),
    ahs: '',
    tag: 'none',
    rest: '0'.repeat(32),
    data: nothing,
    damage: [],
    ...fields,
  };
}

const text = (...items: string[]): Content => ({
  hex: Buffer.from(items.map((item) => `${item}\0`).join('')).toString('hex'),
});

function ping(random: SeededRandom, orderly: boolean): RequestStep {
  const lengthBytes = random.pick([0, 0, 4, 48, 1000, 8192, orderly ? 100 : 262_145]);
  return requestOf(0x00, {
    immediate: random.chance(0.4),
    data: lengthBytes === 0 ? nothing : { lengthBytes, fill: random.below(100) },
    ...(orderly
      ? {}
      : { itt: random.pick<Tag>(['new', 'none', 'oldest']), tag: random.pick<Tag>(['none', 0, 1, 7]) }),
  });
}

function textRequest(random: SeededRandom, orderly: boolean): RequestStep {
  const asked = ['SendTargets=', 'SendTargets=All', 'SendTargets=iqn.2026-11.test:none', 'X-none=1'];
  const declared = ['MaxRecvDataSegmentLength=512', 'MaxRecvDataSegmentLength=65536'];
  if (orderly)
    return requestOf(0x04, {
      immediate: random.chance(0.2),
      data: text(random.pick([...asked, ...declared])),
    });
  const illegal = [
    'MaxRecvDataSegmentLength=0',
    'HeaderDigest=CRC32C',
    '=',
    'novalue',
    `SendTargets=${'x'.repeat(5000)}`,
  ];
  const data = random.chance(0.8)
    ? text(...Array.from({ length: random.below(4) }, () => random.pick([...asked, ...declared, ...illegal])))
    : ({
        lengthBytes: random.pick([65_535, 65_536, 70_000, 262_144]),
        fill: random.below(10),
      } satisfies Content);
  return requestOf(0x04, {
    flags: random.pick([0x80, 0x80, 0x40, 0xc0, 0x00]),
    tag: random.pick<Tag>(['none', 'none', 1, 0, random.word()]),
    data,
  });
}

function management(random: SeededRandom, orderly: boolean): RequestStep {
  const fn = random.chance(0.8)
    ? random.pick([1, 1, 2, 4, 5])
    : random.pick(orderly ? [3, 8, 6] : [3, 6, 7, 8, 0, 99, 127]);
  return requestOf(0x02, {
    immediate: random.chance(0.6),
    flags: 0x80 | fn,
    tag: random.pick<Tag>(['oldest', 'newest', 'none', orderly ? 'oldest' : random.word()]),
    lun: (random.chance(0.9) ? '0000' : '0001').padEnd(16, '0'),
    rest: (random.chance(0.7) ? '00000000' : allOnes).padEnd(32, '0'),
  });
}

/** Data that no R2T asked for, or not so. DataSN and Buffer Offset are bytes 36-43. */
function strayData(random: SeededRandom): RequestStep {
  const rest = Buffer.alloc(16);
  rest.writeUInt32BE(random.pick([0, 1, 0xffffffff, random.word()]), 4);
  rest.writeUInt32BE(random.pick([0, 512, 65_536, 0xffffffff, random.word()]), 8);
  return requestOf(0x05, {
    flags: random.pick([0x80, 0x00]),
    itt: random.pick<Tag>(['oldest', 'newest', 'none', random.word()]),
    tag: random.pick<Tag>(['none', 0, 1, random.word()]),
    takesTurn: false,
    rest: rest.toString('hex'),
    data: { lengthBytes: random.pick([0, 1, 512, 20_000, 65_536, 262_144]), fill: random.below(100) },
  });
}

function logout(random: SeededRandom): RequestStep {
  const reason = random.pick([0, 1, 2, 3, 127]);
  return requestOf(0x06, {
    flags: 0x80 | reason,
    immediate: random.chance(0.5),
    tag: random.pick([0, 0x10000]),
  });
}

/** Any opcode: reserved, vendor's, a target's own, and logins where there is nothing to log in to. */
function foreign(random: SeededRandom): RequestStep {
  const opcode = random.pick([
    0x03,
    0x10,
    0x10,
    0x07,
    0x1c,
    0x1f,
    0x20,
    0x21,
    0x25,
    0x31,
    0x3f,
    random.below(64),
  ]);
  return requestOf(opcode, {
    immediate: random.chance(0.3),
    flags: random.below(256),
    byte2: random.below(256),
    byte3: random.below(256),
    tag: random.word(),
    rest: random.bytes(16).toString('hex'),
    itt: random.pick<Tag>(['new', 'oldest', 'none']),
    data: random.chance(0.7) ? nothing : { lengthBytes: random.below(5000), fill: 1 },
    takesTurn: random.chance(0.5),
  });
}

export function anyRequest(random: SeededRandom, orderly: boolean): RequestStep {
  const kind = random.next();
  if (kind < 0.3) return ping(random, orderly);
  if (kind < 0.5) return textRequest(random, orderly);
  if (kind < 0.75 || orderly) return management(random, orderly);
  if (kind < 0.89) return strayData(random);
  if (kind < 0.96) return foreign(random);
  return logout(random);
}
