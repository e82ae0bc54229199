/** Who takes a volume over waits for what others sent, whatever way it came. */
import t from 'tap';
import { MiB } from '../daemon/base/limits.ts';
import { iqnOf, type VolumeRecord } from '../daemon/control/documents.ts';
import { systemClock } from '../daemon/env/clock.ts';
import type { LocalReplica } from '../daemon/replica/local-replica.ts';
import type { Done } from '../daemon/replica/replica.ts';
import type { ScsiReply } from '../daemon/scsi/command.ts';
import { nexusName } from '../daemon/scsi/nexus-name.ts';
import { VolumeTargets } from '../daemon/volume-targets.ts';
import {
  copyList,
  extendedCopyCdb,
  identificationTarget,
  segmentDescriptor,
} from './scsi/copy/copy-commands.ts';

const a = 'iqn.2026-11.test:a';
const b = 'iqn.2026-11.test:b';

function recordOf(number: number): VolumeRecord {
  const id = `00000000-0000-4000-8000-00000000000${number}`;
  const at = '2026-11-01T00:00:00.000Z';
  return {
    schemaVersion: 2,
    id,
    volumeKey: number,
    name: `v${number}`,
    container: 'default',
    sizeBytes: 16 * MiB,
    durability: 'flush',
    chunkSizeBytes: 16_384,
    physicalBlockBytes: 4096,
    chap: null,
    mutualChap: null,
    allowedInitiators: [],
    labels: {},
    group: null,
    filesystem: null,
    state: 'online',
    createdAt: at,
    createdBy: 'admin',
    removedAt: null,
    purgeAt: null,
    claim: null,
    epoch: 1,
  };
}

/** Two volumes with a target each, on a replica that ends writes and copies when it is told to. */
function twoVolumes() {
  const held: Done[] = [];
  const hold = (...call: unknown[]) => held.push(call.at(-1) as Done);
  const replica = { add: () => {}, write: hold, prepareCopy: hold, copy: hold, usedBytes: () => 0 };
  /** By volume id. */
  const claimedBy = new Map<string, string>();
  const targets = new VolumeTargets({
    discovery: null,
    clock: systemClock,
    replica: replica as unknown as LocalReplica,
    epoch: 1,
    admit: ({ id }, initiator) => ((claimedBy.get(id) ?? initiator) === initiator ? null : 'claimed'),
    lists: () => true,
    credentials: () => ({ chap: null, mutualChap: null }),
    unitState: () => ({ load: () => null, save: (_state, done) => done(null) }),
  });
  const [one, two] = [recordOf(1), recordOf(2)];
  for (const record of [one, two]) targets.serve(record);
  const execute = (record: VolumeRecord, initiator: string, cdb: Buffer, dataOut: Buffer = Buffer.alloc(0)) =>
    new Promise<ScsiReply>((resolve) => {
      const nexus = nexusName(`${initiator},i,0x800000000001`, 1);
      const command = { lun: Buffer.alloc(8), cdb, dataOut, expectedInBytes: 4096, nexus, port: 1 };
      targets.find(iqnOf(record))!.device.execute(command, resolve);
    });
  const release = () => {
    for (const done of held.splice(0)) done(null);
  };
  return { targets, one, two, claimedBy, execute, held, release };
}

/** Its NAA designator, from VPD page 83h. */
async function copyTargetOf(
  { execute }: ReturnType<typeof twoVolumes>,
  record: VolumeRecord,
): Promise<Buffer> {
  const { dataIn } = await execute(record, b, Buffer.from('12018310000000000000000000000000', 'hex'));
  const page = Buffer.concat(dataIn);
  for (let at = 4; at < page.length; at += 4 + page[at + 3]!) {
    const identifier = page.subarray(at + 4, at + 4 + page[at + 3]!);
    if ((page[at + 1]! & 0x3f) === 0x03) return identificationTarget(page[at]! & 0x0f, 0x03, identifier);
  }
  throw new Error('no NAA designator');
}

async function turns(): Promise<void> {
  for (let count = 0; count < 5; count += 1) await new Promise(setImmediate);
}

t.test('a write in the device, whatever became of its session', async (t) => {
  const rig = twoVolumes();
  const { targets, one, claimedBy, execute, held, release } = rig;
  const write = Buffer.from('2a000000000000000800000000000000', 'hex');
  const answered = execute(one, a, write, Buffer.alloc(4096));
  t.equal(held.length, 1);
  targets.find(iqnOf(one))!.device.nexusLost(nexusName(`${a},i,0x800000000001`, 1));
  claimedBy.set(one.id, b);
  let isOver = false;
  const fenced = targets.fence(one).then(() => {
    isOver = true;
  });
  await turns();
  t.notOk(isOver);
  release();
  await Promise.all([answered, fenced]);
});

t.test('a copy that was asked for at another target', async (t) => {
  for (const way of ['claimed', 'unlisted'] as const) {
    const rig = twoVolumes();
    const { targets, one, two, claimedBy, execute, held, release } = rig;
    const ends = [await copyTargetOf(rig, one), await copyTargetOf(rig, two)];
    const list = copyList(ends, [segmentDescriptor({ source: 0, target: 1, from: 0, to: 0, blocks: 64 })]);
    const answered = execute(one, a, extendedCopyCdb(list.length), list);
    await turns();
    t.equal(held.length, 1);
    claimedBy.set(two.id, b);
    let isOver = false;
    targets.attachPortal({ sessions: () => [] } as never, []);
    const fenced = (way === 'claimed' ? targets.fence(two) : targets.expel(two, false)).then(() => {
      isOver = true;
    });
    await turns();
    t.notOk(isOver, way);
    release();
    await turns();
    release();
    await Promise.all([answered, fenced]);
  }
});
