import t from 'tap';
import { MiB } from '../../../daemon/base/limits.ts';
import { DeviceServer } from '../../../daemon/scsi/device-server.ts';
import { LogicalUnit } from '../../../daemon/scsi/logical-unit.ts';
import { bench, Initiator, testUuid } from '../initiator.ts';
import { MemoryDevice } from '../memory-device.ts';

const groupOfTwo = '00090001' + '00000002' + '00000001' + '00000002';

t.test('all ports are one group, active and optimized', async (t) => {
  const units = new Map([
    [0, new LogicalUnit({ device: new MemoryDevice({ sizeBytes: MiB }), identity: { uuid: testUuid } })],
  ]);
  const first = new Initiator(new DeviceServer({ units, ports: () => [1, 2] }), 'a');
  t.equal((await first.data('a3 0a 00 00 00 00 00 00 00 ff')).toString('hex'), `00000010${groupOfTwo}`);
  t.equal(
    (await first.data('a3 2a 00 00 00 00 00 00 00 ff')).toString('hex'),
    `00000014${'10000000'}${groupOfTwo}`,
    'extended header',
  );
  t.equal(
    (await first.data('a3 0a 00 00 00 00 00 00 00 04')).toString('hex'),
    '00000010',
    'cut, length whole',
  );
  t.equal((await first.data('12 00 00 00 ff'))[5]! & 0x30, 0x10, 'TPGS: implicit');
});

t.test('groups can be asked for beside a reservation, and not be set', async (t) => {
  const { first, second } = bench();
  t.equal(await first.result('16'), 'GOOD');
  t.equal(await second.result('a3 0a 00 00 00 00 00 00 00 ff'), 'GOOD');
  t.equal(await first.result('a3 4a 00 00 00 00 00 00 00 ff'), '05/24/00', 'a format that is reserved');
  t.equal(await first.result('a4 0a 00 00 00 00 00 00 00 00'), '05/20/00', 'SET TARGET PORT GROUPS');
});
