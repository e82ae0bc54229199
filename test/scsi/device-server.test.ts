import t from 'tap';
import { GiB, MiB } from '../../daemon/base/limits.ts';
import type { ScsiReply } from '../../daemon/scsi/command.ts';
import { commands } from '../../daemon/scsi/command-table.ts';
import { DeviceServer } from '../../daemon/scsi/device-server.ts';
import { LogicalUnit } from '../../daemon/scsi/logical-unit.ts';
import { encodeLun } from '../../daemon/scsi/logical-unit-number.ts';
import { bench, cdb10, Initiator, outcome, pattern, testUuid } from './initiator.ts';
import { MemoryDevice } from './memory-device.ts';

const testUnitReady = '00';

t.test(
  'an unknown command is INVALID COMMAND OPERATION CODE, an unknown service action INVALID FIELD',
  async (t) => {
    const { first } = bench();
    t.equal(await first.result('85'), '05/20/00');
    t.equal(await first.result('5e 04'), '05/24/00');
    t.equal(await first.result('9e 1f'), '05/24/00');
  },
);

t.test('a bit that means nothing here is refused, in every command', async (t) => {
  const { first } = bench();
  for (const { name, usage, serviceAction } of commands) {
    // NACA is bit 2 of the CONTROL byte, the last of every CDB; no command supports it.
    const cdb = Buffer.alloc(16);
    cdb[0] = usage[0]!;
    cdb[1] = serviceAction ?? 0;
    cdb[usage.length - 1] = 0x04;
    t.equal(await first.result(cdb), '05/24/00', `${name} with NACA`);
  }
  for (const opcode of [
    0x28, 0x2a, 0x2e, 0x2f, 0x41, 0x88, 0x89, 0x8a, 0x8b, 0x8e, 0x8f, 0x93, 0xa8, 0xaa, 0xae, 0xaf,
  ]) {
    for (const protect of [0x20, 0x40, 0x60, 0x80, 0xa0]) {
      t.equal(await first.result(Buffer.from([opcode, protect])), '05/24/00', `${opcode} protect ${protect}`);
    }
  }
});

t.test('a LUN without a unit answers INQUIRY, REQUEST SENSE and REPORT LUNS, and nothing else', async (t) => {
  const { first, server } = bench();
  const lun = encodeLun(5);
  t.notOk(server.lunExists(lun, 'nexus-a'));
  const inquiry = await first.send('12 00 00 00 ff', { lun });
  t.equal(outcome(inquiry), 'GOOD');
  t.equal(inquiry.dataIn[0]![0], 0x7f);
  t.equal(outcome(await first.send('12 01 80 00 ff', { lun })), '05/24/00');
  t.equal(outcome(await first.send(testUnitReady, { lun })), '05/25/00');
  t.equal(outcome(await first.send(cdb10(0x28, 0, 0, 1), { lun })), '05/25/00');
  const requested = await first.send('03 00 00 00 12', { lun });
  t.equal(requested.dataIn[0]!.toString('hex', 12, 14), '2500');
  const luns = await first.send('a0 00 00 00 00 00 00 00 00 10', { lun });
  t.equal(luns.dataIn[0]!.toString('hex'), '00000008000000000000000000000000');
});

t.test('the REPORT LUNS well known unit is there', async (t) => {
  const { first, server } = bench();
  const lun = encodeLun('report-luns');
  t.ok(server.lunExists(lun, 'nexus-a'));
  t.equal((await first.send('12 00 00 00 ff', { lun })).dataIn[0]![0], 0x1e);
  t.equal(outcome(await first.send(testUnitReady, { lun })), 'GOOD');
  t.equal(outcome(await first.send(cdb10(0x28, 0, 0, 1), { lun })), '05/20/00');
  t.equal((await first.data('a0 00 01 00 00 00 00 00 00 10')).toString('hex', 8), 'c101000000000000');
  t.equal((await first.data('a0 00 02 00 00 00 00 00 00 ff')).length, 24);
  t.equal(await first.result('a0 00 03'), '05/24/00');
});

t.test('units are told apart by their LUN, in peripheral and flat addressing', async (t) => {
  const units = new Map<number, LogicalUnit>();
  for (const number of [0, 3, 300]) {
    const device = new MemoryDevice({ sizeBytes: (number + 1) * MiB });
    units.set(number, new LogicalUnit({ device, identity: { uuid: testUuid } }));
  }
  const first = new Initiator(new DeviceServer({ units }), 'a');
  for (const field of ['0003', '4003', '412c']) {
    const lun = Buffer.from(`${field}000000000000`, 'hex');
    const capacity = Buffer.concat((await first.send('25', { lun })).dataIn);
    t.equal(capacity.readUInt32BE(0) + 1, ((field === '412c' ? 300 : 3) + 1) * 2048, field);
  }
  const list = await first.data('a0 00 00 00 00 00 00 00 00 ff');
  t.equal(list.toString('hex', 8), '0000000000000000' + '0003000000000000' + '412c000000000000');
});

