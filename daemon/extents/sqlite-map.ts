/**
 * The tables of the extent map and what is done with them. Synchronous: it runs in the map's thread.
 *
 * Reference counts, live bytes of segments and chunk counts of volumes change in the transaction that changes
 * the pages they are counted from.
 */
import Database from 'better-sqlite3';
import { assert } from '../base/assert.ts';
import { WeftError } from '../base/errors.ts';
import { extentSizeBytes, maxVolumeSizeBytes } from '../base/limits.ts';
import { decodeExtentPage, encodeExtentPage } from '../format/extent-page.ts';
import { payloadRoomBytes, version1ChunkHeaderBytes } from '../format/segment.ts';
import type { PackedChange, PackedPage } from './map-messages.ts';
import { chunkColumns } from './map-messages.ts';
import type { CommitEffect, MapSummary } from './map-store.ts';

const formatVersion = 2;
/** "WFTM", so that `file` and Weft itself can tell whose database this is. */
const applicationId = 0x5746544d;
/** Extents of the largest volume: a page's key is volume * this + extent, which keeps pages in the leaves. */
const extentsPerVolume = maxVolumeSizeBytes / extentSizeBytes;
assert(extentsPerVolume === 2 ** 24, 'keys of pages on disk depend on it');
/** Ids this close are read in one range scan; a lookup costs some six times a step of a scan. */
const scanGap = 6;
/** What the WAL file keeps of its length after a checkpoint, in bytes. */
const walKeepBytes = 64 * 2 ** 20;

const schema = `
  CREATE TABLE counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE extents(key INTEGER PRIMARY KEY, page BLOB NOT NULL);
  CREATE TABLE chunks(
    id INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, stored INTEGER NOT NULL,
    raw INTEGER NOT NULL, codec INTEGER NOT NULL, tier INTEGER NOT NULL, checksum INTEGER NOT NULL,
    refs INTEGER NOT NULL);
  CREATE INDEX chunks_by_place ON chunks(segment, offset);
  CREATE TABLE fingerprints(hash BLOB PRIMARY KEY, chunk INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE volumes(volume INTEGER PRIMARY KEY, chunks INTEGER NOT NULL);
  CREATE TABLE segments(segment INTEGER PRIMARY KEY, live INTEGER NOT NULL);
  INSERT INTO counters VALUES ('nextChunkId', 1);
`;

const chunkFields = 'id, segment, offset, stored, raw, codec, tier, checksum';

/** What one transaction has counted so far. */
class Tally {
  /** References gained (or lost) by chunk id. */
  readonly references = new Map<number, number>();
  readonly segmentBytes = new Map<number, number>();
  readonly volumeChunks = new Map<number, number>();
}

function add(counts: Map<number, number>, key: number, amount: number): void {
  counts.set(key, (counts.get(key) ?? 0) + amount);
}

export class SqliteMap {
  private readonly database: Database.Database;
  private readonly statements: ReturnType<typeof prepare>;
  private readonly transact: (change: PackedChange) => CommitEffect;

  constructor(path: string) {
    this.database = new Database(path);
    try {
      this.database.pragma('busy_timeout = 5000');
      this.database.pragma('cache_size = -65536');
      prepareFile(this.database, path);
      this.database.pragma('journal_mode = WAL');
      this.database.pragma('synchronous = FULL');
      this.database.pragma('wal_autocheckpoint = 4000');
      this.database.pragma(`journal_size_limit = ${walKeepBytes}`);
      this.statements = prepare(this.database);
      const transaction = this.database.transaction((change: PackedChange) => this.apply(change));
      this.transact = (change) => transaction.immediate(change);
    } catch (error) {
      this.database.close();
      throw error;
    }
  }

  summary(): MapSummary {
    return {
      nextChunkId: this.statements.nextChunkId.get() as number,
      segments: (this.statements.allSegments.all() as [number, number][]).map(
        ([segmentNumber, liveBytes]) => {
          return { segmentNumber, liveBytes };
        },
      ),
      volumes: (this.statements.allVolumes.all() as [number, number][]).map(([volumeKey, chunkCount]) => {
        return { volumeKey, chunkCount };
      }),
    };
  }

