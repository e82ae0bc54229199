/**
 * What this host must remember across a kill of the plugin, one JSON file per volume:
 *
 *   STATE/volumes/NAME.json   {"format":"weft-plugin-volume","version":1,"crc32c":N,"record":{...}}
 *   STATE/fabric.json         {"format":"weft-plugin-fabric","version":1,"crc32c":N,"record":{volumes:[...]}}
 *
 * crc32c is over JSON.stringify(record). A file is replaced by writing NAME.json.tmp, syncing it, renaming it and
 * syncing the directory: after a crash there is the old one or the new one. A file that cannot be read is put aside
 * as NAME.json.damaged-N and costs what it held, never the start of the plugin.
 */
import { mkdir, open, readdir, readFile, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32c } from '@node-rs/crc32';
import type { Volume } from '../daemon/api/schema.ts';
import { namePattern } from '../daemon/api/schema.ts';
import { WeftError } from '../daemon/base/errors.ts';

const version = 1;
const volumeFormat = 'weft-plugin-volume';
const fabricFormat = 'weft-plugin-fabric';

/** What this host does with one volume. Exists from the first Mount until everything is given back. */
export interface VolumeRecord {
  name: string;
  id: string;
  iqn: string;
  /** How many Mounts without their Unmount, by dockerd's mount id, since this plugin process runs. */
  mounts: Record<string, number>;
  /** The same, of processes before this one. dockerd may have forgotten them: they count only as long as the device is used. */
  carried: Record<string, number>;
  /** The boot the counts are of: no use outlives the machine's. */
  bootId: string;
  /** Part of the mountpoint's name. Only rises, so that no stale mount can lie over or under the current one. */
  generation: number;
  /** Epoch of the claim the mount was made under; null without a claim. */
  claimEpoch: number | null;
  /** Another host had the volume meanwhile: what Docker containers here still hold of it is dead. */
  claimLost: boolean;
}

export function newRecord(name: string, id: string, iqn: string, bootId: string): VolumeRecord {
  return {
    name,
    id,
    iqn,
    mounts: {},
    carried: {},
    bootId,
    generation: 0,
    claimEpoch: null,
    claimLost: false,
  };
}

export function countOf(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

/** One more mount under this id. */
export function countUp(record: VolumeRecord, id: string): void {
  record.mounts[id] = (Object.hasOwn(record.mounts, id) ? record.mounts[id]! : 0) + 1;
}

/** One fewer under this id; false when there was none: dockerd unmounts what failed to mount, too. */
export function countDown(record: VolumeRecord, id: string): boolean {
  for (const counts of [record.mounts, record.carried]) {
    const count = Object.hasOwn(counts, id) ? counts[id]! : 0;
    if (count === 0) continue;
    if (count === 1) delete counts[id];
    else counts[id] = count - 1;
    return true;
  }
  return false;
}

/** A new process: what was counted until now is hearsay, and nothing at all after a reboot. */
export function carryCounts(record: VolumeRecord, bootId: string): void {
  if (record.bootId !== bootId) {
    record.carried = {};
  } else {
    for (const [id, count] of Object.entries(record.mounts)) {
      record.carried[id] = (Object.hasOwn(record.carried, id) ? record.carried[id]! : 0) + count;
    }
  }
  record.mounts = {};
  record.bootId = bootId;
}

export interface LoadedRecords {
  records: VolumeRecord[];
  /** The own volumes as the fabric last listed them. */
  volumes: Volume[];
  /** Files put aside. */
  damaged: string[];
}

export class RecordStore {
  readonly #directory: string;
  readonly #volumeDirectory: string;

  constructor(stateDirectory: string) {
    this.#directory = stateDirectory;
    this.#volumeDirectory = join(stateDirectory, 'volumes');
  }

  async load(): Promise<LoadedRecords> {
    await mkdir(this.#volumeDirectory, { recursive: true, mode: 0o700 });
    const records: VolumeRecord[] = [];
    const damaged: string[] = [];
    for (const file of (await readdir(this.#volumeDirectory)).sort()) {
      if (!file.endsWith('.json')) continue;
      const path = join(this.#volumeDirectory, file);
      const record = await readOrPutAside(path, volumeFormat, asVolumeRecord, damaged);
      if (record !== null) records.push(record);
    }
    const fabric = await readOrPutAside(
      join(this.#directory, 'fabric.json'),
      fabricFormat,
      asVolumeList,
      damaged,
    );
    return { records, volumes: fabric ?? [], damaged };
  }

  /** On return the record survives power loss. */
  async save(record: VolumeRecord): Promise<void> {
    await replaceFile(this.#volumeDirectory, `${record.name}.json`, encode(volumeFormat, record));
  }

  async remove(name: string): Promise<void> {
    await unlink(join(this.#volumeDirectory, `${name}.json`)).catch(ignoreMissing);
    await syncDirectory(this.#volumeDirectory);
  }

  async saveVolumes(volumes: readonly Volume[]): Promise<void> {
    await replaceFile(this.#directory, 'fabric.json', encode(fabricFormat, { volumes }));
  }
}

/** Exported for the golden test of the format. */
export function encode(format: string, record: unknown): string {
  const body = JSON.stringify(record);
  return `{"format":"${format}","version":${version},"crc32c":${crc32c(body)},"record":${body}}\n`;
}

/** @throws WeftError CORRUPT or FORMAT_TOO_NEW */
export function decode(format: string, text: string): unknown {
  let document: { format?: unknown; version?: unknown; crc32c?: unknown; record?: unknown };
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw new WeftError('CORRUPT', 'not JSON', { cause });
  }
  if (typeof document !== 'object' || document === null || document.format !== format) {
    throw new WeftError('CORRUPT', `not a ${format}`);
  }
  if (typeof document.version === 'number' && document.version > version) {
    throw new WeftError('FORMAT_TOO_NEW', `version ${document.version}; this plugin knows ${version}`);
  }
  if (document.version !== version || crc32c(JSON.stringify(document.record) ?? '') !== document.crc32c) {
    throw new WeftError('CORRUPT', 'the checksum does not match');
  }
  return document.record;
}

function asVolumeRecord(value: unknown): VolumeRecord {
  const record = value as Partial<VolumeRecord> | null;
  const whole =
    typeof record === 'object' &&
    record !== null &&
    typeof record.name === 'string' &&
    namePattern.test(record.name) &&
    typeof record.id === 'string' &&
    typeof record.iqn === 'string' &&
    typeof record.mounts === 'object' &&
    typeof record.carried === 'object' &&
    Number.isSafeInteger(record.generation);
  if (!whole) throw new WeftError('CORRUPT', 'fields are missing');
  return record as VolumeRecord;
}

function asVolumeList(value: unknown): Volume[] {
  const volumes = (value as { volumes?: unknown } | null)?.volumes;
  if (!Array.isArray(volumes)) throw new WeftError('CORRUPT', 'fields are missing');
  return volumes as Volume[];
}

async function readOrPutAside<Value>(
  path: string,
  format: string,
  check: (value: unknown) => Value,
  damaged: string[],
): Promise<Value | null> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      damaged.push(`${path}: ${(error as Error).message}`);
    return null;
  }
  try {
    return check(decode(format, text));
  } catch (error) {
    const aside = `${path}.damaged-${Date.now()}`;
    await rename(path, aside);
    damaged.push(`${aside}: ${(error as Error).message}`);
    return null;
  }
}

async function replaceFile(directory: string, name: string, text: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, name);
  const file = await open(`${path}.tmp`, 'w', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.tmp`, path);
  await syncDirectory(directory);
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
