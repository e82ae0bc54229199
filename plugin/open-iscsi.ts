/**
 * Attaches with the kernel's initiator through iscsiadm. Every call is bounded: an iscsid that hangs (one of the host
 * reached from a Docker container, say) must not hang the plugin.
 */
import { access, readdir, readFile, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { asWeftError, WeftError } from '../daemon/base/errors.ts';
import type { AttachEngine, AttachedDevice, AttachTarget } from './attach.ts';
import { runTool } from './run-tool.ts';

const toolTimeoutMs = 10_000;
const loginTimeoutMs = 15_000;
/** From the login's end to the disk's appearance. */
const diskTimeoutMs = 10_000;
const pollMs = 50;
/**
 * How long the kernel holds I/O back while it has no connection, before it fails it, in seconds. Failing makes a
 * filesystem read-only for good; a failover or a restart of weftd takes far less than this.
 */
const replacementTimeoutSeconds = 600;
/** iscsiadm(8): already logged in; no record, session or node found. */
const sessionExists = 15;
const nothingFound = 21;

export interface SessionLine {
  number: number;
  portal: string;
  iqn: string;
}

/** `iscsiadm -m session`: "tcp: [1] 127.0.0.1:3260,1 iqn.2026-11.io.weft:x (non-flash)". */
export function parseSessions(text: string): SessionLine[] {
  const sessions: SessionLine[] = [];
  for (const line of text.split('\n')) {
    const parts = /^\w+: \[(\d+)\] (\S+),\S* (\S+)/.exec(line);
    if (parts !== null) sessions.push({ number: Number(parts[1]), portal: parts[2]!, iqn: parts[3]! });
  }
  return sessions;
}

export class OpenIscsiEngine implements AttachEngine {
  readonly name = 'open-iscsi';
  readonly #sysfs: string;
  readonly #initiatorFile: string;

  constructor(places: { sysfs?: string; initiatorFile?: string } = {}) {
    this.#sysfs = places.sysfs ?? '/sys';
    this.#initiatorFile = places.initiatorFile ?? '/etc/iscsi/initiatorname.iscsi';
  }

  async probe(): Promise<void> {
    try {
      await runTool('iscsiadm', ['--version'], { timeoutMs: toolTimeoutMs });
      await access(join(this.#sysfs, 'class/iscsi_transport/tcp')).catch(async () => {
        await runTool('modprobe', ['iscsi_tcp'], { timeoutMs: toolTimeoutMs });
      });
      await this.initiator();
      await this.#sessions();
    } catch (cause) {
      throw new WeftError(
        'UNSUPPORTED',
        `the kernel's iSCSI initiator cannot be used here: ${asWeftError(cause).message}`,
        { cause },
      );
    }
  }

  async initiator(): Promise<string> {
    const text = await readFile(this.#initiatorFile, 'utf8');
    const name = /^InitiatorName=(\S+)$/m.exec(text)?.[1];
    if (name === undefined) {
      throw new WeftError(
        'UNSUPPORTED',
        `${this.#initiatorFile} names no initiator; write InitiatorName=iqn... there`,
      );
    }
    return name.toLowerCase();
  }

  async find(volume: { iqn: string }): Promise<AttachedDevice | null> {
    for (const session of await this.#sessions()) {
      if (session.iqn !== volume.iqn) continue;
      const disk = await this.#diskOf(session.number);
      if (disk !== null && disk.state !== 'offline')
        return { path: disk.path, key: `session${session.number}` };
    }
    return null;
  }

  async attach(target: AttachTarget): Promise<AttachedDevice> {
    const failures: string[] = [];
    for (const portal of target.portals) {
      try {
        await this.#login(portal, target);
        return await this.#waitForDisk(target);
      } catch (error) {
        failures.push(`${portal}: ${asWeftError(error).message}`);
        await this.detach(target);
      }
    }
    throw new WeftError(
      'UNAVAILABLE',
      `no portal lets this host log in to ${target.iqn}: ${failures.join('; ')}`,
    );
  }

  async detach(volume: { iqn: string }): Promise<void> {
    const node = ['--mode', 'node', '--targetname', volume.iqn];
    if ((await this.#sessions()).some((session) => session.iqn === volume.iqn)) {
      await runTool('iscsiadm', [...node, '--logout'], {
        accept: [0, nothingFound],
        timeoutMs: loginTimeoutMs,
      });
    }
    await runTool('iscsiadm', [...node, '--op', 'delete'], {
      accept: [0, nothingFound],
      timeoutMs: toolTimeoutMs,
    });
  }

  async devices(volume: { iqn: string }): Promise<string[]> {
    const paths: string[] = [];
    for (const session of await this.#sessions()) {
      const disk = session.iqn === volume.iqn ? await this.#diskOf(session.number) : null;
      if (disk !== null) paths.push(disk.path);
    }
    return paths;
  }

  /** Other software's sessions cannot be told from ours: what is ours, the records say. */
  async leftovers(): Promise<{ volumeId: string; iqn: string }[]> {
    return [];
  }

  async grow(volume: { iqn: string }): Promise<boolean> {
    await runTool('iscsiadm', ['--mode', 'node', '--targetname', volume.iqn, '--rescan'], {
      timeoutMs: toolTimeoutMs,
    });
    return true;
  }

  async #login(portal: string, target: AttachTarget): Promise<void> {
    const node = ['--mode', 'node', '--targetname', target.iqn, '--portal', portal];
    const run = (args: string[], timeoutMs = toolTimeoutMs, accept = [0]) =>
      runTool('iscsiadm', [...node, ...args], { timeoutMs, accept });
    const set = (name: string, value: string) => run(['--op', 'update', '--name', name, '--value', value]);

    // The record by hand: a discovery may name portals this host cannot reach.
    await run(['--op', 'new']);
    await set('node.startup', 'manual');
    await set('node.session.timeo.replacement_timeout', String(replacementTimeoutSeconds));
    await set('node.conn[0].timeo.noop_out_interval', '5');
    await set('node.conn[0].timeo.noop_out_timeout', '5');
    await set('node.session.initial_login_retry_max', '1');
    await set('node.session.auth.authmethod', target.chap === null ? 'None' : 'CHAP');
    if (target.chap !== null) {
      await set('node.session.auth.username', target.chap.user);
      await this.#setSecret(node, 'password', target.chap.secret);
    }
    if (target.mutualChap !== null) {
      await set('node.session.auth.username_in', target.mutualChap.user);
      await this.#setSecret(node, 'password_in', target.mutualChap.secret);
    }
    await run(['--login'], loginTimeoutMs, [0, sessionExists]);
  }

  /** iscsiadm takes it on its command line only; its failure must not repeat it in a message. */
  async #setSecret(node: string[], key: 'password' | 'password_in', secret: string): Promise<void> {
    const args = [...node, '--op', 'update', '--name', `node.session.auth.${key}`, '--value', secret];
    await runTool('iscsiadm', args, { timeoutMs: toolTimeoutMs }).catch((error) => {
      throw new WeftError(asWeftError(error).code, 'iscsiadm could not store the CHAP secret');
    });
  }

  async #waitForDisk(target: AttachTarget): Promise<AttachedDevice> {
    for (let waitedMs = 0; waitedMs < diskTimeoutMs; waitedMs += pollMs) {
      const device = await this.find(target);
      if (device !== null) return device;
      await delay(pollMs);
    }
    throw new WeftError('TIMEOUT', `logged in, but no disk appeared within ${diskTimeoutMs / 1000} s`);
  }

  async #sessions(): Promise<SessionLine[]> {
    const result = await runTool('iscsiadm', ['--mode', 'session'], {
      accept: [0, nothingFound],
      timeoutMs: toolTimeoutMs,
    });
    return parseSessions(result.stdout);
  }

  /** A volume has one LUN, so a session has one disk: /sys/class/iscsi_session/sessionN/device/targetH:C:T/H:C:T:L/block/sdX. */
  async #diskOf(session: number): Promise<{ path: string; state: string } | null> {
    const start = join(this.#sysfs, `class/iscsi_session/session${session}/device`);
    const directory = await realpath(start).catch(() => null);
    if (directory === null) return null;
    for (const target of (await readdir(directory)).filter((name) => name.startsWith('target'))) {
      for (const unit of await readdir(join(directory, target))) {
        const block = await readdir(join(directory, target, unit, 'block')).catch(() => []);
        if (block[0] === undefined) continue;
        const state = await readFile(join(directory, target, unit, 'state'), 'utf8').catch(() => 'offline');
        return { path: `/dev/${basename(block[0])}`, state: state.trim() };
      }
    }
    return null;
  }
}
