/**
 * SCSI commands from the device server's own table: what a command's CDB may have in each bit is its `usage`, where its
 * address and its length lie follows from its size (SPC-4 4.2.5). A command added to the table is fuzzed at once.
 */
import { commands } from '../../daemon/scsi/command-table.ts';
import type { SeededRandom } from '../simulation/seeded-random.ts';
import { type CommandStep, type Content, lengthOf, nothing, type Solicited } from './conversation.ts';
import { anyLba, parameterList } from './parameter-lists.ts';

const sectorBytes = 512;

interface Field {
  at: number;
  bytes: number;
}

/** SPC-4 tables 20 to 24. */
const addressFields: Readonly<Record<number, Field>> = {
  6: { at: 1, bytes: 3 },
  10: { at: 2, bytes: 4 },
  12: { at: 2, bytes: 4 },
  16: { at: 2, bytes: 8 },
};
const lengthFields: Readonly<Record<number, Field>> = {
  6: { at: 4, bytes: 1 },
  10: { at: 7, bytes: 2 },
  12: { at: 6, bytes: 4 },
  16: { at: 10, bytes: 4 },
};
/** Lengths that lie elsewhere: COMPARE AND WRITE, PERSISTENT RESERVE OUT, WRITE ATOMIC(16). */
const oddLengthFields: Readonly<Record<number, Field>> = {
  137: { at: 13, bytes: 1 },
  95: { at: 5, bytes: 4 },
  156: { at: 12, bytes: 2 },
};

/** Commands whose data-out is as many blocks as they say. */
const blockWrites = new Set([0x0a, 0x2a, 0x2e, 0x8a, 0x8b, 0x8e, 0x9c, 0xaa, 0xae]);
const verifies = new Set([0x2f, 0x8f, 0xaf]);
const writeSames = new Set([0x41, 0x93]);
const blockReads = new Set([0x08, 0x28, 0x88, 0xa8]);
const listCommands = new Set([0x15, 0x1d, 0x42, 0x55, 0x5f, 0x83, 0xa4]);
const addressed = new Set([0x34, 0x35, 0x89, 0x90, 0x91]);

function writeField(cdb: Buffer, field: Field, value: bigint): void {
  for (let index = field.bytes - 1, left = value; index >= 0; index--, left >>= 8n) {
    cdb[field.at + index] = Number(left & 0xffn);
  }
}

/** How many blocks: few mostly, so that many commands fit into a second; sometimes as many as fit into the field. */
function blockLength(random: SeededRandom): number {
  if (random.chance(0.85)) return random.pick([0, 1, 1, 2, 7, 8, 8, 16, 64]);
  return random.pick([128, 255, 256, 512, 2048, 16_384, 16_385, 32_768, 65_535, 2 ** 31, 2 ** 32 - 1]);
}

function allocationLength(random: SeededRandom): number {
  return random.pick([0, 1, 3, 4, 8, 12, 24, 36, 96, 252, 255, 256, 512, 4096, 65_535, 2 ** 24, 2 ** 32 - 1]);
}

/** Bytes of data-out the CDB asks for, or null when it says nothing of it. */
function wantedOut(cdb: Buffer, blocks: number): number | null {
  const opcode = cdb[0]!;
  if (blockWrites.has(opcode)) return blocks * sectorBytes;
  if (opcode === 0x89) return 2 * cdb[13]! * sectorBytes;
  if (verifies.has(opcode)) {
    const byteCheck = (cdb[1]! >> 1) & 3;
    return byteCheck === 0 ? 0 : byteCheck === 3 ? sectorBytes : blocks * sectorBytes;
  }
  if (writeSames.has(opcode)) return opcode === 0x93 && (cdb[1]! & 1) === 1 ? 0 : sectorBytes;
  return null;
}

/** The largest amount of data that is really sent for one command. */
const mostDataBytes = 2 * 2 ** 20;

const luns = ['0001', '4000', '4001', 'c101', '7fff', 'ffff', '8000'];
const ways: readonly Solicited[] = [
  'none',
  'short',
  'long',
  'never final',
  'wrong tag',
  'wrong offset',
  'wrong DataSN',
  'twice',
];

