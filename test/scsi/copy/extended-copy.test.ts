import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { MiB } from '../../../daemon/base/limits.ts';
import { DeviceServer } from '../../../daemon/scsi/device-server.ts';
import { LogicalUnit } from '../../../daemon/scsi/logical-unit.ts';
import { unitDesignators } from '../../../daemon/scsi/unit-designators.ts';
import { cdb10, Initiator, outcome, pattern, testUuid } from '../initiator.ts';
import { MemoryDevice } from '../memory-device.ts';
import {
  copyList,
  copyResultsCdb,
  extendedCopyCdb,
  identificationTarget,
  naaTarget,
  segmentDescriptor,
} from './copy-commands.ts';

const otherUuid = '0199f3d2-7b1c-4c7a-9a3e-aaaaaaaaaaaa';
const strangeUuid = '0199f3d2-7b1c-4c7a-9a3e-bbbbbbbbbbbb';

/** Two units of one target; a third of another, which initiator b may use and a may not. */
function fabric() {
  const device = () => new MemoryDevice({ sizeBytes: 16 * MiB });
  const unit = (uuid: string) => new LogicalUnit({ device: device(), identity: { uuid } });
  const [first, second, strange] = [unit(testUuid), unit(otherUuid), unit(strangeUuid)];
  const server = new DeviceServer({
    units: new Map([
      [0, first],
      [1, second],
    ]),
    findElsewhere: (nexus, isMeant) =>
      nexus.startsWith('iqn.2026-01.test:b') && isMeant(strange) ? { unit: strange, nexuses: [nexus] } : null,
  });
  const a = new Initiator(server, 'iqn.2026-01.test:a,i,0x800000000001,t,0x0001');
  const b = new Initiator(server, 'iqn.2026-01.test:b,i,0x800000000002,t,0x0001');
  return { first, second, strange, server, a, b };
}

const memory = (unit: LogicalUnit) => unit.device as MemoryDevice;

async function copied(unit: LogicalUnit, block: number, blocks: number): Promise<Buffer> {
  const data = Buffer.alloc(blocks * 512);
  await new Promise((resolve) => unit.device.read(block * 512, data, resolve));
  return data;
}

const copy = (initiator: Initiator, list: Buffer) => initiator.result(extendedCopyCdb(list.length), list);

t.test('blocks are copied between units of a target, by any of their names', async (t) => {
  const { first, second, a } = fabric();
  const data = pattern(300);
  await a.write(10, data);
  const fits = unitDesignators(second).filter(({ identifier }) => identifier.length <= 20);
  for (const [index, { codeSet, type, identifier }] of fits.entries()) {
    const targets = [naaTarget(first), identificationTarget(codeSet, type, identifier)];
    const to = 1000 * (index + 1);
    const list = copyList(targets, [segmentDescriptor({ target: 1, from: 10, to, blocks: 300 })]);
    t.equal(await copy(a, list), 'GOOD');
    t.ok((await copied(second, to, 300)).equals(data), `designator type ${type}`);
  }
  t.ok(fits.length >= 2);
});

t.test('within a unit a range may be copied over part of itself, in both directions', async (t) => {
  for (const [from, to] of [
    [100, 108],
    [108, 100],
    [0, 4100],
    [4100, 3],
  ] as const) {
    const { first, a } = fabric();
    const blocks = 5000;
    const data = pattern(blocks);
    await new Promise((resolve) => first.device.write(from * 512, data, false, resolve));
    const list = copyList([naaTarget(first)], [segmentDescriptor({ from, to, blocks })], { usage: 2 });
    t.equal(await copy(a, list), 'GOOD');
    t.ok((await copied(first, to, blocks)).equals(data), `${from} to ${to}`);
  }
});

t.test('several segments are carried out in order, also from the unit that is asked', async (t) => {
  const { first, second, a } = fabric();
  await a.write(0, pattern(8, 1));
  const list = copyList(
    [naaTarget(second)],
    [
      segmentDescriptor({ source: 0xffff, target: 0, from: 0, to: 50, blocks: 8 }),
      segmentDescriptor({ source: 0, target: 0xffff, from: 50, to: 70, blocks: 8 }),
      segmentDescriptor({ source: 0, target: 0, from: 0, to: 0, blocks: 0 }),
    ],
  );
  t.equal(await copy(a, list), 'GOOD');
  t.ok((await copied(first, 70, 8)).equals(pattern(8, 1)));
  const status = await a.data(copyResultsCdb(0x00, 1));
  t.equal(
    status.toString('hex'),
    `00000008${'01'}${'0003'}${'00'}${(16 * 512).toString(16).padStart(8, '0')}`,
  );
});