  loadPage(volumeKey: number, extentIndex: number): PackedPage | null {
    const chunkIds = this.readPage(volumeKey, extentIndex);
    return chunkIds && { chunkIds, chunks: this.locate(chunkIds, volumeKey, extentIndex) };
  }

  listExtents(volumeKey: number): number[] {
    const first = volumeKey * extentsPerVolume;
    const keys = this.statements.extentKeys.all(first, first + extentsPerVolume - 1) as number[];
    return keys.map((key) => key - first);
  }

  listSegment(segmentNumber: number): Float64Array {
    const rows = this.statements.chunksOfSegment.all(segmentNumber) as number[][];
    const packed = new Float64Array(rows.length * chunkColumns);
    for (let index = 0; index < rows.length; index++) packed.set(rows[index]!, index * chunkColumns);
    return packed;
  }

  commit(change: PackedChange): CommitEffect {
    return this.transact(change);
  }

  close(): void {
    this.database.close();
  }

  private apply(change: PackedChange): CommitEffect {
    const tally = new Tally();
    let at = 0;
    for (let row = 0; row < change.pages.length; row += 3) {
      const count = change.pages[row + 2]!;
      const chunkIds = change.chunkIds.subarray(at, at + count);
      this.replacePage(change.pages[row]!, change.pages[row + 1]!, chunkIds, tally);
      at += count;
    }
    for (const volumeKey of change.deletedVolumes) {
      for (const extentIndex of this.listExtents(volumeKey)) {
        this.replacePage(volumeKey, extentIndex, new Float64Array(0), tally);
      }
    }
    this.addChunks(change.addedChunks, tally);
    this.countReferences(tally);
    this.moveChunks(change.movedChunks, tally);
    return this.writeCounts(tally);
  }

  private replacePage(volumeKey: number, extentIndex: number, chunkIds: Float64Array, tally: Tally): void {
    const key = volumeKey * extentsPerVolume + extentIndex;
    const before = this.readPage(volumeKey, extentIndex) ?? new Float64Array(0);
    let present = 0;
    for (let slot = 0; slot < Math.max(before.length, chunkIds.length); slot++) {
      const was = before[slot] ?? 0;
      const is = chunkIds[slot] ?? 0;
      if (is !== 0) present++;
      if (was === is) continue;
      if (was !== 0) add(tally.references, was, -1);
      if (is !== 0) add(tally.references, is, 1);
      add(tally.volumeChunks, volumeKey, (is === 0 ? 0 : 1) - (was === 0 ? 0 : 1));
    }
    if (present > 0) this.statements.putPage.run(key, encodeExtentPage(chunkIds));
    else if (before.length > 0) this.statements.removePage.run(key);
  }

  private addChunks(packed: Float64Array, tally: Tally): void {
    let highest = 0;
    for (let at = 0; at < packed.length; at += chunkColumns) {
      const row = packed.subarray(at, at + chunkColumns);
      const chunkId = row[0]!;
      const references = tally.references.get(chunkId) ?? 0;
      assert(references > 0, `chunk ${chunkId} is added and no page refers to it`);
      tally.references.delete(chunkId);
      this.statements.addChunk.run(...row, references);
      add(tally.segmentBytes, row[1]!, payloadRoomBytes(row[3]!));
      highest = Math.max(highest, chunkId);
    }
    if (highest > 0) this.statements.raiseChunkId.run(highest + 1);
  }

