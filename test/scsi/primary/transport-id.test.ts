import t from 'tap';
import { decodeTransportId, encodeTransportId } from '../../../daemon/scsi/primary/transport-id.ts';

t.test('an iSCSI TransportID is the initiator port name, or the name alone', async (t) => {
  const port = encodeTransportId('iqn.a:b,i,0x00023d000001');
  t.equal(port[0], 0x45);
  t.equal(port.readUInt16BE(2), port.length - 4);
  t.equal(port.length % 4, 0);
  t.equal(port.toString('latin1', 4).replace(/\0+$/, ''), 'iqn.a:b,i,0x00023d000001');
  const device = encodeTransportId('iqn.a:b');
  t.equal(device[0], 0x05);
  t.equal(device.length, 24, 'never shorter than 24 bytes');
});

t.test('what is encoded is decoded, also the longest name', async (t) => {
  for (const name of ['iqn.a:b', `iqn.${'x'.repeat(219)}`]) {
    const initiatorPort = `${name},i,0x00023d000001`;
    const id = Buffer.concat([encodeTransportId(initiatorPort), Buffer.alloc(8, 0xff)]);
    t.same(decodeTransportId(id), { initiatorPort, initiatorName: name, lengthBytes: id.length - 8 });
    const plain = encodeTransportId(name);
    t.same(decodeTransportId(plain), {
      initiatorPort: null,
      initiatorName: name,
      lengthBytes: plain.length,
    });
  }
});

t.test('an ISID may come with capitals and without leading zeros', async (t) => {
  const id = encodeTransportId('iqn.a:b,i,0x23D00000A');
  t.equal(decodeTransportId(id)?.initiatorPort, 'iqn.a:b,i,0x00023d00000a');
});

t.test('names are in lower case, as those of nexuses are', async (t) => {
  const port = decodeTransportId(encodeTransportId('IQN.2026-11.test:Host-A,i,0x00023d000001'));
  t.match(port, {
    initiatorPort: 'iqn.2026-11.test:host-a,i,0x00023d000001',
    initiatorName: 'iqn.2026-11.test:host-a',
  });
  t.equal(decodeTransportId(encodeTransportId('iqn.A:b'))?.initiatorName, 'iqn.a:b');
});

t.test('what is no iSCSI TransportID is refused', async (t) => {
  const good = encodeTransportId('iqn.a:b,i,0x00023d000001');
  const changed = (at: number, value: number): Buffer => {
    const bytes = Buffer.from(good);
    bytes[at] = value;
    return bytes;
  };
  const bad: Record<string, Buffer> = {
    nothing: Buffer.alloc(0),
    'another protocol (SAS)': changed(0, 0x46),
    'an unknown format': changed(0, 0x85),
    'cut short': good.subarray(0, good.length - 4),
    'a length that is no multiple of four': changed(3, good.length - 4 - 1),
    'a length below 20': changed(3, 16),
    'a port without an ISID': Buffer.concat([Buffer.from([0x45]), encodeTransportId('iqn.a:b').subarray(1)]),
    'an ISID that is no number': encodeTransportId('iqn.a:b,i,0x00023d00000g'),
    'a name without an end': Buffer.concat([Buffer.from([0x05, 0, 0, 20]), Buffer.alloc(20, 0x61)]),
    'a name that is too long': encodeTransportId(`iqn.${'x'.repeat(220)},i,0x00023d000001`),
    'a name alone that is too long': encodeTransportId(`iqn.${'x'.repeat(220)}`),
    'no name that can log in': encodeTransportId('host-a,i,0x00023d000001'),
    'a name with control characters': encodeTransportId('iqn.a\x01,i,0x00023d000001'),
    'no name': Buffer.concat([Buffer.from([0x05, 0, 0, 20]), Buffer.alloc(20)]),
  };
  for (const [what, bytes] of Object.entries(bad)) t.equal(decodeTransportId(bytes), null, what);
});