t.test('a list that is wrong is refused before anything is copied', async (t) => {
  const { first, a } = fabric();
  const target = naaTarget(first);
  const good = segmentDescriptor({ from: 0, to: 100, blocks: 8 });
  const other = (descriptor: Buffer, at: number, value: number): Buffer => {
    const changed = Buffer.from(descriptor);
    changed[at] = value;
    return changed;
  };
  const cases: [string, Buffer, string][] = [
    ['type of a target descriptor', copyList([other(target, 0, 0xe0)], [good]), '05/26/07'],
    ['type of a segment descriptor', copyList([target], [good, other(good, 0, 0x03)]), '05/26/09'],
    ['length of a segment descriptor', copyList([target], [other(good, 3, 0x18 + 4)]), '05/26/00'],
    ['65 targets', copyList(new Array(65).fill(target), [good]), '05/26/06'],
    ['65 segments', copyList([target], new Array(65).fill(good)), '05/26/08'],
    [
      'more than 4 KiB of descriptors',
      copyList(new Array(64).fill(target), new Array(74).fill(good)),
      '05/1a/00',
    ],
    ['inline data', copyList([target], [good], { inlineBytes: 4 }), '05/26/0b'],
    ['a reserved list id usage', copyList([target], [good], { usage: 1 }), '05/26/00'],
    ['a list id where there is to be none', copyList([target], [good], { usage: 3 }), '05/26/00'],
    ['another block size', copyList([other(target, 30, 0x10)], [good]), '05/26/00'],
    ['a designator too long', copyList([other(target, 7, 21)], [good]), '05/26/00'],
    ['the end is missing', copyList([target], [good]).subarray(0, -1), '05/1a/00'],
    ['a part of a header', Buffer.alloc(15), '05/1a/00'],
  ];
  for (const [what, list, wanted] of cases) t.equal(await copy(a, list), wanted, what);
  t.equal(await a.result(extendedCopyCdb(0)), 'GOOD', 'no list is no error');
  t.equal(await copy(a, copyList([target], [])), 'GOOD', 'no segments are no error');
  t.same(memory(first).calls, [], 'nothing was asked of the device');
  const reply = await a.send(extendedCopyCdb(16), { dataOut: copyList([other(target, 0, 0xe0)], []) });
  t.equal(outcome(reply), '05/1a/00', 'the list is longer than the CDB says');
});

t.test(
  'a segment that cannot be copied ends the command with COPY ABORTED and says which and why',
  async (t) => {
    const { first, second, strange, a } = fabric();
    const targets = [naaTarget(first), naaTarget(second), naaTarget(strange)];
    const good = segmentDescriptor({ from: 0, to: 100, blocks: 8 });
    const tape = Buffer.from(targets[1]!);
    tape[1] = 0x01;
    const cases: [string, Buffer, string, number][] = [
      ['no such target', segmentDescriptor({ target: 9, from: 0, to: 0, blocks: 8 }), '0a/08/04', 6],
      [
        'a unit the initiator may not use',
        segmentDescriptor({ source: 2, from: 0, to: 0, blocks: 8 }),
        '0a/0d/02',
        4,
      ],
      ['beyond the source', segmentDescriptor({ from: 32_767, to: 0, blocks: 2 }), '0a/00/00', 12],
      ['beyond the destination', segmentDescriptor({ from: 0, to: 2 ** 60, blocks: 2 }), '0a/00/00', 20],
      ['a tape', segmentDescriptor({ source: 3, from: 0, to: 0, blocks: 8 }), '0a/0d/03', 4],
    ];
    for (const [what, segment, wanted, byte] of cases) {
      const list = copyList([...targets, tape], [good, segment, good]);
      const reply = await a.send(extendedCopyCdb(list.length), { dataOut: list });
      t.equal(outcome(reply), wanted, what);
      t.equal(reply.sense!.readUInt16BE(10), 1, 'the number of the segment');
      t.same([reply.sense![15], reply.sense!.readUInt16BE(16)], [0xa0, byte], 'the field in the descriptor');
    }
  },
);

