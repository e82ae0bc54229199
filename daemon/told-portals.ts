/** The portals initiators are told of, in discovery and in the API, and the portal group of each. */
import type { HostPort } from './config.ts';
import { type NetworkAddress, reachableHosts } from './env/network.ts';
import type { TargetPortal } from './iscsi/target-directory.ts';

/**
 * @param listensAt the listening addresses; the position of each, from 1, is its portal group tag.
 * @param advertised HOST:PORT; told instead, the first in place of the first listening address and so on. With one
 *   listening address there may be several of them, all leading to it; the configuration refuses any other number.
 *   An initiator that finds another tag at a portal than discovery told it gives up.
 */
export function toldPortals(
  listensAt: readonly HostPort[],
  advertised: readonly string[],
  interfaces: Readonly<Record<string, readonly NetworkAddress[] | undefined>>,
): TargetPortal[] {
  if (advertised.length > 0) {
    const isOne = listensAt.length === 1;
    return advertised.map((address, index) => ({ address, groupTag: isOne ? 1 : index + 1 }));
  }
  return listensAt.flatMap(({ host, port }, index) =>
    reachableHosts(host, interfaces).map((reached) => {
      const address = `${reached.includes(':') ? `[${reached}]` : reached}:${port}`;
      return { address, groupTag: index + 1 };
    }),
  );
}
