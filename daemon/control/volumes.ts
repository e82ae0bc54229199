/** Volumes while they are online: found by name, created, grown, and what was made of them recorded. */
import { WeftError } from '../base/errors.ts';
import { maxVolumeSizeBytes, minVolumeSizeBytes, volumeSizeGranuleBytes } from '../base/limits.ts';
import { formatSize } from '../base/size.ts';
import type { Random } from '../env/random.ts';
import {
  isListed,
  nextAccess,
  openAccess,
  openCredentials,
  type TargetCredentials,
  type WantedAccess,
  type WantedCredentials,
} from './access.ts';
import type { CatalogCore } from './catalog.ts';
import type { Change } from './change.ts';
import type { Claims } from './claims.ts';
import { bookContainer, defaultContainer } from './containers.ts';
import { type VolumeRecord, volumeRecordVersion } from './documents.ts';
import { unitFault } from './unit-states.ts';

export interface NewVolume {
  name: string;
  sizeBytes: number;
  container?: string | undefined;
  durability?: 'flush' | 'sync' | undefined;
  physicalBlockBytes?: 512 | 4096 | undefined;
  chap: WantedCredentials;
  mutualChap?: WantedCredentials | undefined;
  allowedInitiators?: readonly string[] | undefined;
  group?: string | undefined;
  labels?: Record<string, string> | undefined;
  createdBy: string;
}

/** What is not given stays. */
export interface VolumeChange extends WantedAccess {
  sizeBytes?: number | undefined;
  filesystem?: NonNullable<VolumeRecord['filesystem']> | undefined;
  /** Sessions stay that logged in with credentials that are none any more. */
  keepSessions?: boolean | undefined;
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
    if (!isListed(now, initiator)) return `volume ${volume.name} does not list ${initiator}`;
    const fault = this.fault(now);
    if (fault !== null) return fault.message;
    return this.#claims.refusal(now, initiator);
  }

  /** Why nobody may use the volume now; null when that is not so. */
  fault(volume: VolumeRecord): WeftError | null {
    return unitFault(this.#core, volume);
  }

  /** Whether the initiator may know that the volume is there: it is online, and lists it. */
  lists(volume: VolumeRecord, initiator: string): boolean {
    const now = this.#core.volumes.get(volume.id);
    return now !== undefined && now.state === 'online' && isListed(now, initiator);
  }

  /** As they are now. @throws WeftError CORRUPT. */
  credentials(volume: VolumeRecord): TargetCredentials {
    return openCredentials(this.#core.secrets, this.#core.volumes.get(volume.id) ?? volume);
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
    const planned = this.#planGroup(change, wanted);
    const volume: VolumeRecord = {
      schemaVersion: volumeRecordVersion,
      id,
      volumeKey,
      name: wanted.name,
      container: container.name,
      sizeBytes,
      durability: wanted.durability ?? container.durability,
      chunkSizeBytes: container.chunkSizeBytes,
      physicalBlockBytes: wanted.physicalBlockBytes ?? 4096,
      labels: wanted.labels ?? {},
      group: planned.group,
      ...nextAccess(core, { id, ...openAccess, ...planned }, planned.access),
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

  /** Which LUN it becomes in its group, what it has in common with the others there, and what is left to make. */
  #planGroup(change: Change, wanted: NewVolume): GroupPlan {
    const name = wanted.group;
    const { chap, mutualChap, allowedInitiators } = wanted;
    if (name === undefined) return { group: null, access: { chap, mutualChap, allowedInitiators } };
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
    if (first === undefined) return { group, access: { chap, mutualChap, allowedInitiators } };
    if (first.createdBy !== wanted.createdBy) {
      throw new WeftError('FORBIDDEN', `group ${name} belongs to somebody else; choose another name`);
    }
    if ((chap === 'none' && first.chap !== null) || typeof chap === 'object' || mutualChap !== undefined) {
      throw new WeftError(
        'INVALID_ARGUMENT',
        `the volumes of group ${name} have their CHAP secrets in common; leave chap and mutualChap out`,
      );
    }
    change.read(this.#core.volumes, first.id);
    return { group, chap: first.chap, mutualChap: first.mutualChap, access: { allowedInitiators } };
  }

  /**
   * Grows it, records a filesystem, changes who may log in; all or nothing. A change of credentials is one for all
   * volumes of its group. Logins that are under way meet the change, and sessions that it does not allow have ended
   * when this resolves.
   * @throws WeftError NOT_FOUND; INVALID_ARGUMENT (smaller, access); CONFLICT (the filesystem's record); NO_SPACE
   *   (quota).
   */
  async update(
    name: string,
    wanted: VolumeChange,
  ): Promise<{ volume: VolumeRecord; droppedSessions: number }> {
    const { id } = this.find(name);
    return this.#core.turns.take(id, async () => {
      const { before, after } = await this.#core.change((change) => {
        const before = readOnline(this.#core, change, id, name);
        const sizeBytes = grownSize(before, wanted.sizeBytes);
        const filesystem = nextFilesystem(before, wanted.filesystem);
        const grownBytes = sizeBytes - before.sizeBytes;
        if (grownBytes > 0)
          bookContainer(this.#core, change, before.container, { volumes: 0, bytes: grownBytes });
        const access = nextAccess(this.#core, before, wanted);
        const after: VolumeRecord = { ...before, ...access, sizeBytes, filesystem };
        change.put(this.#core.volumes, id, after);
        this.#shareCredentials(change, before, after);
        return { before, after };
      });
      if (after.sizeBytes !== before.sizeBytes) this.#core.host.resize(after);
      return { volume: after, droppedSessions: await this.#dropUnwanted(before, after, wanted) };
    });
  }

  /** The volumes of a group have one target, also those in the trash: they may come back to it. */
  #shareCredentials(change: Change, before: VolumeRecord, after: VolumeRecord): void {
    const { chap, mutualChap, group } = after;
    if (group === null || (chap === before.chap && mutualChap === before.mutualChap)) return;
    // Who joins the group meanwhile takes its credentials from a member.
    change.read(this.#core.counters, `group-${group.name}`);
    for (const other of this.#core.volumes.values()) {
      if (other.id === after.id || other.group?.name !== group.name) continue;
      change.put(this.#core.volumes, other.id, { ...other, chap, mutualChap });
    }
  }

  /** How many sessions ended. */
  async #dropUnwanted(before: VolumeRecord, after: VolumeRecord, wanted: VolumeChange): Promise<number> {
    // What the target proves itself with says nothing of who is logged in.
    const isChapNew = after.chap !== null && after.chap !== before.chap && !wanted.keepSessions;
    const isListNew = after.allowedInitiators !== before.allowedInitiators;
    if (!isChapNew && !isListNew) return 0;
    return this.#core.host.expel(after, isChapNew);
  }
}

interface GroupPlan {
  group: VolumeRecord['group'];
  /** Those of the group; absent: none yet. */
  chap?: VolumeRecord['chap'];
  mutualChap?: VolumeRecord['mutualChap'];
  /** What is asked for beside them. */
  access: WantedAccess;
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

/** Version 4 (RFC 9562 §5.4). */
function uuid(random: Random): string {
  const bytes = random.bytes(16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
