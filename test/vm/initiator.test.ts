/** The Linux kernel's initiator in a virtual machine: who may log in, what it finds, what disks can do. */
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { journalFileHeaderBytes } from '../../daemon/format/journal-file.ts';
import { drained } from '../daemon/volume-rig.ts';
import { eventually } from '../system/eventually.ts';
import { InitiatorRig } from './initiator-rig.ts';
import { digests, diskPath } from './kernel-initiator.ts';
import { guestPollMs, kernelInitiator } from './virtual-machine.ts';

const limit = { timeout: 300_000 };
const otherInitiator = 'iqn.2026-11.io.weft.test:other';
/** iscsiadm(8). */
const authorizationFailure = 24;
/** sg3_utils(8). */
const illegalRequest = 5;
const invalidOpcode = 9;
const copyAborted = 10;
const miscompare = 14;
const lbaOutOfRange = 22;
const reservationConflict = 24;
const recoveryLimitMs = 120_000;
const drainLimitMs = 60_000;

const rig = await InitiatorRig.start(t, { name: 'initiator' });
const { client, initiator, portals } = rig;
const [portal = ''] = portals;

/** weftd closes the connection of a login it refuses, and the kernel says so. */
const loginThatFails: typeof initiator.tryLogin = (volume) => rig.disturbed(() => initiator.tryLogin(volume));

t.test('discovery tells of what this initiator may use, and of nothing else', limit, async (t) => {
  const open = await rig.volume({ name: 'open', sizeBytes: 16 * MiB, chap: 'none' });
  const own = await rig.volume({
    name: 'own',
    sizeBytes: 16 * MiB,
    chap: 'none',
    allowedInitiators: [kernelInitiator],
  });
  const others = await rig.volume({
    name: 'others',
    sizeBytes: 16 * MiB,
    chap: 'none',
    allowedInitiators: [otherInitiator],
  });
  t.strictSame(
    await initiator.discover(portal),
    [`${portal},1 ${open.iqn}`, `${portal},1 ${own.iqn}`].sort(),
  );
  await initiator.loginToAllDiscovered();
  t.match(await initiator.session(own), /LOGGED_IN/);
  t.equal(await initiator.sessionCount(), 2);
  await initiator.logoutOfAll();
  const refused = await loginThatFails(others);
  t.not(refused.exitCode, 0, 'not by its name either');
  await initiator.forgetAll();
  for (const name of ['open', 'own', 'others']) await client.removeVolume(name, { purge: true });
});

t.test('CHAP lets in who knows the secret, and nobody else', limit, async (t) => {
  const volume = await rig.volume({ name: 'chap', sizeBytes: 16 * MiB });
  await initiator.login(volume);
  t.match(await initiator.session(volume), new RegExp(`username: ${volume.chap?.user}`));
  await initiator.logout(volume);
  const wrong = await loginThatFails({ ...volume, chap: { user: 'weft', secret: 'not-the-secret-1' } });
  t.equal(wrong.exitCode, authorizationFailure, wrong.output);
  const none = await loginThatFails({ ...volume, chap: null });
  t.equal(none.exitCode, authorizationFailure, none.output);
  await initiator.forgetAll();
  await client.removeVolume('chap', { purge: true });
});

t.test('mutual CHAP: the initiator refuses a target that does not know its secret', limit, async (t) => {
  const volume = await rig.volume({ name: 'mutual', sizeBytes: 16 * MiB, mutualChap: 'auto' });
  const { mutualChap } = volume;
  if (mutualChap === null) throw new Error('no mutual secret was made');
  await initiator.login(volume);
  t.match(await initiator.session(volume), new RegExp(`username_in: ${mutualChap.user}`));
  await initiator.logout(volume);
  const wrong = await loginThatFails({
    ...volume,
    mutualChap: { ...mutualChap, secret: 'not-the-secret-2' },
  });
  t.not(wrong.exitCode, 0, 'a target with another secret is refused');
  t.equal(await initiator.sessionCount(), 0);
  await initiator.forgetAll();
  await client.removeVolume('mutual', { purge: true });
});

