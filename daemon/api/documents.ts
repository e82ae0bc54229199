/** Records of the catalog as the API shows them. */
import type { Catalog } from '../control/catalog.ts';
import {
  type ContainerRecord,
  iqnOf,
  lunOf,
  type TokenRecord,
  type VolumeRecord,
} from '../control/documents.ts';
import type { Identity } from '../control/tokens.ts';
import { sees } from './access.ts';
import type { ApiServices } from './route.ts';
import type { Attachment, Container, TokenInfo, Volume, VolumeClaim } from './schema.ts';

export function volumeDocument({ catalog, node }: ApiServices, volume: VolumeRecord): Volume {
  const { host } = catalog;
  const { usedBytes, allocatedBytes } = host.usage(volume.volumeKey, volume.chunkSizeBytes);
  const online = volume.state === 'online';
  const claim = catalog.claims.live(volume);
  return {
    id: volume.id,
    name: volume.name,
    container: volume.container,
    sizeBytes: volume.sizeBytes,
    usedBytes,
    allocatedBytes,
    durability: volume.durability,
    chunkSizeBytes: volume.chunkSizeBytes,
    physicalBlockBytes: volume.physicalBlockBytes,
    state: online ? 'online' : 'trash',
    fault: online ? (catalog.volumes.fault(volume)?.message ?? null) : null,
    createdAt: volume.createdAt,
    createdBy: volume.createdBy,
    labels: volume.labels,
    filesystem: volume.filesystem,
    group: volume.group?.name ?? null,
    iqn: iqnOf(volume),
    lun: lunOf(volume),
    portals: host.portals(),
    authentication: volume.chap === null ? 'none' : volume.mutualChap === null ? 'chap' : 'mutual-chap',
    allowedInitiators: volume.allowedInitiators,
    claim: claim === null ? null : claimDocument(claim),
    sessions: online ? host.sessions(volume) : [],
    node: node.name,
    removedAt: volume.removedAt,
    purgeAt: volume.purgeAt,
  };
}

export function claimDocument(claim: {
  holder: string;
  initiator: string;
  epoch: number;
  lapsesAtMs: number;
}): VolumeClaim {
  const { holder, initiator, epoch, lapsesAtMs } = claim;
  return { holder, initiator, epoch, expiresAt: new Date(lapsesAtMs).toISOString() };
}

export function attachmentDocument({ catalog }: ApiServices, volume: VolumeRecord): Attachment {
  const credentials = catalog.volumes.credentials(volume);
  return { portals: catalog.host.portals(), iqn: iqnOf(volume), lun: lunOf(volume), ...credentials };
}

/** To a plugin, only its own volumes are counted. */
export function containerDocument(
  catalog: Catalog,
  identity: Identity,
  container: ContainerRecord,
): Container {
  const volumes = catalog.volumes.ofContainer(container.name).filter((volume) => sees(identity, volume));
  let usedBytes = 0;
  let provisionedBytes = 0;
  for (const volume of volumes) {
    usedBytes += catalog.host.usage(volume.volumeKey, volume.chunkSizeBytes).usedBytes;
    provisionedBytes += volume.sizeBytes;
  }
  return {
    name: container.name,
    chunkSizeBytes: container.chunkSizeBytes,
    replicationFactor: container.replicationFactor,
    durability: container.durability,
    quotaBytes: container.quotaBytes,
    trashRetentionSeconds: container.trashRetentionSeconds,
    createdAt: container.createdAt,
    volumeCount: volumes.length,
    provisionedBytes,
    usedBytes,
  };
}

export function tokenDocument({ name, role, createdAt }: TokenRecord): TokenInfo {
  return { name, role, createdAt };
}
