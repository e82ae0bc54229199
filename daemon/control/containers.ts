/** Storage containers: named policies for volumes, with a quota. */
import { WeftError } from '../base/errors.ts';
import { defaultChunkSizeBytes } from '../base/limits.ts';
import { formatSize } from '../base/size.ts';
import type { CatalogCore } from './catalog.ts';
import type { Change } from './change.ts';
import type { ContainerRecord } from './documents.ts';

/** What may change of a container while it has volumes. */
export interface ContainerChange {
  durability?: 'flush' | 'sync' | undefined;
  quotaBytes?: number | null | undefined;
  trashRetentionSeconds?: number | undefined;
}

export interface NewContainer extends ContainerChange {
  name: string;
  chunkSizeBytes?: number | undefined;
}

/** What a new fabric starts with, and what volumes go to that name none. */
export const defaultContainer = 'default';
/** A day: long enough to notice, short enough that the space comes back. */
const defaultTrashRetentionSeconds = 86_400;
/** Every one of them is held in memory. */
const maxContainers = 1_000;

export class Containers {
  readonly #core: CatalogCore;

  constructor(core: CatalogCore) {
    this.#core = core;
  }

  list(): ContainerRecord[] {
    return this.#core.containers.values().sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws WeftError NOT_FOUND. */
  find(name: string): ContainerRecord {
    const found = this.#core.containers.get(name);
    if (found === undefined) throw containerNotFound(name);
    return found;
  }

  /** @throws WeftError ALREADY_EXISTS. */
  create(wanted: NewContainer): Promise<ContainerRecord> {
    const { containers } = this.#core;
    return this.#core.change((change) => {
      if (change.read(containers, wanted.name) !== undefined) {
        throw new WeftError('ALREADY_EXISTS', `there is a container ${wanted.name} already`);
      }
      if (containers.size >= maxContainers) {
        throw new WeftError('UNSUPPORTED', `a fabric has at most ${maxContainers} containers`);
      }
      const container: ContainerRecord = {
        schemaVersion: 1,
        name: wanted.name,
        chunkSizeBytes: wanted.chunkSizeBytes ?? defaultChunkSizeBytes,
        replicationFactor: 1,
        durability: wanted.durability ?? 'flush',
        quotaBytes: wanted.quotaBytes ?? null,
        trashRetentionSeconds: wanted.trashRetentionSeconds ?? defaultTrashRetentionSeconds,
        createdAt: this.#core.nowIso(),
        volumeCount: 0,
        provisionedBytes: 0,
      };
      change.put(containers, wanted.name, container);
      return container;
    });
  }

  /**
   * For volumes that are made, and removed, from now on; what is undefined stays. A quota below what is provisioned
   * takes nothing away.
   * @throws WeftError NOT_FOUND.
   */
  update(name: string, wanted: ContainerChange): Promise<ContainerRecord> {
    const { containers } = this.#core;
    return this.#core.change((change) => {
      const before = change.read(containers, name);
      if (before === undefined) throw containerNotFound(name);
      const after: ContainerRecord = {
        ...before,
        durability: wanted.durability ?? before.durability,
        quotaBytes: wanted.quotaBytes === undefined ? before.quotaBytes : wanted.quotaBytes,
        trashRetentionSeconds: wanted.trashRetentionSeconds ?? before.trashRetentionSeconds,
      };
      change.put(containers, name, after);
      return after;
    });
  }

  /** @throws WeftError NOT_FOUND; IN_USE while it has volumes. */
  remove(name: string): Promise<void> {
    const { containers } = this.#core;
    return this.#core.change((change) => {
      const container = change.read(containers, name);
      if (container === undefined) throw containerNotFound(name);
      if (container.volumeCount > 0) {
        throw new WeftError(
          'IN_USE',
          `container ${name} has volumes (${container.volumeCount}, those in the trash included); remove and purge them first`,
          { details: { volumes: container.volumeCount } },
        );
      }
      change.remove(containers, name);
    });
  }

  /** On a fabric without any container. */
  async ensureDefault(): Promise<void> {
    if (this.#core.containers.size === 0) await this.create({ name: defaultContainer });
  }
}

/**
 * Books a change of a container's volumes, as part of `change`.
 * @throws WeftError NOT_FOUND; NO_SPACE when it exceeds the quota.
 */
export function bookContainer(
  core: CatalogCore,
  change: Change,
  name: string,
  by: { volumes: number; bytes: number },
): ContainerRecord {
  const container = change.read(core.containers, name);
  if (container === undefined) throw containerNotFound(name);
  const provisionedBytes = container.provisionedBytes + by.bytes;
  if (by.bytes > 0 && container.quotaBytes !== null && provisionedBytes > container.quotaBytes) {
    const leftBytes = Math.max(0, container.quotaBytes - container.provisionedBytes);
    throw new WeftError(
      'NO_SPACE',
      `container ${name} has a quota of ${formatSize(container.quotaBytes)} with ${formatSize(leftBytes)} left, ` +
        `and ${formatSize(by.bytes)} are wanted; the trash counts too`,
      { details: { quotaBytes: container.quotaBytes, leftBytes } },
    );
  }
  change.put(core.containers, name, {
    ...container,
    provisionedBytes,
    volumeCount: container.volumeCount + by.volumes,
  });
  return container;
}

function containerNotFound(name: string): WeftError {
  return new WeftError(
    'NOT_FOUND',
    `there is no container ${name}; "weft container ls" shows those there are`,
  );
}
