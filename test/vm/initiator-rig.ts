/** What the tests here start from: weftd on the host, a machine with the kernel's initiator, volumes between them. */
import type { Test } from 'tap';
import type { WeftClient } from '../../daemon/api/client.ts';
import type { Attachment, VolumeCreate } from '../../daemon/api/schema.ts';
import { startWeftd } from '../daemon/volume-rig.ts';
import { freePort, type WeftdProcess } from '../system/weftd-process.ts';
import { KernelInitiator } from './kernel-initiator.ts';
import { type Disturbance, faultsIn, marksOf } from './kernel-log.ts';
import { hostSeenFromGuest, type MachineOptions, VirtualMachine } from './virtual-machine.ts';

export class InitiatorRig {
  readonly weftd: WeftdProcess;
  readonly client: WeftClient;
  readonly machine: VirtualMachine;
  readonly initiator: KernelInitiator;
  /** As the machine reaches them. */
  readonly portals: string[];

  private constructor(
    weftd: WeftdProcess,
    client: WeftClient,
    machine: VirtualMachine,
    initiator: KernelInitiator,
    portals: string[],
  ) {
    this.weftd = weftd;
    this.client = client;
    this.machine = machine;
    this.initiator = initiator;
    this.portals = portals;
  }

  static async start(
    t: Test,
    options: MachineOptions & { portalCount?: number; flags?: string[] },
  ): Promise<InitiatorRig> {
    const ports: number[] = [];
    for (let portal = 0; portal < (options.portalCount ?? 1); portal++) ports.push(await freePort());
    const portals = ports.map((port) => `${hostSeenFromGuest}:${port}`);
    const weftd = await startWeftd(t, {
      iscsi: ports.map((port) => `127.0.0.1:${port}`).join(','),
      flags: ['--iscsi-advertise', portals.join(','), ...(options.flags ?? [])],
    });
    const machine = await VirtualMachine.boot(t, options);
    return new InitiatorRig(weftd, await weftd.client(), machine, new KernelInitiator(machine), portals);
  }

  /** Answers with what an initiator needs for it. */
  async volume(wanted: VolumeCreate): Promise<Attachment> {
    await this.client.createVolume(wanted);
    return this.client.attachment(wanted.name);
  }

  run(script: string, options?: { limitSeconds?: number }): Promise<string> {
    return this.machine.run(script, options);
  }

  /** Connections may break while `disturb` runs and until what it gives is over; data may not. */
  async disturbed<Result>(
    disturb: () => Promise<Result>,
    disturbance: Disturbance = 'disturbed',
  ): Promise<Result> {
    const marks = marksOf(disturbance);
    await this.machine.note(marks.begin);
    const result = await disturb();
    await this.machine.note(marks.end);
    return result;
  }

  /** What the machine's kernel complained of that it had no reason to. */
  async kernelFaults(): Promise<string[]> {
    // Everything it said so far is in its file when this is.
    await this.machine.note('weft-test: looked');
    return faultsIn(await this.machine.kernelMessages());
  }
}
