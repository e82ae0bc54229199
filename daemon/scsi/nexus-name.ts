/**
 * The name of an I_T nexus in one string: the initiator port, then the target port it uses (RFC 7143 4.2.7).
 *
 *     iqn.2026-11.org.example:host-a,i,0x00023d000001,t,0x0001
 *     └──── initiator port: name, ",i,0x", ISID ─────┘      └ portal group tag, which is the relative target port
 */

/** The string that stands for this nexus wherever nexuses are told apart. */
export function nexusName(initiatorPort: string, targetPort: number): string {
  return `${initiatorPort},t,0x${targetPort.toString(16).padStart(4, '0')}`;
}

/** Its parts. A name without a target port is one of a target that has port 1 alone. */
export function nexusParts(nexus: string): { initiatorPort: string; targetPort: number } {
  const match = /^(.+),t,0x([0-9a-f]{1,4})$/i.exec(nexus);
  if (match === null) return { initiatorPort: nexus, targetPort: 1 };
  return { initiatorPort: match[1]!, targetPort: Number.parseInt(match[2]!, 16) };
}

/** The iSCSI name of the initiator of a nexus, or of an initiator port: what stands before the ISID. */
export function initiatorNameOf(nexus: string): string {
  const end = nexus.lastIndexOf(',i,0x');
  return end < 0 ? nexus : nexus.slice(0, end);
}
