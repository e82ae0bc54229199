import t from 'tap';
import { encodeTransportId } from '../../../daemon/scsi/primary/transport-id.ts';
import { bench, Initiator } from '../initiator.ts';
import { list, out, persistentIn, registered } from './persistent-commands.ts';

t.test('keys, the reservation and the full status are read back', async (t) => {
  const { first, second } = await registered();
  const a = '000000000000000a';
  const b = '000000000000000b';
  t.equal((await persistentIn(first, 0)).toString('hex'), `0000000200000010${a}${b}`);
  t.equal((await persistentIn(first, 1)).toString('hex'), '0000000200000000');
  t.equal(await out(second, 'reserve', 0x05, list(0xbn)), 'GOOD');
  t.equal((await persistentIn(first, 1)).toString('hex'), `0000000200000010${b}${'0000000000050000'}`);
  const status = await persistentIn(first, 3);
  const ids = [first, second].map(({ nexus }) => encodeTransportId(nexus.replace(/,t,.*/, '')));
  const row = (key: string, holds: string, id: Buffer): string =>
    `${key}00000000${holds}000000000001${id.length.toString(16).padStart(8, '0')}${id.toString('hex')}`;
  t.equal(status.toString('hex', 8), row(a, '0000', ids[0]!) + row(b, '0105', ids[1]!));
  t.equal((await first.data('5e 00 00 00 00 00 00 00 08')).length, 8, 'cut');
  t.equal(await out(second, 'release', 0x05, list(0xbn)), 'GOOD');
  await first.result('00'); // the released reservation is told to the registrants
  t.equal(await out(first, 'reserve', 0x07, list(0xan)), 'GOOD');
  t.equal(
    (await persistentIn(first, 1)).toString('hex', 8),
    `${'00'.repeat(8)}0000000000070000`,
    'key 0: all hold it',
  );
  const held = await persistentIn(first, 3);
  t.equal(held.toString('hex', 8), row(a, '0107', ids[0]!) + row(b, '0107', ids[1]!));
});

t.test('the full status tells the target port of each registration', async (t) => {
  const { server, first } = bench({ ports: () => [1, 2, 0x123] });
  const ports = [2, 0x123, 1];
  for (const port of ports) {
    const nexus = first.nexus.replace('0x0001', `0x${port.toString(16).padStart(4, '0')}`);
    const path = new Initiator(server, nexus);
    t.equal(await out(path, 'register', 0, list(0n, BigInt(port))), 'GOOD');
  }
  const status = await persistentIn(first, 3);
  const idBytes = status.readUInt32BE(8 + 20);
  for (const [index, port] of ports.entries()) {
    const at = 8 + index * (24 + idBytes);
    t.equal(status.readBigUInt64BE(at), BigInt(port));
    t.equal(status.readUInt16BE(at + 18), port);
  }
  t.equal(status.readUInt32BE(4), 3 * (24 + idBytes));
});

t.test('capabilities: what is reported is what is there', async (t) => {
  const { first } = bench();
  // CRH, SIP_C, ATP_C, PTPL_C; TMV; six types.
  t.equal((await persistentIn(first, 2)).toString('hex'), '00081d80ea010000');
  await out(first, 'register', 0, list(0n, 1n, 0x01));
  t.equal((await persistentIn(first, 2)).toString('hex'), '00081d81ea010000', 'PTPL_A');
  await out(first, 'register', 0, list(1n, 2n));
  t.equal((await persistentIn(first, 2)).toString('hex'), '00081d80ea010000');
  const forgetful = bench({ kept: null });
  t.equal((await persistentIn(forgetful.first, 2)).toString('hex'), '00081c80ea010000', 'no PTPL_C');
  t.equal(await out(forgetful.first, 'register', 0, list(0n, 1n, 0x01)), '05/26/00', 'and no APTPL');
});

t.test('PERSISTENT RESERVE IN moves no generation', async (t) => {
  const { first } = await registered();
  for (const action of [0, 1, 2, 3, 0]) await persistentIn(first, action);
  t.equal((await persistentIn(first, 0)).readUInt32BE(0), 2);
  t.equal(await first.result('5e 04 00 00 00 00 00 00 ff'), '05/24/00', 'no such service action');
});
