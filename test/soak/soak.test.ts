/**
 * Two hours of a volume's life in fifteen minutes: while file systems on the kernel's initiator are written and
 * verified without a pause, weftd is killed every minute and restarted in good order, connections are cut, volumes
 * grow, space is given back, and sessions with and without digests, discards and reservations come and go beside it.
 * WEFT_SOAK_SECONDS says how long.
 */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { Attachment } from '../../daemon/api/schema.ts';
import { MiB } from '../../daemon/base/limits.ts';
import { eventually } from '../system/eventually.ts';
import { InitiatorRig } from '../vm/initiator-rig.ts';
import { digests, diskPath, type NodeSettings } from '../vm/kernel-initiator.ts';
import { VerifiedLoad } from '../vm/verified-load.ts';
import { guestPollMs } from '../vm/virtual-machine.ts';

const soakSeconds = Number(process.env['WEFT_SOAK_SECONDS'] ?? 900);
/** Every third event is a kill. */
const eventIntervalMs = 20_000;
const recoveryLimitMs = 150_000;
const drainLimitMs = 120_000;
const growthBytes = 16 * MiB;
/** fio's file, in each file system. */
const fileMiB = 8;
/** Of other tests' work on this machine nothing shall be lost to it. */
const rateMiB = 1;
const patient: NodeSettings = {
  'node.session.timeo.replacement_timeout': '300',
  'node.conn[0].timeo.noop_out_interval': '10',
  'node.conn[0].timeo.noop_out_timeout': '30',
};
const types = ['ext4', 'xfs'] as const;

interface Loaded {
  type: (typeof types)[number];
  volume: Attachment;
  load: VerifiedLoad;
  sizeBytes: number;
}

t.test(`${soakSeconds} s of everything that happens to volumes in use`, { timeout: 0 }, async (t) => {
  const rig = await InitiatorRig.start(t, { name: 'soak', memoryMiB: 640 });
  const soak = new Soak(t, rig);
  await soak.begin();
  const endMs = performance.now() + soakSeconds * 1000;
  for (let turn = 0; performance.now() < endMs; turn++) {
    const nextMs = performance.now() + eventIntervalMs;
    await soak.event(turn);
    await delay(Math.max(0, Math.min(nextMs, endMs) - performance.now()));
  }
  await soak.end();
});

class Soak {
  readonly #t: Test;
  readonly #rig: InitiatorRig;
  readonly #loaded: Loaded[] = [];
  readonly #counts = new Map<string, number>();
  /** Logged in to, used and logged out of in between. */
  #visited: Attachment | null = null;
  #visits = 0;

  constructor(t: Test, rig: InitiatorRig) {
    this.#t = t;
    this.#rig = rig;
  }

  async begin(): Promise<void> {
    const rig = this.#rig;
    for (const type of types) {
      const sizeBytes = 320 * MiB;
      const volume = await rig.volume({ name: type, sizeBytes });
      await rig.initiator.login(volume, { ...patient, ...(type === 'xfs' ? digests : {}) });
      await rig.run(
        `mkfs.${type} -q ${diskPath(volume)}; mkdir -p /mnt/${type}; mount ${diskPath(volume)} /mnt/${type}`,
      );
      const load = await VerifiedLoad.start(rig.machine, `/mnt/${type}`, {
        sizeMiB: fileMiB,
        rateMiB,
        depth: 8,
      });
      this.#loaded.push({ type, volume, load, sizeBytes });
    }
    this.#visited = await rig.volume({ name: 'visited', sizeBytes: 64 * MiB });
  }