  /** Chunks that were there before: gained or lost references; those with none left go. */
  private countReferences(tally: Tally): void {
    for (const [chunkId, change] of tally.references) {
      if (change === 0) continue;
      const chunk = this.statements.references.get(chunkId) as [number, number, number] | undefined;
      if (!chunk || chunk[0] + change < 0) {
        const message = `extent map: pages refer to chunk ${chunkId}, and it is not counted`;
        throw new WeftError('CORRUPT', message, { details: { chunkId } });
      }
      const [references, segmentNumber, storedBytes] = chunk;
      if (references + change > 0) {
        this.statements.setReferences.run(references + change, chunkId);
      } else {
        this.statements.removeChunk.run(chunkId);
        add(tally.segmentBytes, segmentNumber, -payloadRoomBytes(storedBytes));
      }
    }
  }

  private moveChunks(packed: Float64Array, tally: Tally): void {
    for (let at = 0; at < packed.length; at += chunkColumns) {
      const [chunkId, segment, offset, stored, raw, codec, tier, checksum] = packed.subarray(
        at,
        at + chunkColumns,
      );
      const chunk = this.statements.references.get(chunkId) as [number, number, number] | undefined;
      if (!chunk) continue;
      this.statements.moveChunk.run(segment, offset, stored, raw, codec, tier, checksum, chunkId);
      add(tally.segmentBytes, chunk[1], -payloadRoomBytes(chunk[2]));
      add(tally.segmentBytes, segment!, payloadRoomBytes(stored!));
    }
  }

  private writeCounts(tally: Tally): CommitEffect {
    const effect: CommitEffect = { segments: [], volumes: [] };
    for (const [segmentNumber, change] of tally.segmentBytes) {
      const liveBytes = this.statements.addLive.get(segmentNumber, change) as number;
      if (liveBytes === 0) this.statements.removeSegment.run(segmentNumber);
      effect.segments.push({ segmentNumber, liveBytes });
    }
    for (const [volumeKey, change] of tally.volumeChunks) {
      const chunkCount = this.statements.addChunkCount.get(volumeKey, change) as number;
      if (chunkCount === 0) this.statements.removeVolume.run(volumeKey);
      effect.volumes.push({ volumeKey, chunkCount });
    }
    return effect;
  }

  private readPage(volumeKey: number, extentIndex: number): Float64Array | null {
    const page = this.statements.page.get(volumeKey * extentsPerVolume + extentIndex) as Buffer | undefined;
    if (!page) return null;
    try {
      return decodeExtentPage(page);
    } catch (error) {
      const details = { volumeKey, extentIndex };
      const { code, message } = error as WeftError;
      throw new WeftError(code, `extent map: extent ${extentIndex} of volume ${volumeKey}: ${message}`, {
        details,
      });
    }
  }

  /**
   * The places of a page's chunks. Ids given one after another lie side by side, so few range scans find
   * most.
   */
  private locate(chunkIds: Float64Array, volumeKey: number, extentIndex: number): Float64Array {
    const wanted = chunkIds.filter((chunkId) => chunkId !== 0).sort();
    const packed = new Float64Array(wanted.length * chunkColumns);
    let filled = 0;
    for (let first = 0; first < wanted.length; ) {
      let last = first;
      while (last + 1 < wanted.length && wanted[last + 1]! - wanted[last]! <= scanGap) last++;
      let next = first;
      for (const row of this.statements.chunksBetween.all(wanted[first], wanted[last]) as number[][]) {
        // A chunk may be on the page more than once, and the range holds chunks of other pages.
        while (next <= last && wanted[next]! < row[0]!) next++;
        for (; next <= last && wanted[next] === row[0]; next++) {
          packed.set(row, filled);
          filled += chunkColumns;
        }
      }
      first = last + 1;
    }
    if (filled < packed.length) {
      const where = `extent ${extentIndex} of volume ${volumeKey}`;
      const message = `extent map: ${where} refers to a chunk that is not there`;
      throw new WeftError('CORRUPT', message, { details: { volumeKey, extentIndex } });
    }
    return packed;
  }
}

