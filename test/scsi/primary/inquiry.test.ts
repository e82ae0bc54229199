import t from 'tap';
import { KiB, MiB } from '../../../daemon/base/limits.ts';
import { DeviceServer } from '../../../daemon/scsi/device-server.ts';
import { LogicalUnit } from '../../../daemon/scsi/logical-unit.ts';
import { bench, Initiator, testUuid } from '../initiator.ts';
import { MemoryDevice } from '../memory-device.ts';

const page = (code: string): string => `12 01 ${code} 10 00`;

t.test('standard INQUIRY', async (t) => {
  const { first } = bench();
  const data = await first.data('12 00 00 00 ff');
  t.equal(data.length, 96);
  t.equal(data[4], 91);
  t.equal(data.toString('hex', 0, 8), '000006125b000002');
  t.equal(data.toString('latin1', 8, 36), 'WEFT    Volume          1   ');
  t.equal(data.toString('hex', 58, 68), '00a0046004c009600000');
  for (const length of [0, 4, 5, 36]) {
    t.equal((await first.data(Buffer.from([0x12, 0, 0, 0, length]))).length, length);
  }
  t.equal(await first.result('12 00 01 00 ff'), '05/24/00', 'a page without EVPD');
  t.equal(await first.result('12 02 00 00 ff'), '05/24/00', 'CMDDT');
});

t.test('all pages listed are there, each with its code and length, and no other', async (t) => {
  const { first } = bench();
  const list = await first.data(page('00'));
  t.same([...list.subarray(4)], [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
  for (let code = 0; code < 256; code += 1) {
    const cdb = Buffer.from([0x12, 0x01, code, 0x10, 0x00]);
    if (!list.subarray(4).includes(code)) {
      if ((await first.result(cdb)) !== '05/24/00') t.fail(`page ${code}`);
      continue;
    }
    const data = await first.data(cdb);
    t.equal(data[1], code);
    t.equal(data.readUInt16BE(2), data.length - 4);
  }
});

t.test('serial number and designators come from the UUID', async (t) => {
  const { first } = bench();
  t.equal((await first.data(page('80'))).toString('latin1', 4), testUuid.replaceAll('-', ''));
  const data = await first.data(page('83'));
  const serial = Buffer.from(`WEFT    ${testUuid.replaceAll('-', '')}`).toString('hex');
  t.equal(
    data.toString('hex', 4),
    '01030008' +
      '3a3e0123456789ab' +
      '010a0012' +
      '1000' +
      testUuid.replaceAll('-', '') +
      '02010028' +
      serial,
  );
});

t.test('identity can be given', async (t) => {
  const device = new MemoryDevice({ sizeBytes: MiB });
  const identity = {
    uuid: testUuid,
    serial: 'S1',
    vendor: 'ACME',
    product: 'Disk of a very long name',
    revision: '2.0',
  };
  const server = new DeviceServer({ units: new Map([[0, new LogicalUnit({ device, identity })]]) });
  const first = new Initiator(server, 'a');
  t.equal((await first.data('12 00 00 00 ff')).toString('latin1', 8, 36), 'ACME    Disk of a very l2.0 ');
  t.equal((await first.data(page('80'))).toString('latin1', 4), 'S1');
  t.throws(() => new LogicalUnit({ device, identity: { uuid: 'none' } }), /UUID/);
});

t.test('block limits', async (t) => {
  const { first } = bench();
  const data = await first.data(page('b0'));
  t.equal(data.length, 64);
  t.equal(data[4]! & 1, 1, 'WSNZ');
  t.equal(data[5], 255, 'MAXIMUM COMPARE AND WRITE LENGTH');
  t.equal(data.readUInt16BE(6), 8, 'OPTIMAL TRANSFER LENGTH GRANULARITY');
  t.equal(data.readUInt32BE(8), (8 * MiB) / 512, 'MAXIMUM TRANSFER LENGTH');
  t.equal(data.readUInt32BE(20), 1024 * 1024, 'MAXIMUM UNMAP LBA COUNT');
  t.equal(data.readUInt32BE(24), 256, 'MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT');
  t.equal(data.readUInt32BE(28), (16 * KiB) / 512, 'OPTIMAL UNMAP GRANULARITY');
  t.equal(data.readUInt32BE(32), 0x80000000, 'UGAVALID');
  t.equal(Number(data.readBigUInt64BE(36)), (16 * MiB) / 512, 'MAXIMUM WRITE SAME LENGTH');
});

t.test('provisioning, characteristics and the volatile cache', async (t) => {
  const { first } = bench();
  t.equal((await first.data(page('b2'))).toString('hex'), '00b2000400e40200');
  t.equal((await first.data(page('b1'))).readUInt16BE(4), 1);
  t.equal((await first.data(page('86')))[6]! & 1, 1, 'V_SUP');
  const sync = bench({ durability: 'sync' });
  t.equal((await sync.first.data(page('86')))[6]! & 1, 0);
});
