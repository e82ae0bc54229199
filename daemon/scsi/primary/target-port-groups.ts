/**
 * Asymmetric logical unit access (SPC-4 5.16): the target port groups of a unit, and REPORT TARGET PORT GROUPS
 * (SPC-4 6.37). Access is implicit only: the fabric decides, so there is no SET TARGET PORT GROUPS.
 *
 *     A3h | PARAMETER DATA FORMAT E0h, 0Ah | - (4) | ALLOCATION LENGTH (4) | - | CONTROL
 */
import type { TargetFacts, Task } from '../task.ts';

/** SPC-4 table 310. */
const AccessState = { activeOptimized: 0x0, unavailable: 0x3 } as const;

interface TargetPortGroup {
  readonly group: number;
  readonly state: (typeof AccessState)[keyof typeof AccessState];
  readonly preferred: boolean;
  /** RELATIVE TARGET PORT IDENTIFIERs, in order. */
  readonly ports: readonly number[];
}

/** States a group may be in: U_SUP 08h, AO_SUP 01h. A node serves its volumes, or it is gone. */
const supportedStates = 0x08 | 0x01;
const preferredBit = 0x80;

/** The group of the node that serves the target, which all its portals are in. */
const servingGroup = 1;

/** The groups the target's ports form. A node is one group: what it reaches at all, it reaches by each portal alike. */
function targetPortGroups(target: TargetFacts): TargetPortGroup[] {
  return [
    { group: servingGroup, state: AccessState.activeOptimized, preferred: false, ports: target.ports() },
  ];
}

/** The group a port is in (VPD page 83h); null for a port that went away meanwhile. */
export function groupOfPort(target: TargetFacts, port: number): number | null {
  return targetPortGroups(target).find(({ ports }) => ports.includes(port))?.group ?? null;
}

export function reportTargetPortGroups(task: Task): void {
  const { cdb } = task;
  const extended = cdb[1]! >> 5 === 1;
  const groups = Buffer.concat(targetPortGroups(task.target).map(encodeGroup));
  // Extended: FORMAT TYPE 001b, IMPLICIT TRANSITION TIME not told, - (2).
  const header = Buffer.from(extended ? [0, 0, 0, 0, 0x10, 0, 0, 0] : [0, 0, 0, 0]);
  header.writeUInt32BE(header.length - 4 + groups.length, 0);
  task.parameterData(Buffer.concat([header, groups]), cdb.readUInt32BE(6));
}

/** PREF and state, supported states, GROUP (2), -, STATUS CODE (none), -, PORT COUNT; a port: - (2), identifier (2). */
function encodeGroup({ group, state, preferred, ports }: TargetPortGroup): Buffer {
  const bytes = Buffer.alloc(8 + 4 * ports.length);
  bytes[0] = (preferred ? preferredBit : 0) | state;
  bytes[1] = supportedStates;
  bytes.writeUInt16BE(group, 2);
  bytes[7] = ports.length;
  for (const [index, port] of ports.entries()) bytes.writeUInt16BE(port, 8 + 4 * index + 2);
  return bytes;
}