/** Checks whose file this is and which version wrote it; a new file gets its tables. */
function prepareFile(database: Database.Database, path: string): void {
  const version = database.pragma('user_version', { simple: true }) as number;
  if (version > formatVersion) {
    const versions = `format version ${version}; this Weft reads ${formatVersion}`;
    throw new WeftError('FORMAT_TOO_NEW', `${path} has ${versions}. Start the version that wrote it.`);
  }
  if (version > 0) {
    const isOurs = database.pragma('application_id', { simple: true }) === applicationId;
    if (isOurs && version === 1) upgradeFromVersion1(database);
    if (isOurs) return;
    throw new WeftError('CORRUPT', `${path} is not an extent map`);
  }
  const tables = database.prepare('SELECT count(*) FROM sqlite_master').pluck().get() as number;
  if (tables > 0) throw new WeftError('CORRUPT', `${path} is not an extent map`);
  database.transaction(() => {
    database.exec(schema);
    database.pragma(`application_id = ${applicationId}`);
    database.pragma(`user_version = ${formatVersion}`);
  })();
}

/** Version 1 had the place of a header in front of the payload, and counted it as live. */
function upgradeFromVersion1(database: Database.Database): void {
  database.transaction(() => {
    // Every entry of the index changes: making it anew is quicker.
    database.exec('DROP INDEX chunks_by_place');
    database.prepare('UPDATE chunks SET offset = offset + ?').run(version1ChunkHeaderBytes);
    database.exec('CREATE INDEX chunks_by_place ON chunks(segment, offset)');
    database.exec(`
      UPDATE segments SET live =
        coalesce((SELECT sum((stored + 7) / 8 * 8) FROM chunks WHERE chunks.segment = segments.segment), 0)`);
    database.pragma(`user_version = ${formatVersion}`);
  })();
}

function prepare(database: Database.Database) {
  const rows = (sql: string) => database.prepare(sql).raw();
  const value = (sql: string) => database.prepare(sql).pluck();
  return {
    nextChunkId: value(`SELECT value FROM counters WHERE name = 'nextChunkId'`),
    raiseChunkId: database.prepare(`UPDATE counters SET value = max(value, ?) WHERE name = 'nextChunkId'`),
    allSegments: rows('SELECT segment, live FROM segments ORDER BY segment'),
    allVolumes: rows('SELECT volume, chunks FROM volumes ORDER BY volume'),
    page: value('SELECT page FROM extents WHERE key = ?'),
    putPage: database.prepare(
      'INSERT INTO extents VALUES (?, ?) ON CONFLICT DO UPDATE SET page = excluded.page',
    ),
    removePage: database.prepare('DELETE FROM extents WHERE key = ?'),
    extentKeys: value('SELECT key FROM extents WHERE key BETWEEN ? AND ? ORDER BY key'),
    chunksBetween: rows(`SELECT ${chunkFields} FROM chunks WHERE id BETWEEN ? AND ? ORDER BY id`),
    chunksOfSegment: rows(`SELECT ${chunkFields} FROM chunks WHERE segment = ? ORDER BY offset`),
    addChunk: database.prepare('INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)'),
    moveChunk: database.prepare(
      `UPDATE chunks SET segment = ?, offset = ?, stored = ?, raw = ?, codec = ?, tier = ?, checksum = ?
       WHERE id = ?`,
    ),
    references: rows('SELECT refs, segment, stored FROM chunks WHERE id = ?'),
    setReferences: database.prepare('UPDATE chunks SET refs = ? WHERE id = ?'),
    removeChunk: database.prepare('DELETE FROM chunks WHERE id = ?'),
    addLive: value(
      `INSERT INTO segments VALUES (?, ?)
       ON CONFLICT DO UPDATE SET live = live + excluded.live RETURNING live`,
    ),
    removeSegment: database.prepare('DELETE FROM segments WHERE segment = ?'),
    addChunkCount: value(
      `INSERT INTO volumes VALUES (?, ?)
       ON CONFLICT DO UPDATE SET chunks = chunks + excluded.chunks RETURNING chunks`,
    ),
    removeVolume: database.prepare('DELETE FROM volumes WHERE volume = ?'),
  };
}
