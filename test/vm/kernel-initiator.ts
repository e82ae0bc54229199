/** open-iscsi in the virtual machine, as an administrator uses it. */
import type { Attachment } from '../../daemon/api/schema.ts';
import type { Answer, VirtualMachine } from './virtual-machine.ts';

/** Settings of a node record, as in iscsid.conf(5). */
export type NodeSettings = Readonly<Record<string, string>>;

export const digests: NodeSettings = {
  'node.conn[0].iscsi.HeaderDigest': 'CRC32C',
  'node.conn[0].iscsi.DataDigest': 'CRC32C',
};

/** A bad login is answered at once instead of being tried for minutes. */
const patience: NodeSettings = { 'node.session.initial_login_retry_max': '1' };

export interface SeenDisk {
  path: string;
  sizeBytes: number;
  /** Its names in /dev/disk/by-id, sorted. */
  ids: string[];
}

export class KernelInitiator {
  readonly #machine: VirtualMachine;

  constructor(machine: VirtualMachine) {
    this.#machine = machine;
  }

  /** `PORTAL,TAG IQN` of everything it is shown, which it remembers. */
  async discover(portal: string): Promise<string[]> {
    const output = await this.#machine.run(`iscsiadm -m discovery -t sendtargets -p ${portal}`);
    return output.split('\n').filter(Boolean).sort();
  }

  async loginToAllDiscovered(): Promise<void> {
    await this.#machine.run('iscsiadm -m node --login >/dev/null; udevadm settle');
  }

  async logoutOfAll(): Promise<void> {
    await this.#machine.run('iscsiadm -m node --logout >/dev/null; udevadm settle');
    await this.forgetAll();
  }

  async forgetAll(): Promise<void> {
    await this.#machine.run('iscsiadm -m node -o delete');
  }

  /** Another name of this initiator, for the `iface` of a login. */
  async addInterface(name: string, initiatorName: string): Promise<void> {
    const command = `iscsiadm -m iface -I ${name}`;
    await this.#machine.run(`
      ${command} -o new >/dev/null
      ${command} -o update -n iface.initiatorname -v ${initiatorName} >/dev/null`);
  }

  /** Logs in through every portal and waits for udev to have named the disks. */
  async login(target: Attachment, settings: NodeSettings = {}, iface = 'default'): Promise<void> {
    const { exitCode, output } = await this.tryLogin(target, settings, iface);
    if (exitCode !== 0) throw new Error(`login to ${target.iqn}: ${output}`);
  }

  async tryLogin(target: Attachment, settings: NodeSettings = {}, iface = 'default'): Promise<Answer> {
    const all = Object.entries({ ...patience, ...credentials(target), ...settings });
    const values = all.map(([name, value]) => `-n '${name}' -v '${value}'`);
    const commands = target.portals.flatMap((portal) => {
      const record = `iscsiadm -m node -T ${target.iqn} -p ${portal} -I ${iface}`;
      return [
        // What an earlier login was told shall not be left in it.
        `${record} -o delete 2>/dev/null || true`,
        `${record} -o new >/dev/null`,
        `${record} -o update ${values.join(' ')}`,
        `${record} --login >/dev/null`,
      ];
    });
    return this.#machine.attempt([...commands, 'udevadm settle'].join('\n'));
  }

  /** Ends its sessions and forgets it. */
  async logout(target: { iqn: string }): Promise<void> {
    await this.#machine.run(`
      iscsiadm -m node -T ${target.iqn} --logout >/dev/null
      iscsiadm -m node -T ${target.iqn} -o delete
      udevadm settle`);
  }

  /** What was told to the target and what it agreed to, and the state of everything. */
  async session(target: { iqn: string }): Promise<string> {
    const output = await this.#machine.run('iscsiadm -m session -P 3');
    const sessions = output.split(/^(?=Target: )/m);
    return sessions.find((text) => text.startsWith(`Target: ${target.iqn} `)) ?? '';
  }

  async sessionCount(): Promise<number> {
    const output = await this.#machine.run('iscsiadm -m session 2>&1 || [ $? = 21 ]');
    return output.split('\n').filter((line) => line.startsWith('tcp:')).length;
  }

  /** All disks that came over iSCSI, by their path. */
  async disks(): Promise<SeenDisk[]> {
    const output = await this.#machine.run(`
      find /dev/disk/by-* -type l -printf '%p %l\n'
      lsblk --nodeps --bytes --noheadings -o NAME,SIZE`);
    const rows = output
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/) as [string, string]);
    const links = rows.map(([link, place]) => ({ link, disk: place.replace('../../', '') }));
    return links
      .filter(({ link }) => link.includes('-iscsi-'))
      .map(({ link, disk }) => ({
        path: link,
        sizeBytes: Number(rows.find(([name]) => name === disk)?.[1]),
        ids: links
          .filter((other) => other.disk === disk && other.link.startsWith('/dev/disk/by-id/'))
          .map((other) => other.link.slice('/dev/disk/by-id/'.length))
          .sort(),
      }))
      .sort((one, other) => (one.path < other.path ? -1 : 1));
  }

  /** The disk of one session, where several initiators are logged in to the same target. */
  async diskOf(target: { iqn: string }, initiatorName: string): Promise<string> {
    const name = await this.#machine.run(`
      for session in /sys/class/iscsi_session/session*; do
        [ "$(cat $session/targetname)" = ${target.iqn} ] || continue
        [ "$(cat $session/initiatorname)" = ${initiatorName} ] || continue
        ls $session/device/target*/*/block
      done`);
    return `/dev/${name.trim()}`;
  }

  /** How many sessions are in each state. */
  async states(): Promise<Record<string, number>> {
    const output = await this.#machine.run('cat /sys/class/iscsi_session/*/state 2>/dev/null || true');
    const states: Record<string, number> = {};
    for (const state of output.split('\n').filter(Boolean)) states[state] = (states[state] ?? 0) + 1;
    return states;
  }
}

/** The name of a LUN's disk that is the same at every login. */
export function diskPath(target: Attachment, portal = target.portals[0]): string {
  return `/dev/disk/by-path/ip-${portal}-iscsi-${target.iqn}-lun-${target.lun}`;
}

function credentials({ chap, mutualChap }: Attachment): NodeSettings {
  if (chap === null) return {};
  return {
    'node.session.auth.authmethod': 'CHAP',
    'node.session.auth.username': chap.user,
    'node.session.auth.password': chap.secret,
    ...(mutualChap === null
      ? {}
      : {
          'node.session.auth.username_in': mutualChap.user,
          'node.session.auth.password_in': mutualChap.secret,
        }),
  };
}