t.test('a unit attention is reported once to each nexus, but not by INQUIRY or REPORT LUNS', async (t) => {
  const { device, unit, first, second } = bench();
  await first.result(testUnitReady);
  await second.result(testUnitReady);
  device.sizeBytes = 2 * GiB;
  unit.resized();
  unit.resized();
  t.equal(await first.result('12 00 00 00 ff'), 'GOOD');
  t.equal(await first.result('a0 00 00 00 00 00 00 00 00 10'), 'GOOD');
  t.equal(await first.result(cdb10(0x28, 0, 0, 1)), '06/2a/09');
  t.equal(await first.result(testUnitReady), 'GOOD');
  t.equal((await second.data('03 00 00 00 12')).toString('hex', 12, 14), '2a09', 'REQUEST SENSE takes it');
  t.equal((await second.data('03 01 00 00 12')).toString('hex'), '7200000000000000', 'then there is none');
  t.equal((await first.data('25')).readUInt32BE(0), (2 * GiB) / 512 - 1);
});

t.test('a reset tells every nexus, ends RESERVE(6) and sets the control page back', async (t) => {
  const { server, unit, first, second } = bench();
  await second.result(testUnitReady);
  t.equal(await first.result('16'), 'GOOD');
  unit.control.softwareWriteProtect = true;
  server.resetUnit(encodeLun(0));
  t.equal(await first.result(testUnitReady), '06/29/03');
  t.equal(await second.result(testUnitReady), '06/29/03');
  t.equal(await second.write(0, pattern(1)), 'GOOD');
  server.resetTarget(first.nexus);
  t.equal(await second.result(testUnitReady), '06/29/03');
  server.resetUnit(encodeLun(7));
  t.equal(await second.result(testUnitReady), 'GOOD', 'of another LUN: nothing');
});

t.test('a lost nexus loses its attentions and its RESERVE(6)', async (t) => {
  const { server, unit, first, second } = bench();
  t.equal(await first.result('16'), 'GOOD');
  t.equal(await second.result(testUnitReady), 'CONFLICT');
  unit.resized();
  server.nexusLost(first.nexus);
  t.equal(await second.result(testUnitReady), '06/2a/09');
  t.equal(await second.result(testUnitReady), 'GOOD');
  t.equal(await first.result(testUnitReady), 'GOOD');
});

t.test('the write protection of the control page stops every command that changes the medium', async (t) => {
  const { device, unit, first } = bench();
  unit.control.softwareWriteProtect = true;
  for (const command of commands) {
    if (command.serviceAction !== null || command.opcode === 0x1d || command.opcode === 0x35) continue;
    const before = device.calls.length;
    const reply = await first.send(Buffer.from([command.opcode]), { dataOut: pattern(2) });
    reply.release?.();
    if (command.writes) t.equal(outcome(reply), '07/27/00', command.name);
    for (const call of device.calls.slice(before)) t.notMatch(call, /write|unmap/, command.name);
  }
});

t.test('sense data are in the format the control page asks for', async (t) => {
  const { unit, first } = bench();
  unit.control.descriptorSense = true;
  const reply = await first.send(cdb10(0x28, 0, 0xffffffff, 1));
  t.equal(reply.sense!.toString('hex'), '7205210000000000');
});

t.test('random commands never throw and always reply once', async (t) => {
  const { server, device } = bench({ sizeBytes: 16 * MiB });
  let state = 12345;
  const random = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >> 8) % below;
  };
  const sizes = [0, 1, 8, 24, 511, 512, 513, 1024, 4096];
  const replies: number[] = [];
  const total = 40_000;
  let pending = total;
  await new Promise<void>((finished) => {
    for (let index = 0; index < total; index += 1) {
      const known = commands[random(commands.length)]!;
      const cdb = Buffer.alloc(16);
      // Half of them keep to the bits that are evaluated, so that handlers are reached with odd values.
      for (let byte = 0; byte < 16; byte += 1) cdb[byte] = random(4) === 0 ? random(256) : random(2);
      if (index % 8 !== 0) {
        for (let byte = 0; byte < 16; byte += 1) cdb[byte]! &= known.usage[byte] ?? 0;
        cdb[0] = known.opcode;
        if (known.serviceAction !== null) cdb[1] = known.serviceAction;
      }
      const dataOut = Buffer.alloc(sizes[random(sizes.length)]!);
      for (let byte = 0; byte < Math.min(32, dataOut.length); byte += 1)
        dataOut[byte] = random(3) ? 0 : random(256);
      const lun = random(50) === 0 ? encodeLun(random(400)) : encodeLun(0);
      const command = { lun, cdb, dataOut, expectedInBytes: random(8192), nexus: `n${random(3)}`, port: 1 };
      replies[index] = 0;
      server.execute(command, (reply: ScsiReply) => {
        replies[index]! += 1;
        reply.release?.();
        pending -= 1;
        if (pending === 0) setImmediate(() => setImmediate(finished));
      });
      if (random(200) === 0) server.nexusLost(`n${random(3)}`);
      if (random(200) === 0) server.resetUnit(lun);
      if (random(500) === 0) device.paused = true;
      if (device.paused && random(20) === 0) device.release();
    }
    device.release();
  });
  t.ok(replies.every((count) => count === 1));
});