  async event(turn: number): Promise<void> {
    const others = [
      ['visit', () => this.#visit()],
      ['grow', () => this.#grow(turn)],
      ['restart', () => this.#restart()],
      ['trim', () => this.#trim()],
      ['cut', () => this.#cut()],
    ] as const;
    const [name, happen] =
      turn % 3 === 0 ? (['kill', () => this.#kill()] as const) : others[(turn - Math.ceil(turn / 3)) % 5]!;
    const beganMs = performance.now();
    await happen();
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    this.#t.comment(`${name}: ${((performance.now() - beganMs) / 1000).toFixed(1)} s`);
  }

  async end(): Promise<void> {
    const [t, rig] = [this.#t, this.#rig];
    t.comment([...this.#counts].map(([name, count]) => `${name} ${count}`).join(', '));
    for (const { type, volume, load } of this.#loaded) {
      const { rounds, records } = await load.stop();
      t.ok(records > 0, `${type}: ${rounds} rounds of fio verified, ${records} flushed records there`);
      await rig.run(`umount /mnt/${type}
        ${type === 'ext4' ? 'e2fsck -fn' : 'xfs_repair -n'} ${diskPath(volume)} 2>&1`);
      t.pass(`${type} is clean`);
      await rig.initiator.logout(volume);
    }
    t.equal(await rig.initiator.sessionCount(), 0);
    t.strictSame(await rig.kernelFaults(), [], 'the kernel had nothing to complain of');
    await eventually('the journal is drained', drainLimitMs, async () => {
      return (await rig.client.status()).journal.usedBytes <= 4096;
    });
    for (const { type } of this.#loaded) {
      const { usedBytes, sessions } = await rig.client.volume(type);
      t.ok(
        usedBytes >= fileMiB * MiB && usedBytes < (fileMiB + 128) * MiB,
        `${type} takes ${usedBytes / MiB} MiB`,
      );
      t.strictSame(sessions, []);
    }
    t.ok(await rig.weftd.shutDown());
  }

  async #kill(): Promise<void> {
    await this.#outage(async () => {
      await this.#rig.weftd.kill9();
      await this.#rig.weftd.startAgain();
    });
  }

  async #restart(): Promise<void> {
    await this.#outage(async () => {
      if (!(await this.#rig.weftd.shutDown())) throw new Error('weftd did not end by itself');
      await this.#rig.weftd.startAgain();
    });
  }

  /** What a firewall or a cable does. */
  async #cut(): Promise<void> {
    const port = this.#rig.portals[0]?.split(':')[1];
    await this.#outage(async () => {
      await this.#rig.run(`iptables -A OUTPUT -p tcp --dport ${port} -j REJECT --reject-with tcp-reset
        sleep 5
        iptables -D OUTPUT -p tcp --dport ${port} -j REJECT --reject-with tcp-reset`);
    });
  }

  async #outage(happen: () => Promise<void>): Promise<void> {
    await this.#rig.disturbed(async () => {
      await happen();
      const loggedIn = async () => {
        const states = await this.#rig.initiator.states();
        return states['LOGGED_IN'] === types.length && Object.keys(states).length === 1;
      };
      await eventually('the sessions are back', recoveryLimitMs, loggedIn, guestPollMs);
      // Commands that were under way are sent again now.
      await this.#rig.run('sync', { limitSeconds: recoveryLimitMs / 1000 });
    });
  }

  async #grow(turn: number): Promise<void> {
    const loaded = this.#loaded[turn % types.length]!;
    loaded.sizeBytes += growthBytes;
    await this.#rig.client.updateVolume(loaded.type, { sizeBytes: loaded.sizeBytes });
    const disk = diskPath(loaded.volume);
    await this.#rig.run(`iscsiadm -m node -T ${loaded.volume.iqn} --rescan >/dev/null
      [ "$(blockdev --getsize64 ${disk})" = ${loaded.sizeBytes} ]
      ${loaded.type === 'ext4' ? `resize2fs ${disk}` : `xfs_growfs /mnt/xfs`}`);
  }

  async #trim(): Promise<void> {
    for (const { type } of this.#loaded) await this.#rig.run(`fstrim /mnt/${type}`);
  }

  /** A session of its own, every other with digests: data, discards, a reservation. */
  async #visit(): Promise<void> {
    const { initiator } = this.#rig;
    const volume = this.#visited!;
    await initiator.login(volume, { ...patient, ...(this.#visits++ % 2 === 1 ? digests : {}) });
    await this.#rig.run(`
      disk=$(readlink -f ${diskPath(volume)})
      cd /tmp
      sg_persist --out --register --param-sark=0x5 $disk >/dev/null
      sg_persist --out --reserve --param-rk=0x5 --prout-type=1 $disk >/dev/null
      fio --name=visit --filename=$disk --size=8m --rw=randwrite --bsrange=4k-128k --iodepth=8 --direct=1 \
        --ioengine=libaio --verify=crc32c --verify_fatal=1 --randseed=${this.#visits} >/tmp/visit.log ||
        { cat /tmp/visit.log; exit 1; }
      blkdiscard --offset 0 --length 8MiB $disk
      cmp --bytes=8388608 $disk /dev/zero
      sg_persist --out --release --param-rk=0x5 --prout-type=1 $disk >/dev/null
      sg_persist --out --clear --param-rk=0x5 $disk >/dev/null`);
    await initiator.logout(volume);
  }
}
