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
  t.equal(data.toString('hex', 0, 8), '000006125b180002');
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
  t.same([...list.subarray(4)], [0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8f, 0xb0, 0xb1, 0xb2]);
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
      serial +
      '51940004' +
      '00000001' +
      '51950004' +
      '00000001',
  );
});

t.test('each port of the target tells its own identifier, group and name', async (t) => {
  const device = new MemoryDevice({ sizeBytes: MiB });
  const units = new Map([[0, new LogicalUnit({ device, identity: { uuid: testUuid } })]]);
  const name = 'iqn.2026-01.test:target';
  const server = new DeviceServer({ units, name, ports: () => [1, 2] });
  const first = new Initiator(server, 'a', 2);
  const data = await first.data(page('83'));
  const found = [...designators(data.subarray(4))].filter(({ association }) => association > 0);
  t.same(
    found.map(({ association, type, text }) => [association, type, text]),
    [
      [1, 0x4, '\0\0\0\x02'],
      [1, 0x5, '\0\0\0\x01'],
      [1, 0x8, `${name},t,0x0002`],
      [2, 0x8, name],
    ],
  );
  t.equal((await first.data('12 00 00 00 ff'))[6]! & 0x10, 0x10, 'MULTIP');
  const ports = await first.data(page('88'));
  const portBytes = 12 + 4 + 36;
  t.equal(ports.length, 4 + 2 * portBytes);
  for (const [index, port] of [1, 2].entries()) {
    const one = ports.subarray(4 + index * portBytes, 4 + (index + 1) * portBytes);
    t.equal(one.readUInt16BE(2), port);
    t.equal(one.readUInt16BE(10), portBytes - 12);
    t.equal([...designators(one.subarray(12))][0]!.text, `${name},t,0x000${port}`);
  }
  t.equal((await first.data(page('87'))).toString('hex'), '008700043fff0000');
});

/** Of a list: names without the zeros they are filled up with. */
function* designators(list: Buffer): Generator<{ association: number; type: number; text: string }> {
  for (let at = 0; at < list.length; ) {
    const end = at + 4 + list[at + 3]!;
    const type = list[at + 1]! & 0x0f;
    const text = list.toString('latin1', at + 4, end);
    yield {
      association: (list[at + 1]! >> 4) & 0b11,
      type,
      text: type === 0x8 ? text.replace(/\0+$/, '') : text,
    };
    at = end;
  }
}

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
  t.equal(data[4]! & 1, 0, 'WSNZ');
  t.equal(data[5], 255, 'MAXIMUM COMPARE AND WRITE LENGTH');
  t.equal(data.readUInt16BE(6), 8, 'OPTIMAL TRANSFER LENGTH GRANULARITY');
  t.equal(data.readUInt32BE(8), (8 * MiB) / 512, 'MAXIMUM TRANSFER LENGTH');
  t.equal(data.readUInt32BE(20), 1024 * 1024, 'MAXIMUM UNMAP LBA COUNT');
  t.equal(data.readUInt32BE(24), 256, 'MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT');
  t.equal(data.readUInt32BE(28), (16 * KiB) / 512, 'OPTIMAL UNMAP GRANULARITY');
  t.equal(data.readUInt32BE(32), 0x80000000, 'UGAVALID');
  t.equal(Number(data.readBigUInt64BE(36)), (16 * MiB) / 512, 'MAXIMUM WRITE SAME LENGTH');
  t.equal(data.readUInt32BE(44), MiB / 512, 'MAXIMUM ATOMIC TRANSFER LENGTH');
  t.equal(data.readUInt32BE(48), 8, 'ATOMIC ALIGNMENT');
  t.equal(data.readUInt32BE(52), 8, 'ATOMIC TRANSFER LENGTH GRANULARITY');
  t.equal(data.readUInt32BE(56), 0, 'MAXIMUM ATOMIC TRANSFER LENGTH WITH ATOMIC BOUNDARY');
  t.equal(data.readUInt32BE(60), 0, 'MAXIMUM ATOMIC BOUNDARY SIZE');
});

t.test('provisioning, characteristics and the volatile cache', async (t) => {
  const { first } = bench();
  t.equal((await first.data(page('b2'))).toString('hex'), '00b2000400e40200');
  t.equal((await first.data(page('b1'))).readUInt16BE(4), 1);
  t.equal((await first.data(page('86')))[6]! & 1, 1, 'V_SUP');
  const sync = bench({ durability: 'sync' });
  t.equal((await sync.first.data(page('86')))[6]! & 1, 0);
});