t.test('a session with header and data digests carries data', limit, async (t) => {
  const volume = await rig.volume({ name: 'digests', sizeBytes: 64 * MiB });
  await initiator.login(volume, digests);
  t.match(await initiator.session(volume), /HeaderDigest: CRC32C\s+DataDigest: CRC32C/);
  await rig.run(fio('digests', diskPath(volume), { sizeMiB: 24 }));
  t.pass('fio verified what it wrote');
  await initiator.logout(volume);
  await client.removeVolume('digests', { purge: true });
});

t.test(
  'four LUNs in one target and twenty targets are all there, under names that stay',
  limit,
  async (t) => {
    const sizes = new Map<string, number>();
    for (let lun = 0; lun < 4; lun++) {
      const sizeBytes = (32 + lun) * MiB;
      const volume = await rig.volume({ name: `lun${lun}`, sizeBytes, chap: 'none', group: 'four' });
      t.equal(volume.lun, lun);
      sizes.set(diskPath(volume), sizeBytes);
    }
    for (let index = 0; index < 20; index++) {
      const sizeBytes = (64 + index) * MiB;
      const volume = await rig.volume({ name: `target${index}`, sizeBytes, chap: 'none' });
      sizes.set(diskPath(volume), sizeBytes);
    }
    t.equal((await initiator.discover(portal)).length, 21);
    await initiator.loginToAllDiscovered();
    t.equal(await initiator.sessionCount(), 21);
    const disks = await initiator.disks();
    t.strictSame(
      Object.fromEntries(disks.map((disk) => [disk.path, disk.sizeBytes])),
      Object.fromEntries(sizes),
    );
    const ids = disks.flatMap((disk) => disk.ids);
    t.ok(
      disks.every((disk) => disk.ids.some((id) => id.startsWith('wwn-0x'))),
      'each with a world wide name',
    );
    t.equal(new Set(ids).size, ids.length, 'no name twice');

    await initiator.logoutOfAll();
    t.strictSame(await initiator.disks(), []);
    t.ok(await rig.weftd.shutDown());
    await rig.weftd.startAgain();
    await initiator.discover(portal);
    await initiator.loginToAllDiscovered();
    t.strictSame(await initiator.disks(), disks, 'after weftd was started again');
    await initiator.logoutOfAll();
    for (const { name } of await client.volumes()) await client.removeVolume(name, { purge: true });
  },
);

t.test('a persistent reservation keeps others out, outlives weftd, and is preempted', limit, async (t) => {
  const volume = await rig.volume({ name: 'reserved', sizeBytes: 16 * MiB });
  await initiator.addInterface('other', otherInitiator);
  await initiator.login(volume);
  await initiator.login(volume, {}, 'other');
  const mine = await initiator.diskOf(volume, kernelInitiator);
  const others = await initiator.diskOf(volume, otherInitiator);
  t.not(mine, others);
  const out = (action: string, disk: string) => rig.machine.attempt(`sg_persist --out ${action} ${disk}`);
  const ok = async (action: string, disk: string) => {
    const answer = await out(action, disk);
    t.equal(answer.exitCode, 0, `${action}: ${answer.output}`);
  };
  const seen = (what: string, disk: string) => rig.run(`sg_persist --in --${what} ${disk}`);
  const write = async (disk: string) =>
    (await rig.machine.attempt(`dd if=/dev/zero of=${disk} bs=4k count=1 oflag=direct conv=notrunc`))
      .exitCode;

  // The kernel tells of each command that is refused, and of the restart.
  await rig.disturbed(async () => {
    await ok('--register --param-sark=0xa1 --param-aptpl', mine);
    await ok('--reserve --param-rk=0xa1 --prout-type=1', mine);
    t.equal(await write(mine), 0);
    t.not(await write(others), 0, 'who has no reservation does not write');
    await ok('--register --param-sark=0xb2 --param-aptpl', others);
    t.equal((await out('--reserve --param-rk=0xb2 --prout-type=1', others)).exitCode, reservationConflict);
    t.not(await write(others), 0, 'nor does who is registered only');
    t.match(await seen('read-keys', others), /0xa1[\s\S]*0xb2/);

    await rig.weftd.kill9();
    await rig.weftd.startAgain();
    await eventually(
      'both sessions are back',
      recoveryLimitMs,
      async () => {
        return (await initiator.states()).LOGGED_IN === 2;
      },
      guestPollMs,
    );
    // The first command after it is told of the restart.
    for (const disk of [mine, others]) await rig.machine.attempt(`sg_turs ${disk}; sg_turs ${disk}`);
    t.match(await seen('read-reservation', others), /Key=0xa1[\s\S]*Write Exclusive/, 'after kill -9');
    t.not(await write(others), 0);
    t.equal(await write(mine), 0);

    await ok('--preempt --param-rk=0xb2 --param-sark=0xa1 --prout-type=1', others);
    t.equal(await write(others), 0);
    await rig.machine.attempt(`sg_turs ${mine}`);
    t.not(await write(mine), 0, 'who was preempted does not write');
    t.notMatch(await seen('read-keys', others), /0xa1/);
    await ok('--clear --param-rk=0xb2', others);
    t.equal(await write(mine), 0);
  });
  await initiator.logout(volume);
  await client.removeVolume('reserved', { purge: true });
});

