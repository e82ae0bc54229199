/** Volumes while they are online: found by name, created, grown, and what was made of them recorded. */
import { WeftError } from '../base/errors.ts';
import { maxVolumeSizeBytes, minVolumeSizeBytes, volumeSizeGranuleBytes } from '../base/limits.ts';
import { formatSize } from '../base/size.ts';
import type { Random } from '../env/random.ts';
import type { CatalogCore } from './catalog.ts';
import type { Change } from './change.ts';
import type { Claims } from './claims.ts';
import { bookContainer, defaultContainer } from './containers.ts';
import type { VolumeRecord } from './documents.ts';

export interface NewVolume {
  name: string;
  sizeBytes: number;
  container?: string | undefined;
  durability?: 'flush' | 'sync' | undefined;
  chap: 'auto' | 'none';
  group?: string | undefined;
  labels?: Record<string, string> | undefined;
  createdBy: string;
}

export interface VolumeChange {
  sizeBytes?: number | undefined;
  filesystem?: NonNullable<VolumeRecord['filesystem']> | undefined;
}

/** The trash included. Every one is a target with its map in memory. */
const maxVolumes = 10_000;
const volumeKeyCounter = 'volume-key';
/** What REPORT LUNS lists with peripheral addressing, which every initiator understands (SAM-5 4.7.7.2). */
const maxGroupVolumes = 256;

export class Volumes {
  readonly #core: CatalogCore;
  readonly #claims: Claims;

  constructor(core: CatalogCore, claims: Claims) {
    this.#core = core;
    this.#claims = claims;
  }

  /** Those online, by name. */
  list(): VolumeRecord[] {
    return this.#core.volumes
      .values()
      .filter((volume) => volume.state === 'online')
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** In whatever state, those being purged included. */
  ofContainer(container: string): VolumeRecord[] {
    return this.#core.volumes.values().filter((volume) => volume.container === container);
  }

  /** @throws WeftError NOT_FOUND. */
  find(name: string): VolumeRecord {
    const id = this.#core.volumeNames.get(name)?.id;
    const volume = id === undefined ? undefined : this.#core.volumes.get(id);
    if (volume === undefined) throw volumeNotFound(this.#core, name);
    return volume;
  }

  /** Why this initiator may not log in to the volume now; null when it may. */
  admit(volume: VolumeRecord, initiator: string): string | null {
    const now = this.#core.volumes.get(volume.id);
    if (now === undefined || now.state !== 'online') return `volume ${volume.name} is not online`;
    return this.#claims.refusal(now, initiator);
  }

  /** @throws WeftError ALREADY_EXISTS, NOT_FOUND (the container), NO_SPACE (its quota). */
  async create(wanted: NewVolume): Promise<VolumeRecord> {
    const id = uuid(this.#core.random);
    return this.#core.turns.take(id, async () => {
      const volume = await this.#core.change((change) => this.#planCreation(change, id, wanted));
      this.#core.host.serve(volume);
      return volume;
    });
  }

  #planCreation(change: Change, id: string, wanted: NewVolume): VolumeRecord {
    const core = this.#core;
    refuseTakenName(core, change, wanted.name);
    if (core.volumes.size >= maxVolumes) {
      throw new WeftError('UNSUPPORTED', `a fabric has at most ${maxVolumes} volumes, the trash included`);
    }
    const sizeBytes = roundedSize(wanted.sizeBytes);
    const container = bookContainer(core, change, wanted.container ?? defaultContainer, {
      volumes: 1,
      bytes: sizeBytes,
    });
    const volumeKey = change.read(core.counters, volumeKeyCounter)?.next ?? 1;
    change.put(core.counters, volumeKeyCounter, { schemaVersion: 1, next: volumeKey + 1 });
    const volume: VolumeRecord = {
      schemaVersion: 1,
      id,
      volumeKey,
      name: wanted.name,
      container: container.name,
      sizeBytes,
      durability: wanted.durability ?? container.durability,
      chunkSizeBytes: container.chunkSizeBytes,
      chap: wanted.chap === 'none' ? null : chapCredentials(core.random),
      labels: wanted.labels ?? {},
      ...this.#planGroup(change, wanted),
      filesystem: null,
      state: 'online',
      createdAt: core.nowIso(),
      createdBy: wanted.createdBy,
      removedAt: null,
      purgeAt: null,
      claim: null,
      epoch: 1,
    };
    change.put(core.volumes, id, volume);
    change.put(core.volumeNames, wanted.name, { schemaVersion: 1, id });
    return volume;
  }

