/** The Linux kernel's initiator keeps its disks while weftd is killed, started again, or one of two paths is cut. */
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { eventually } from '../system/eventually.ts';
import { InitiatorRig } from './initiator-rig.ts';
import { digests, diskPath, type NodeSettings } from './kernel-initiator.ts';
import { VerifiedLoad } from './verified-load.ts';
import { guestPollMs } from './virtual-machine.ts';

const limit = { timeout: 1_200_000 };
const recoveryLimitMs = 240_000;
/** Longer than anything here takes: I/O waits, and never fails. */
const keepTrying: NodeSettings = { 'node.session.timeo.replacement_timeout': '300' };
/** A path is given up soon where there is another. */
const failOver: NodeSettings = {
  'node.session.timeo.replacement_timeout': '5',
  'node.conn[0].timeo.noop_out_interval': '2',
  'node.conn[0].timeo.noop_out_timeout': '3',
};

const rig = await InitiatorRig.start(t, { name: 'recovery', portalCount: 2 });
const { client, initiator, machine, weftd } = rig;

function sessionsBack(count: number): Promise<unknown> {
  const loggedIn = async () => {
    const states = await initiator.states();
    return states.LOGGED_IN === count && Object.keys(states).length === 1;
  };
  return eventually(`${count} sessions are logged in`, recoveryLimitMs, loggedIn, guestPollMs);
}

/** As the daemon sees them: asked by itself, `multipath -ll` would wait for a path that does not answer. */
async function activePaths(): Promise<number> {
  const states = await rig.run(`multipathd show paths raw format '%t'`);
  return states.split('\n').filter((state) => state.trim() === 'active').length;
}

function pathsBecome(count: number): Promise<unknown> {
  const become = async () => (await activePaths()) === count;
  return eventually(`${count} paths are active`, recoveryLimitMs, become, guestPollMs);
}

t.test('kill -9 of weftd, an outage and a restart under I/O cost nothing', limit, async (t) => {
  const loads: { type: string; disk: string; load: VerifiedLoad; iqn: string }[] = [];
  for (const type of ['ext4', 'xfs']) {
    const volume = await rig.volume({ name: type, sizeBytes: 320 * MiB });
    const target = { ...volume, portals: volume.portals.slice(0, 1) };
    await initiator.login(target, { ...keepTrying, ...(type === 'xfs' ? digests : {}) });
    const disk = diskPath(target);
    await rig.run(`mkfs.${type} -q ${disk}; mkdir -p /mnt/${type}; mount ${disk} /mnt/${type}`);
    const load = await VerifiedLoad.start(machine, `/mnt/${type}`, { sizeMiB: 16, rateMiB: 4 });
    loads.push({ type, disk, load, iqn: volume.iqn });
  }
  for (const { load } of loads) await load.progress(recoveryLimitMs);

  for (const downMs of [0, 0, 15_000]) {
    await rig.disturbed(async () => {
      await weftd.kill9();
      const killedMs = performance.now();
      await new Promise((done) => setTimeout(done, downMs));
      await weftd.startAgain();
      await sessionsBack(2);
      t.comment(`down for ${downMs / 1000} s: sessions back after ${seconds(killedMs)} s`);
      for (const { load } of loads) await load.progress(recoveryLimitMs);
    });
  }
  t.pass('recovered from kill -9');

  await rig.disturbed(async () => {
    const askedMs = performance.now();
    t.ok(await weftd.shutDown(), 'weftd ends by itself, though initiators are busy');
    await weftd.startAgain();
    await sessionsBack(2);
    t.comment(`restarted in good order: sessions back after ${seconds(askedMs)} s`);
    for (const { load } of loads) await load.progress(recoveryLimitMs);
  });

  for (const { type, disk, load, iqn } of loads) {
    const { rounds, records } = await load.stop();
    t.ok(records > 0, `${type}: ${rounds} rounds of fio verified, ${records} records kept`);
    await rig.run(`umount /mnt/${type}; ${type === 'ext4' ? 'e2fsck -fn' : 'xfs_repair -n'} ${disk}`);
    await initiator.logout({ iqn });
    await client.removeVolume(type, { purge: true });
  }
});

t.test('multipath: a disk has a path over each portal, and outlives the loss of one', limit, async (t) => {
  await rig.run(`
    modprobe dm_multipath
    cat >/etc/multipath.conf <<'END'
defaults {
    user_friendly_names no
    find_multipaths no
    polling_interval 2
}
blacklist {
    devnode "^vd"
}
devices {
    device {
        vendor "WEFT"
        product "Volume"
        path_grouping_policy multibus
        path_selector "service-time 0"
        path_checker tur
        prio alua
        hardware_handler "0"
        failback immediate
        no_path_retry 60
    }
}
END
    multipathd`);
  const volume = await rig.volume({ name: 'paths', sizeBytes: 128 * MiB });
  t.equal(volume.portals.length, 2);
  await initiator.login(volume, failOver);
  await pathsBecome(2);
  const listed = await rig.run('multipath -ll 2>&1');
  t.comment(listed);
  const name = /^(\S+) dm-/m.exec(listed)?.[1];
  const disk = `/dev/mapper/${name}`;
  await rig.run(`mkfs.ext4 -q ${disk}; mkdir -p /mnt/paths; mount ${disk} /mnt/paths`);
  const load = await VerifiedLoad.start(machine, '/mnt/paths', { sizeMiB: 16, rateMiB: 4 });
  await load.progress(recoveryLimitMs);
  for (const portal of volume.portals) {
    const port = portal.split(':')[1];
    await rig.disturbed(async () => {
      await rig.run(`iptables -A OUTPUT -p tcp --dport ${port} -j DROP`);
      await pathsBecome(1);
      await load.progress(recoveryLimitMs);
      await rig.run(`iptables -D OUTPUT -p tcp --dport ${port} -j DROP`);
      await pathsBecome(2);
      await sessionsBack(2);
    }, 'pathCut');
    t.pass(`without ${portal}`);
  }
  const { rounds, records } = await load.stop();
  t.ok(records > 0, `${rounds} rounds of fio verified, ${records} records kept`);
  await rig.run(`umount /mnt/paths; e2fsck -fn ${disk}; multipath -f ${name}`);
  await initiator.logout(volume);
});

t.test('the kernel had nothing to complain of', limit, async (t) => {
  t.strictSame(await rig.kernelFaults(), []);
  t.equal(await initiator.sessionCount(), 0);
});

function seconds(sinceMs: number): string {
  return ((performance.now() - sinceMs) / 1000).toFixed(1);
}