t.test('the tools of sg3_utils understand what a LUN says, and what it refuses', limit, async (t) => {
  const volume = await rig.volume({ name: 'tools', sizeBytes: 16 * MiB });
  await initiator.login(volume);
  const disk = diskPath(volume);
  await rig.run(
    'cd /tmp; head -c 4096 /dev/urandom >page; head -c 512 page >sector; cat sector sector >pair',
  );
  const tools: [command: string, exitCode: number][] = [
    ['sg_inq --descriptors', 0],
    ['sg_vpd --all', 0],
    ['sg_readcap --16', 0],
    ['sg_modes --all', 0],
    ['sg_logs --all', 0],
    ['sg_opcodes --mask', 0],
    ['sg_opcodes --tmf --repd', 0],
    ['sg_luns --select=2', 0],
    ['sg_rtpg --decode --extended', 0],
    ['sg_persist --in --report-capabilities', 0],
    ['sg_copy_results --params', 0],
    ['sg_senddiag --test', 0],
    ['sg_requests', 0],
    ['sg_write_x --normal --16 --lba=0 --num=8 --in=/tmp/page', 0],
    ['sg_verify --16 --lba=0 --count=8 --ebytchk=1 --ndo=4096 --in=/tmp/page', 0],
    ['sg_verify --16 --lba=8 --count=8 --ebytchk=1 --ndo=4096 --in=/tmp/page', miscompare],
    ['sg_verify --lba=32767 --count=2', lbaOutOfRange],
    ['sg_compare_and_write --lba=0 --num=1 --xferlen=1024 --in=/tmp/pair', 0],
    ['sg_compare_and_write --lba=8 --num=1 --xferlen=1024 --in=/tmp/pair', miscompare],
    ['sg_write_x --atomic=0 --16 --lba=0 --num=8 --in=/tmp/page', 0],
    ['sg_write_verify --16 --lba=0 --num=1 --bytchk=1 --in=/tmp/sector', 0],
    ['sg_write_same --16 --lba=64 --num=64 --xferlen=512 --in=/tmp/sector', 0],
    ['sg_write_same --10 --unmap --lba=64 --num=64', 0],
    ['sg_unmap --force --lba=0,100 --num=8,16', 0],
    ['sg_unmap --force --anchor --lba=0 --num=8', illegalRequest],
    ['sg_get_lba_status --lba=0', 0],
    ['sg_sync --16', 0],
    ['sg_sanitize --quick --overwrite --zero', invalidOpcode],
    ['sg_format --quick --format', invalidOpcode],
  ];
  for (const [command, exitCode] of tools) {
    const answer = await rig.machine.attempt(`${command} ${disk}`);
    t.equal(
      answer.exitCode,
      exitCode,
      `${command}${answer.exitCode === exitCode ? '' : `: ${answer.output}`}`,
    );
    if (exitCode === 0) t.notMatch(answer.output, /failed|unsupported|truncated|too (long|short)/i, command);
  }
  await initiator.logout(volume);
  await client.removeVolume('tools', { purge: true });
});