t.test('what the source or the destination answers is passed on, in both formats', async (t) => {
  const { first, second, a } = fabric();
  const targets = [naaTarget(first), naaTarget(second)];
  const list = copyList(targets, [segmentDescriptor({ target: 1, from: 8, to: 16, blocks: 8 })]);
  const error = new WeftError('CORRUPT', 'rotten', { details: { offsetBytes: 9 * 512 } });
  memory(first).failure = { operation: 'read', error };
  const read = await a.send(extendedCopyCdb(list.length), { dataOut: list });
  t.equal(outcome(read), '0a/0d/01');
  t.equal(read.sense!.subarray(8, 12).toString('hex'), '12000000', 'source at 18, segment 0');
  const inner = read.sense!.subarray(18);
  t.same([inner[0], inner[3]! & 0x0f, inner[13], inner.readUInt32BE(4)], [0x02, 0x03, 0x11, 9]);
  t.same(memory(second).calls, [], 'nothing was written');
  const details = await a.data(copyResultsCdb(0x04, 1));
  t.equal(details[56], 2);
  t.ok(
    details.subarray(60, 60 + details.readUInt16BE(58)).equals(read.sense!),
    'the details are the sense data',
  );
  t.equal(await a.result(copyResultsCdb(0x04, 1)), '05/24/00', 'and are told once');

  memory(first).failure = null;
  memory(second).failure = { operation: 'write', error: new WeftError('NO_SPACE', 'full') };
  first.control.descriptorSense = true;
  const written = await a.send(extendedCopyCdb(list.length), { dataOut: list });
  t.equal(outcome(written), '0a/0d/01');
  t.equal(
    written.sense!.toString('hex'),
    `720a0d0100000018${'010a00000000000000000000'}${'0c0a02'}02${'7207270700000000'}`,
  );
});

t.test('reservations of both units are kept', async (t) => {
  const { first, second, a, b } = fabric();
  const targets = [naaTarget(first), naaTarget(second)];
  const list = copyList(targets, [segmentDescriptor({ target: 1, from: 0, to: 0, blocks: 8 })]);
  const lun = Buffer.from('0001000000000000', 'hex');
  t.equal(outcome(await b.send('16', { lun })), 'GOOD', 'b reserves the destination');
  const refused = await a.send(extendedCopyCdb(list.length), { dataOut: list });
  t.equal(outcome(refused), '0a/0d/01');
  t.same([refused.sense![9], refused.sense![18]], [18, 0x18], 'the destination: RESERVATION CONFLICT');
  t.equal(await copy(b, list), 'GOOD', 'the holder copies');
  t.equal(outcome(await b.send('17', { lun })), 'GOOD');
  t.equal(await copy(a, list), 'GOOD');
  t.equal(outcome(await b.send('16')), 'GOOD', 'b reserves the unit that is asked');
  t.equal(await copy(a, list), 'CONFLICT');
});

t.test('who is preempted and aborted copies nothing more to the unit by way of another', async (t) => {
  const { first, second, a, b } = fabric();
  const lun = Buffer.from('0001000000000000', 'hex');
  /** PERSISTENT RESERVE OUT to the second unit. */
  const out = async (from: Initiator, action: string, key: number, actionKey: number) => {
    const dataOut = Buffer.alloc(24);
    dataOut.writeUInt32BE(key, 4);
    dataOut.writeUInt32BE(actionKey, 12);
    return outcome(await from.send(`5f ${action} 05 00 00 00 00 00 18 00`, { dataOut, lun }));
  };
  t.same([await out(a, '00', 0, 0xa), await out(b, '00', 0, 0xb)], ['GOOD', 'GOOD']);
  t.equal(await out(a, '01', 0xa, 0), 'GOOD', 'a holds the second unit');
  await a.write(0, pattern(8));
  memory(second).paused = true;
  const segment = segmentDescriptor({ target: 1, from: 0, to: 0, blocks: 8 });
  const running = copy(a, copyList([naaTarget(first), naaTarget(second)], [segment, segment]));
  while (!memory(second).calls.includes('write 0+4096')) await new Promise(setImmediate);
  let answered = false;
  const preempting = out(b, '05', 0xb, 0xa).finally(() => {
    answered = true;
  });
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  t.notOk(answered, 'not while the copy may still take effect');
  memory(second).release();
  t.equal(await preempting, 'GOOD');
  memory(second).calls.length = 0;
  t.equal(await running, '0a/0d/01', 'its next segment meets the reservation');
  t.same(memory(second).calls, []);
});

t.test('a unit of another target is used only by who may', async (t) => {
  const { first, strange, a, b } = fabric();
  await a.write(0, pattern(8));
  const list = copyList(
    [naaTarget(first), naaTarget(strange)],
    [segmentDescriptor({ target: 1, from: 0, to: 0, blocks: 8 })],
  );
  t.equal(await copy(a, list), '0a/0d/02');
  t.equal(await copy(b, list), 'GOOD');
  t.ok((await copied(strange, 0, 8)).equals(pattern(8)));
});