function cdbOf(
  random: SeededRandom,
  blockCount: number,
): { cdb: Buffer; length: number; list: Content | null } {
  const cdb = Buffer.alloc(16);
  if (random.chance(0.02)) {
    random.bytes(16).copy(cdb);
    return { cdb, length: 0, list: null };
  }
  const entry = random.pick(commands);
  const { opcode, serviceAction, usage } = entry;
  cdb[0] = opcode;
  const isWild = random.chance(0.15);
  // Flags are drawn from the bits that mean something; the last byte is CONTROL.
  for (let at = 1; at < usage.length; at++)
    cdb[at] = isWild || random.chance(0.15) ? random.word() & usage[at]! : 0;
  if (serviceAction !== null) {
    cdb[1] = (cdb[1]! & ~0x1f) | (random.chance(0.98) ? serviceAction : random.below(32));
    if (opcode === 0x5f) cdb[2] = random.pick([1, 3, 5, 6, 7, 8, 0, 2, 0x11, 0xff]);
  }
  const lengthField = oddLengthFields[opcode] ?? lengthFields[usage.length]!;
  const hasBlocks = wantedOut(cdb, 1) !== null || blockReads.has(opcode) || addressed.has(opcode);
  const list = listCommands.has(opcode) ? parameterList(random, opcode, cdb[1]! & 0x1f, blockCount) : null;
  const length = hasBlocks ? blockLength(random) : list === null ? allocationLength(random) : lengthOf(list);
  if (hasBlocks || (opcode === 0x9e && usage[2] === 0xff)) {
    writeField(cdb, addressFields[usage.length]!, anyLba(random, blockCount, length));
  }
  const said = list === null || random.chance(0.93) ? length : allocationLength(random);
  const most = 2 ** (8 * lengthField.bytes) - 1;
  writeField(cdb, lengthField, BigInt(Math.min(said, most)));
  if (random.chance(0.05)) {
    const at = random.below(usage.length);
    cdb[at]! ^= 1 << random.below(8);
  }
  return { cdb, length: Math.min(length, most), list };
}

/** A command; `orderly` ones keep to the protocol, whatever their CDB says. */
export function anyCommand(random: SeededRandom, blockCount: number, orderly: boolean): CommandStep {
  const { cdb, length, list } = cdbOf(random, blockCount);
  const wanted = list === null ? wantedOut(cdb, length) : lengthOf(list);
  const writes = wanted !== null && (wanted > 0 || random.chance(0.5));
  const reads = !writes && (wanted === null ? random.chance(0.97) : random.chance(0.05));
  const step: CommandStep = {
    kind: 'command',
    cdb: cdb.toString('hex'),
    reads,
    writes,
    attribute: random.chance(0.85) ? 1 : random.below(orderly ? 4 : 8),
    expectedBytes: 0,
    data: nothing,
    immediateBytes: 0,
    unsolicitedBytes: 0,
    keepsLimits: true,
    final: true,
    solicited: random.chance(0.8) ? 'right' : 'many pieces',
    immediate: random.chance(0.03),
    itt: 'new',
    cmdSnPlus: 0,
    takesTurn: true,
    expStatSnPlus: 0,
    lun: (random.chance(0.96) ? '0000' : random.pick(luns)).padEnd(16, '0'),
    ahs: '',
    damage: [],
  };
  step.takesTurn = !step.immediate;
  if (reads) {
    const told = blockReads.has(cdb[0]!) ? length * sectorBytes : length;
    step.expectedBytes = random.chance(0.8)
      ? told % 2 ** 32
      : random.pick([0, 1, 36, 512, 65_536, 2 ** 24, 2 ** 32 - 1]);
  }
  if (writes) {
    step.data = list ?? { lengthBytes: Math.min(wanted, mostDataBytes), fill: random.below(1000) };
    step.expectedBytes = lengthOf(step.data);
    if (random.chance(0.06)) {
      const other = random.pick([0, 1, 511, 512, 513, 4096, 65_536]);
      step.data = { lengthBytes: other, fill: random.below(1000) };
      step.expectedBytes = other;
    }
    step.immediateBytes = random.pick([0, 512, 4096, 65_536, 262_144, lengthOf(step.data)]);
    step.unsolicitedBytes = random.pick([0, 0, 512, 65_536]);
  }
  if (!orderly && random.chance(0.25)) disorder(random, step);
  return step;
}

/** Makes one thing of a command wrong that the protocol has an opinion on. */
function disorder(random: SeededRandom, step: CommandStep): void {
  const data = lengthOf(step.data);
  const faults: (() => void)[] = [
    () => {
      step.cmdSnPlus = random.pick([1, 2, 127, 128, -1, -2, 2 ** 31, random.word()]);
      step.takesTurn = random.chance(0.5);
    },
    () => {
      step.expStatSnPlus = random.pick([1, -1, 1000, 2 ** 31]);
    },
    () => {
      step.itt = random.pick<CommandStep['itt']>(['oldest', 'newest', 'none', random.word()]);
    },
    () => {
      step.solicited = random.pick(ways);
      step.immediateBytes = 0;
    },
    () => {
      step.expectedBytes = random.pick([
        0,
        1,
        data + 1,
        Math.max(0, data - 1),
        data + 4096,
        2 ** 24,
        2 ** 32 - 1,
      ]);
    },
    () => {
      step.reads = random.chance(0.5);
      step.writes = random.chance(0.5);
    },
    () => {
      step.final = !step.final;
    },
    () => {
      step.keepsLimits = false;
      step.immediateBytes = data;
      step.unsolicitedBytes = random.pick([0, data, 512]);
    },
    () => {
      step.ahs = random.pick([
        '00010300',
        '000501000000000000',
        '0009020000000100',
        'ff'.repeat(16),
        '00'.repeat(1020),
      ]);
      step.ahs = step.ahs.padEnd(Math.ceil(step.ahs.length / 8) * 8, '0');
    },
    () => {
      step.attribute = random.below(8);
      step.immediate = random.chance(0.5);
    },
    () => {
      step.lun = random.bytes(8).toString('hex');
    },
  ];
  random.pick(faults)();
}