t.test(
  'sg_xcopy copies within a LUN, to another and to another target, by sharing chunks',
  limit,
  async (t) => {
    const sizeBytes = 64 * MiB;
    const from = await rig.volume({ name: 'from', sizeBytes, chap: 'none', group: 'copies' });
    const beside = await rig.volume({ name: 'beside', sizeBytes, chap: 'none', group: 'copies' });
    const elsewhere = await rig.volume({ name: 'elsewhere', sizeBytes, chap: 'none' });
    await initiator.discover(portal);
    await initiator.loginToAllDiscovered();
    const disk = diskPath(from);
    const copiedMiB = 12;
    const dd = 'dd bs=1M conv=notrunc status=none';
    await rig.run(`${dd} if=/dev/urandom of=${disk} count=${copiedMiB} iflag=fullblock oflag=direct`);
    const contentOf = (path: string, skipMiB = 0) =>
      rig.run(`${dd} if=${path} skip=${skipMiB} count=${copiedMiB} iflag=direct | md5sum`);
    const content = await contentOf(disk);
    const copy = (arguments_: string) => rig.run(`sg_xcopy if=${disk} ${arguments_}`);
    const inSectors = (mebibytes: number) => (mebibytes * MiB) / 512;
    const stored = async () => {
      await drained(rig.weftd);
      const volumes = await client.volumes();
      return {
        ofVolumes: volumes.reduce((sum, volume) => sum + volume.usedBytes, 0),
        inSegments: (await client.status()).capacity.usedBytes,
      };
    };

    const before = await stored();
    t.equal(before.ofVolumes, copiedMiB * MiB);
    for (const target of [beside, elsewhere]) {
      await copy(`of=${diskPath(target)} count=${inSectors(copiedMiB)}`);
      t.equal(await contentOf(diskPath(target)), content, target.iqn);
    }
    await copy(`of=${disk} count=${inSectors(copiedMiB)} seek=${inSectors(32)}`);
    t.equal(await contentOf(disk, 32), content, 'within the LUN');
    const after = await stored();
    t.equal(after.ofVolumes, 4 * copiedMiB * MiB, 'each copy counts');
    t.ok(after.inSegments < before.inSegments + MiB, 'and is stored once');

    await rig.run(`${dd} if=/dev/zero of=${diskPath(beside)} count=1 oflag=direct`);
    t.not(await contentOf(diskPath(beside)), content);
    t.equal(await contentOf(disk), content, 'what is written to a copy is not in the others');
    // Sectors that lie otherwise in their chunks there, in segments that are no whole chunks.
    await copy(`of=${diskPath(elsewhere)} skip=3 count=1000 seek=40001 bpt=7`);
    await rig.run(`
    blockdev --flushbufs ${disk}
    blockdev --flushbufs ${diskPath(elsewhere)}
    cmp -n $((1000 * 512)) ${disk} ${diskPath(elsewhere)} $((3 * 512)) $((40001 * 512))`);
    const beyond = await rig.machine.attempt(
      `sg_xcopy if=${disk} of=${diskPath(elsewhere)} count=100 seek=${inSectors(64) - 99} list_id=9 id_usage=hold`,
    );
    t.equal(beyond.exitCode, copyAborted, beyond.output);
    const results = await rig.run(`sg_copy_results --status --list_id=9 ${diskPath(elsewhere)}`);
    t.match(results, /completed with errors/);

    await initiator.logoutOfAll();
    for (const { name } of await client.volumes()) await client.removeVolume(name, { purge: true });
  },
);

