import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { commands } from '../../../daemon/scsi/command-table.ts';
import { bench } from '../initiator.ts';

t.test('the short commands: what is accepted and what is not', async (t) => {
  const { first } = bench();
  const table: [cdb: string, expected: string][] = [
    ['00', 'GOOD'],
    ['1b 00 00 00 01', 'GOOD'], // start
    ['1b 01 00 00 00', 'GOOD'], // stop
    ['1b 00 00 00 02', '05/24/00'], // eject
    ['1b 00 00 00 10', '05/24/00'], // power condition
    ['1b 00 00 00 08', '05/24/00'],
    ['1e 00 00 00 01', 'GOOD'],
    ['1e 00 00 00 00', 'GOOD'],
    ['1e 00 00 00 02', '05/24/00'],
  ];
  for (const [cdb, expected] of table) t.equal(await first.result(cdb), expected, cdb);
});

t.test(
  'a stop makes what was written durable unless NO_FLUSH is set, and the unit stays ready',
  async (t) => {
    const { device, first } = bench();
    await first.result('1b 00 00 00 04');
    t.same(device.calls, []);
    await first.result('1b 00 00 00 00');
    t.same(device.calls, ['flush']);
    device.failure = { operation: 'flush', error: new WeftError('IO_ERROR', 'x') };
    t.equal(await first.result('1b 00 00 00 00'), '03/0c/00');
    t.equal(await first.result('00'), 'GOOD');
  },
);

const supported = (options: number, opcode: number, action = 0): Buffer =>
  Buffer.from([0xa3, 0x0c, options, opcode, 0, action, 0, 0, 0xff, 0xff]);

t.test('REPORT SUPPORTED OPERATION CODES lists the command table', async (t) => {
  const { first } = bench();
  const plain = await first.data(supported(0x00, 0));
  t.equal(plain.readUInt32BE(0), commands.length * 8);
  t.equal(plain.length, 4 + commands.length * 8);
  const timed = await first.data(supported(0x80, 0));
  t.equal(timed.readUInt32BE(0), commands.length * 20);
  for (const [index, entry] of commands.entries()) {
    const at = 4 + index * 8;
    t.equal(plain[at], entry.opcode, entry.name);
    t.equal(plain.readUInt16BE(at + 2), entry.serviceAction ?? 0);
    t.equal(plain[at + 5], entry.serviceAction === null ? 0 : 1);
    t.equal(plain.readUInt16BE(at + 6), entry.usage.length);
    t.equal(timed.toString('hex', 4 + index * 20 + 8, 4 + index * 20 + 10), '000a');
  }
});

t.test('REPORT SUPPORTED OPERATION CODES describes one command', async (t) => {
  const { first } = bench();
  const describe = async (options: number, opcode: number, action = 0): Promise<string> =>
    (await first.data(supported(options, opcode, action))).toString('hex');
  t.equal(await describe(1, 0x28), '0003000a' + '2818ffffffff3fffff00');
  t.equal(await describe(3, 0x28), '0003000a' + '2818ffffffff3fffff00');
  t.equal(await describe(0x81, 0x00), '00830006' + '000000000000' + '000a00000000000000000000');
  t.equal(await describe(2, 0x9e, 0x10), '00030010' + '9e1f0000000000000000ffffffff0000');
  t.equal(await describe(3, 0x9e, 0x10), '00030010' + '9e1f0000000000000000ffffffff0000');
  t.equal(await describe(2, 0x9e, 0x11), '00010000');
  t.equal(await describe(1, 0x85), '00010000');
  t.equal(await describe(2, 0x85, 1), '00010000');
  t.equal(await describe(3, 0x28, 1), '00010000');
  t.equal(await first.result(supported(1, 0x9e)), '05/24/00', 'it has service actions');
  t.equal(await first.result(supported(2, 0x28)), '05/24/00', 'it has none');
  t.equal(await first.result(supported(4, 0x28)), '05/24/00');
});

t.test('a refusal says which field of the CDB it is about', async (t) => {
  const { unit, first } = bench();
  const pointer = async (cdb: Buffer | string): Promise<string> =>
    (await first.send(cdb)).sense!.toString('hex', 15, 18);
  t.equal(
    await pointer(supported(1, 0x9e)),
    'ca0002',
    'REPORTING OPTIONS: the command is there, not this way',
  );
  t.equal(await pointer('9e 1f'), 'cc0001', 'SERVICE ACTION');
  t.equal(await pointer('28 20'), 'cd0001', 'RDPROTECT');
  t.equal(await pointer('00 00 00 00 00 04'), 'ca0005', 'NACA');
  unit.control.descriptorSense = true;
  const reply = await first.send('28 20');
  t.equal(reply.sense!.toString('hex'), '7205240000000008' + '02060000cd000100');
});

t.test('REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS', async (t) => {
  const { first } = bench();
  t.equal((await first.data('a3 0d 00 00 00 00 00 00 00 ff')).toString('hex'), 'da000000');
  t.equal((await first.data('a3 0d 80 00 00 00 00 00 00 ff')).toString('hex'), `da00000c${'00'.repeat(12)}`);
});
