/** PREEMPT AND ABORT through sessions: the commands of the preempted end, and the answer comes after their effects. */
import t, { type Test } from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import type { Portal } from '../../daemon/iscsi/portal.ts';
import { DeviceServer } from '../../daemon/scsi/device-server.ts';
import { LogicalUnit } from '../../daemon/scsi/logical-unit.ts';
import { MemoryDevice } from '../scsi/memory-device.ts';
import { iqn, openPortal, until } from './fixture.ts';
import type { Initiator } from './initiator.ts';

const identity = { uuid: '6b0c8b6e-8a3e-4b8e-9c43-0d6a5d0a7c11' };
const good = 0x00;
const conflict = 0x18;
const taskAborted = 0x40;
const writeExclusive = 1;

async function open(t: Test) {
  const device = new MemoryDevice({ sizeBytes: 64 * MiB });
  let portal: Portal | null = null;
  const server = new DeviceServer({
    units: new Map([[0, new LogicalUnit({ device, identity })]]),
    abortTasks: (nexus, lun, done) => portal!.abortTasks(iqn, nexus, lun, done),
  });
  const fixture = await openPortal(t, { device: server });
  portal = fixture.portal;
  const victim = await fixture.session({}, 'iqn.2026-11.test:victim');
  const preemptor = await fixture.session({}, 'iqn.2026-11.test:preemptor');
  for (const [initiator, key] of [
    [victim, 1n],
    [preemptor, 2n],
  ] as const) {
    t.equal((await initiator.collect(out(initiator, 0, 0, 0n, key))).status, good);
  }
  return { device, victim, preemptor };
}

/** PERSISTENT RESERVE OUT; the tag of the command. */
function out(from: Initiator, service: number, type: number, key: bigint, actionKey: bigint): number {
  const data = Buffer.alloc(24);
  data.writeBigUInt64BE(key, 0);
  data.writeBigUInt64BE(actionKey, 8);
  const cdb = Buffer.concat([Buffer.from([0x5f, service, type, 0, 0, 0, 0, 0, 24, 0])], 16);
  return from.command(cdb, { write: 24, data });
}

function write(from: Initiator, lun = '0000'): number {
  const cdb = Buffer.concat([Buffer.from([0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0])], 16);
  const field = Buffer.from(lun.padEnd(16, '0'), 'hex');
  return from.command(cdb, { write: 512, data: Buffer.alloc(512, 1), lun: field });
}

for (const lun of ['0000', '4000']) {
  t.test(
    `a write in the device is waited for and answered TASK ABORTED, sent to LUN field ${lun}`,
    async (t) => {
      const { device, victim, preemptor } = await open(t);
      t.equal((await victim.collect(out(victim, 1, writeExclusive, 1n, 0n))).status, good);
      device.paused = true;
      device.calls.length = 0;
      const written = write(victim, lun);
      await until(() => device.calls.length === 1, 'the write to be in the device');
      const preempting = out(preemptor, 5, writeExclusive, 2n, 1n);
      // A command behind it is answered: the preempt has been carried out by then, and waits.
      const later = write(preemptor);
      await until(() => device.calls.length === 2, 'the write of the new holder to be in the device');
      let answered = false;
      const answers = (async () => {
        const first = await preemptor.next();
        answered = true;
        return [first!, (await preemptor.next())!];
      })();
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      t.notOk(answered, 'not while the write may still take effect');
      device.release();
      t.equal((await victim.collect(written)).status, taskAborted);
      const ended = await answers;
      t.same(ended.map(({ itt }) => itt).sort(), [preempting, later].sort());
      for (const { header } of ended) t.equal(header[3], good);
      const fenced = write(victim);
      t.not((await victim.collect(fenced)).status, good, 'registrations preempted');
      t.equal((await victim.collect(write(victim))).status, conflict);
    },
  );
}

t.test('nexuses that preempt each other at once are both answered', async (t) => {
  const { victim, preemptor } = await open(t);
  const both = [out(victim, 5, writeExclusive, 1n, 2n), out(preemptor, 5, writeExclusive, 2n, 1n)] as const;
  const statuses = [(await victim.collect(both[0])).status, (await preemptor.collect(both[1])).status];
  t.ok(statuses.includes(good), 'one of them has won');
  t.equal(statuses.filter((status) => status === good).length, 1);
});