for (const type of ['ext4', 'xfs']) {
  t.test(
    `${type}: what fio wrote is there, fstrim gives its space back, and it grows in use`,
    limit,
    async (t) => {
      const volume = await rig.volume({ name: type, sizeBytes: 320 * MiB });
      await initiator.login(volume);
      const disk = diskPath(volume);
      await rig.run(`
      ${make(type)} ${disk}
      mkdir -p /mnt/${type}
      mount ${disk} /mnt/${type}
      mkdir /mnt/${type}/fio`);
      await rig.run(fio(type, `--directory=/mnt/${type}/fio`, { sizeMiB: 24, jobs: 2 }));
      t.pass('fio verified what it wrote');

      const storedBytes = (isEnough: (bytes: number) => boolean) =>
        eventually('the journal is drained', drainLimitMs, async () => {
          const bytes = (await client.volume(type)).usedBytes;
          const inJournal = (await client.status()).journal.usedBytes;
          // Of what is in the journal and in a chunk as well, both count: exact is what an empty journal leaves.
          if (inJournal <= journalFileHeaderBytes && isEnough(bytes)) return bytes;
          throw new Error(`used ${bytes}, of it in the journal ${inJournal}`);
        });
      // fio writes each block of its two files once, and the file system its own beside them.
      const fullBytes = await storedBytes((bytes) => bytes > 48 * MiB);
      t.ok(fullBytes < 52 * MiB, 'the zeros mkfs wrote take no room');
      await rig.run(`rm -r /mnt/${type}/fio; sync; fstrim /mnt/${type}`);
      // All of them but the chunks at their ends, which others may use, and what it logs of their going.
      const leftBytes = await storedBytes((bytes) => bytes < fullBytes - 47 * MiB);
      t.comment(`used ${fullBytes / MiB} MiB, after fstrim ${leftBytes / MiB} MiB`);

      const freeBytes = async () => Number(await rig.run(`df -B1 --output=avail /mnt/${type} | tail -n 1`));
      const before = await freeBytes();
      await client.updateVolume(type, { sizeBytes: 768 * MiB });
      await rig.run(`
      iscsiadm -m node -T ${volume.iqn} --rescan >/dev/null
      ${type === 'ext4' ? `resize2fs ${disk}` : `xfs_growfs /mnt/${type}`}`);
      t.equal(await rig.run(`blockdev --getsize64 ${disk}`), `${768 * MiB}\n`);
      t.ok((await freeBytes()) > before + 400 * MiB, 'the file system has the new space');
      await rig.run(
        `dd if=/dev/urandom of=/mnt/${type}/new bs=1M count=8 conv=fsync && md5sum /mnt/${type}/new`,
      );
      await rig.run(`umount /mnt/${type}; ${checker(type)} ${disk}`);
      await initiator.logout(volume);
      await client.removeVolume(type, { purge: true });
    },
  );
}

t.test('the kernel had nothing to complain of', limit, async (t) => {
  t.strictSame(await rig.kernelFaults(), []);
  t.equal(await initiator.sessionCount(), 0);
});

function fio(name: string, where: string, { sizeMiB = 32, jobs = 1 }): string {
  return `cd /tmp && fio --name=${name} ${where.startsWith('--') ? where : `--filename=$(readlink -f ${where})`} --size=${sizeMiB}m \
    --numjobs=${jobs} --rw=randwrite --bsrange=4k-256k --iodepth=16 --ioengine=libaio --direct=1 \
    --verify=crc32c --verify_fatal=1 --end_fsync=1`;
}

/**
 * Everything at once: ext4lazyinit would otherwise zero an inode table every five seconds for minutes after the mount,
 * so the journal, which is drained when nothing was written for as long, would never be empty.
 */
function make(type: string): string {
  return type === 'ext4' ? 'mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0' : 'mkfs.xfs -q';
}

function checker(type: string): string {
  return type === 'ext4' ? 'e2fsck -fn' : 'xfs_repair -n';
}