  /** Which LUN it becomes in its group, and what it has in common with the others there. */
  #planGroup(change: Change, wanted: NewVolume): Pick<VolumeRecord, 'group'> & Partial<VolumeRecord> {
    const name = wanted.group;
    if (name === undefined) return { group: null };
    // A LUN in the trash stays taken: its volume may come back to it.
    const members = this.#core.volumes.values().filter((volume) => volume.group?.name === name);
    // Two that join at once shall not take the same.
    const joined = change.read(this.#core.counters, `group-${name}`)?.next ?? 1;
    change.put(this.#core.counters, `group-${name}`, { schemaVersion: 1, next: joined + 1 });
    const taken = new Set(members.map((volume) => volume.group?.lun));
    let lun = 0;
    while (taken.has(lun)) lun += 1;
    if (lun >= maxGroupVolumes) {
      throw new WeftError('UNSUPPORTED', `group ${name} has ${maxGroupVolumes} volumes, the trash included`);
    }
    const group = { name, lun };
    const first = members[0];
    if (first === undefined) return { group };
    if (first.createdBy !== wanted.createdBy) {
      throw new WeftError('FORBIDDEN', `group ${name} belongs to ${first.createdBy}; choose another name`);
    }
    if (wanted.chap === 'none' && first.chap !== null) {
      throw new WeftError(
        'INVALID_ARGUMENT',
        `the volumes of group ${name} have a CHAP secret in common; leave chap out`,
      );
    }
    return { group, chap: first.chap };
  }

  /**
   * Grows it, and records a filesystem; both or neither.
   * @throws WeftError NOT_FOUND; INVALID_ARGUMENT (smaller); CONFLICT (the filesystem's record); NO_SPACE (quota).
   */
  async update(name: string, wanted: VolumeChange): Promise<VolumeRecord> {
    const { id } = this.find(name);
    return this.#core.turns.take(id, async () => {
      const { before, after } = await this.#core.change((change) => {
        const before = readOnline(this.#core, change, id, name);
        const sizeBytes = grownSize(before, wanted.sizeBytes);
        const filesystem = nextFilesystem(before, wanted.filesystem);
        const grownBytes = sizeBytes - before.sizeBytes;
        if (grownBytes > 0)
          bookContainer(this.#core, change, before.container, { volumes: 0, bytes: grownBytes });
        const after: VolumeRecord = { ...before, sizeBytes, filesystem };
        change.put(this.#core.volumes, id, after);
        return { before, after };
      });
      if (after.sizeBytes !== before.sizeBytes) this.#core.host.resize(after);
      return after;
    });
  }
}

/** The online volume, as part of `change`. @throws WeftError NOT_FOUND when it went away meanwhile. */
export function readOnline(core: CatalogCore, change: Change, id: string, name: string): VolumeRecord {
  const volume = change.read(core.volumes, id);
  if (volume === undefined || volume.state !== 'online') throw volumeNotFound(core, name);
  return volume;
}

/** @throws WeftError ALREADY_EXISTS. */
export function refuseTakenName(core: CatalogCore, change: Change, name: string, hint = ''): void {
  if (change.read(core.volumeNames, name) === undefined) return;
  throw new WeftError('ALREADY_EXISTS', `there is a volume ${name} already${hint}`, { details: { name } });
}

function volumeNotFound(core: CatalogCore, name: string): WeftError {
  const inTrash = core.volumes.values().some((volume) => volume.name === name && volume.state === 'trash');
  const hint = inTrash ? `; one is in the trash: "weft volume restore ${name}" brings it back` : '';
  return new WeftError('NOT_FOUND', `there is no volume ${name}${hint}`, { details: { name } });
}

function roundedSize(sizeBytes: number): number {
  const rounded = Math.ceil(sizeBytes / volumeSizeGranuleBytes) * volumeSizeGranuleBytes;
  if (rounded >= minVolumeSizeBytes && rounded <= maxVolumeSizeBytes) return rounded;
  const range = `${formatSize(minVolumeSizeBytes)} to ${formatSize(maxVolumeSizeBytes)}`;
  throw new WeftError('INVALID_ARGUMENT', `a volume has ${range}, not ${sizeBytes} bytes`);
}

function grownSize(volume: VolumeRecord, wantedBytes: number | undefined): number {
  if (wantedBytes === undefined) return volume.sizeBytes;
  const sizeBytes = roundedSize(wantedBytes);
  if (sizeBytes >= volume.sizeBytes) return sizeBytes;
  throw new WeftError(
    'INVALID_ARGUMENT',
    `volume ${volume.name} has ${formatSize(volume.sizeBytes)} (${volume.sizeBytes} bytes) and can only grow; ` +
      'to shrink, copy its data to a new volume',
    { details: { sizeBytes: volume.sizeBytes } },
  );
}

/**
 * none -> making -> ready; making -> making (begun again); the same again changes nothing. Everything else would
 * take away the proof that a filesystem with data is not made over.
 */
function nextFilesystem(
  volume: VolumeRecord,
  wanted: VolumeChange['filesystem'],
): VolumeRecord['filesystem'] {
  const now = volume.filesystem;
  if (wanted === undefined) return now;
  const same = now !== null && now.type === wanted.type && now.uuid === wanted.uuid;
  const allowed =
    wanted.state === 'making'
      ? now === null || now.state === 'making'
      : same && (now.state === 'making' || now.state === 'ready');
  if (allowed) return wanted;
  const found = now === null ? 'no filesystem recorded' : `${now.type} ${now.uuid}, ${now.state}`;
  throw new WeftError(
    'CONFLICT',
    `volume ${volume.name} has ${found}; ${wanted.type} ${wanted.uuid}, ${wanted.state} cannot follow that`,
    { details: { filesystem: now } },
  );
}

/** RFC 7143 §9.2.1 wants CHAP secrets of at least 96 random bits; some initiators take 16 characters at most. */
function chapCredentials(random: Random): { user: string; secret: string } {
  return {
    user: `weft-${random.bytes(6).toString('hex')}`,
    secret: random.bytes(12).toString('base64url'),
  };
}

/** Version 4 (RFC 9562 §5.4). */
function uuid(random: Random): string {
  const bytes = random.bytes(16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
