/** A portal on loopback with one target of memory, and what tests need around it. */
import type { Test } from 'tap';
import { type Clock, systemClock, type Timer } from '../../daemon/env/clock.ts';
import { systemNetwork } from '../../daemon/env/network.ts';
import { systemRandom } from '../../daemon/env/random.ts';
import { Portal, type PortalEnvironment } from '../../daemon/iscsi/portal.ts';
import type { TargetDirectory, TargetEntry } from '../../daemon/iscsi/target-directory.ts';
import { toldPortals } from '../../daemon/told-portals.ts';
import { Initiator } from './initiator.ts';
import { MemoryDevice } from './memory-device.ts';

export const iqn = 'iqn.2026-11.io.weft:volume-1';

export interface Fixture {
  portal: Portal;
  /** Of the first portal. */
  port: number;
  device: MemoryDevice;
  /** At the portal of that tag. */
  connect(portalGroupTag?: number, from?: string): Promise<Initiator>;
  /** Logged in to the target. */
  session(options?: Parameters<Initiator['login']>[1], name?: string): Promise<Initiator>;
}

export async function openPortal(
  t: Test,
  entry: Partial<TargetEntry> = {},
  { told, ...environment }: Partial<PortalEnvironment> & { told?: 'all' } = {},
  portals = 1,
): Promise<Fixture> {
  const device = new MemoryDevice();
  const target: TargetEntry = { iqn, device, chap: null, lists: () => true, admit: () => null, ...entry };
  const directory = {
    find: (name: string) => (name === iqn ? target : null),
    list: (): ReturnType<TargetDirectory['list']> => [
      {
        iqn,
        portals: told === 'all' ? toldPortals(portal.listensAt, [], {}) : [],
      },
      {
        iqn: 'iqn.2026-11.io.weft:volume-2',
        portals: [
          { address: '10.0.0.1:3260', groupTag: 1 },
          { address: '[fe80::1]:3260', groupTag: 2 },
        ],
      },
    ],
  };
  const portal: Portal = await Portal.open(
    { network: systemNetwork, clock: systemClock, random: systemRandom, directory, ...environment },
    Array.from({ length: portals }, () => ({ host: '127.0.0.1', port: 0 })),
  );
  const port = portal.listensAt[0]!.port;
  const initiators: Initiator[] = [];
  t.teardown(async () => {
    device.flow();
    for (const initiator of initiators) initiator.close();
    await portal.close({ drainMs: 0 });
  });
  const open = async (portalGroupTag = 1, from?: string) => {
    const initiator = await Initiator.connect(portal.listensAt[portalGroupTag - 1]!.port, from);
    initiators.push(initiator);
    return initiator;
  };
  return {
    portal,
    port,
    device,
    connect: open,
    session: async (options = {}, name) => {
      const initiator = await open();
      if (name !== undefined) initiator.name = name;
      const status = await initiator.login(iqn, options);
      if (status !== 0) throw new Error(`login status ${status.toString(16)}`);
      return initiator;
    },
  };
}

/** Waits for a condition, looking at it once per turn of the event loop. */
export async function until(holds: () => boolean, what = 'a condition'): Promise<void> {
  const endMs = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`waited too long for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Time that passes when the test says so. */
export class ManualClock implements Clock {
  private time = 1_800_000_000_000;
  private timers: { atMs: number; fire: () => void }[] = [];
  nowMs = () => this.time;
  monotonicMs = () => this.time;
  after(delayMs: number, fire: () => void): Timer {
    const timer = { atMs: this.time + delayMs, fire };
    this.timers.push(timer);
    return {
      cancel: () => {
        this.timers = this.timers.filter((other) => other !== timer);
      },
    };
  }
  pass(ms: number): void {
    const end = this.time + ms;
    for (;;) {
      const due = this.timers.filter(({ atMs }) => atMs <= end).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.time = Math.max(this.time, due.atMs);
      this.timers = this.timers.filter((other) => other !== due);
      due.fire();
    }
    this.time = end;
  }
}