t.test('a list identifier in use is refused, and one that was never used is unknown', async (t) => {
  const { first, a, b } = fabric();
  const list = copyList([naaTarget(first)], [segmentDescriptor({ from: 0, to: 100, blocks: 8 })], {
    listId: 7,
  });
  t.equal(await a.result(copyResultsCdb(0x00, 7)), '05/24/00');
  memory(first).paused = true;
  const running = copy(a, list);
  t.equal(await copy(a, list), '05/00/16', 'operation in progress');
  t.equal((await a.data(copyResultsCdb(0x00, 7)))[4], 0x00, 'in progress');
  t.equal(await a.result(copyResultsCdb(0x04, 7)), '05/24/00', 'no details yet');
  t.equal(await b.result(copyResultsCdb(0x00, 7)), '05/24/00', 'another nexus has identifiers of its own');
  memory(first).release();
  t.equal(await running, 'GOOD');
  t.equal((await a.data(copyResultsCdb(0x00, 7)))[4], 0x01, 'done');
  t.equal((await a.data(copyResultsCdb(0x04, 7))).toString('hex'), '00000000', 'nothing failed');
});

t.test('other changes of the destination wait until a segment is copied', async (t) => {
  const { first, a, b } = fabric();
  await a.write(0, pattern(8, 1));
  memory(first).paused = true;
  const running = copy(a, copyList([naaTarget(first)], [segmentDescriptor({ from: 0, to: 100, blocks: 8 })]));
  const write = b.write(104, pattern(1, 9));
  memory(first).calls.length = 0;
  memory(first).release();
  t.same(await Promise.all([running, write]), ['GOOD', 'GOOD']);
  t.same(memory(first).calls, ['write 51200+4096', 'write 53248+512']);
  t.ok((await copied(first, 104, 1)).equals(pattern(1, 9)), 'what was written later stays');
});

t.test('an aborted copy ends after the step in hand', async (t) => {
  const { first, server } = fabric();
  const request = { isAborted: false };
  const segments = [0, 1, 2].map((index) =>
    segmentDescriptor({ from: 0, to: 1000 * (index + 1), blocks: 8 }),
  );
  const dataOut = copyList([naaTarget(first)], segments);
  memory(first).paused = true;
  const nexus = 'iqn.2026-01.test:a,i,0x800000000001,t,0x0001';
  const command = {
    lun: Buffer.alloc(8),
    cdb: extendedCopyCdb(dataOut.length),
    dataOut,
    expectedInBytes: 0,
    nexus,
    port: 1,
    request,
  };
  const reply = new Promise<string>((resolve) => server.execute(command, (it) => resolve(outcome(it))));
  request.isAborted = true;
  memory(first).release();
  t.equal(await reply, 'ABORTED');
  t.same(memory(first).calls, ['read 0+4096', 'write 512000+4096'], 'one step');
  t.ok(first.guard.idle, 'nothing stays held');
});

t.test('the limits that are reported are those that are kept', async (t) => {
  const { a } = fabric();
  const data = await a.data(copyResultsCdb(0x03, 0));
  t.equal(data.readUInt32BE(0), data.length - 4);
  t.same([data.readUInt16BE(8), data.readUInt16BE(10), data.readUInt32BE(12)], [64, 64, 4096]);
  t.equal(data.readUInt32BE(16), 65_535 * 512);
  t.same([...data.subarray(44, 44 + data[43]!)], [0x02, 0xe4]);
  const inquiry = await a.data('12 00 00 00 ff 00');
  t.equal(inquiry[5]! & 0x08, 0x08, '3PC');
  const page = await a.data('12 01 8f 01 ff 00');
  t.equal(page.readUInt16BE(2), page.length - 4);
  t.equal(page.subarray(4, 16).toString('hex'), `0001000c${'08'}8301008403000304`.slice(0, 24));
});

t.test('a copy of what another command has not finished with waits for it', async (t) => {
  const { first, a } = fabric();
  await a.write(0, pattern(1, 3));
  memory(first).paused = true;
  const swap = a.result(
    Buffer.concat([Buffer.from('89000000000000000000000000010000', 'hex')]),
    Buffer.concat([pattern(1, 3), pattern(1, 4)]),
  );
  const running = copy(a, copyList([naaTarget(first)], [segmentDescriptor({ from: 0, to: 100, blocks: 1 })]));
  memory(first).release();
  t.same(await Promise.all([swap, running]), ['GOOD', 'GOOD']);
  t.ok((await copied(first, 100, 1)).equals(pattern(1, 4)));
});

t.test('READ(10) sees what was copied', async (t) => {
  const { first, a } = fabric();
  await a.write(0, pattern(8, 5));
  t.equal(
    await copy(a, copyList([naaTarget(first)], [segmentDescriptor({ from: 0, to: 64, blocks: 8 })])),
    'GOOD',
  );
  t.ok((await a.data(cdb10(0x28, 0, 64, 8))).equals(pattern(8, 5)));
});
