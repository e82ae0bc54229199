/**
 * The extent map of a simulated node: in memory, with the promises of `map-store.ts`.
 *
 * Requests are carried out in order, each when the scheduler gets to it. A commit is durable when it
 * resolves; one that a crash cuts off is there whole or not at all, as `random` says.
 */
import { WeftError } from '../../daemon/base/errors.ts';
import type {
  CommitEffect,
  LocatedChunk,
  MapChange,
  MapStore,
  MapSummary,
  StoredPage,
} from '../../daemon/extents/map-store.ts';
import { payloadRoomBytes } from '../../daemon/format/segment.ts';

export interface MapEnvironment {
  /** Calls `fire` later, never at once. */
  schedule: (fire: () => void) => void;
  /** Evenly from 0 (inclusive) to 1, from the seed. */
  random: () => number;
}

interface State {
  nextChunkId: number;
  /** By volume, then by extent. */
  pages: Map<number, Map<number, number[]>>;
  chunks: Map<number, LocatedChunk & { references: number }>;
}

export class SimulatedMapStore implements MapStore {
  private readonly env: MapEnvironment;
  private state: State = { nextChunkId: 1, pages: new Map(), chunks: new Map() };
  /** Requests in the order they were made; the scheduler may fire in another. */
  private readonly requests: (() => void)[] = [];
  /** Commits that have been asked for and not carried out yet, in order. */
  private readonly waiting: (() => void)[] = [];
  private closed = false;
  private crashed = false;
  /** What the next commit fails with instead of being carried out. */
  failNextCommit: WeftError | null = null;

  constructor(env: MapEnvironment) {
    this.env = env;
  }

  /**
   * Power loss: nothing asked of this object is answered any more. What it kept is in the object returned.
   */
  crash(): SimulatedMapStore {
    this.crashed = true;
    while (this.waiting.length > 0 && this.env.random() < 0.5) this.waiting.shift()!();
    const next = new SimulatedMapStore(this.env);
    next.state = this.state;
    return next;
  }

  /** Counts every reference anew, and tells what the counts of the chunks have wrong; nothing may be under way. */
  checkReferences(): string[] {
    const counted = new Map<number, number>();
    for (const extents of this.state.pages.values()) {
      for (const chunkIds of extents.values()) {
        for (const chunkId of chunkIds) {
          if (chunkId !== 0) counted.set(chunkId, (counted.get(chunkId) ?? 0) + 1);
        }
      }
    }
    const faults: string[] = [];
    for (const { chunkId, references } of this.state.chunks.values()) {
      const found = counted.get(chunkId) ?? 0;
      if (references === 0) faults.push(`chunk ${chunkId} is kept, and nothing refers to it`);
      if (found !== references)
        faults.push(`chunk ${chunkId} has ${found} references, counted ${references}`);
    }
    for (const chunkId of counted.keys()) {
      if (!this.state.chunks.has(chunkId)) faults.push(`chunk ${chunkId} is referred to and not there`);
    }
    return faults;
  }

  summary(): Promise<MapSummary> {
    return this.later(() => {
      const live = new Map<number, number>();
      for (const { segmentNumber, storedBytes } of this.state.chunks.values()) {
        live.set(segmentNumber, (live.get(segmentNumber) ?? 0) + payloadRoomBytes(storedBytes));
      }
      const volumes = [...this.state.pages.keys()].map((volumeKey) => {
        return { volumeKey, chunkCount: this.chunkCount(volumeKey) };
      });
      return {
        nextChunkId: this.state.nextChunkId,
        segments: [...live].map(([segmentNumber, liveBytes]) => ({ segmentNumber, liveBytes })),
        volumes: volumes.filter(({ chunkCount }) => chunkCount > 0),
      };
    });
  }

  loadPage(volumeKey: number, extentIndex: number): Promise<StoredPage | null> {
    return this.later(() => {
      const chunkIds = this.state.pages.get(volumeKey)?.get(extentIndex);
      if (!chunkIds) return null;
      const chunks = chunkIds.filter((chunkId) => chunkId !== 0).map((chunkId) => this.located(chunkId));
      return { chunkIds: [...chunkIds], chunks };
    });
  }

  listExtents(volumeKey: number): Promise<number[]> {
    return this.later(() => [...(this.state.pages.get(volumeKey)?.keys() ?? [])].sort((a, b) => a - b));
  }

  listSegment(segmentNumber: number): Promise<LocatedChunk[]> {
    return this.later(() => {
      const chunks = [...this.state.chunks.values()].filter((chunk) => chunk.segmentNumber === segmentNumber);
      return chunks.sort((a, b) => a.offsetBytes - b.offsetBytes).map(({ chunkId }) => this.located(chunkId));
    });
  }

  commit(change: MapChange): Promise<CommitEffect> {
    const copy: MapChange = {
      pages: change.pages.map((page) => ({ ...page, chunkIds: Array.from(page.chunkIds) })),
      addedChunks: change.addedChunks.map((chunk) => ({ ...chunk })),
      movedChunks: change.movedChunks.map((chunk) => ({ ...chunk })),
      deletedVolumes: [...change.deletedVolumes],
    };
    const failure = this.failNextCommit;
    this.failNextCommit = null;
    if (failure) return this.later(() => Promise.reject(failure));
    let effect: CommitEffect | undefined;
    const carryOut = () => {
      effect = this.apply(copy);
    };
    this.waiting.push(carryOut);
    return this.later(() => {
      this.waiting.shift()!();
      return effect!;
    });
  }

  async close(): Promise<void> {
    await this.later(() => undefined);
    this.closed = true;
  }

  private later<Result>(work: () => Result | Promise<Result>): Promise<Result> {
    if (this.closed) return Promise.reject(new WeftError('SHUTTING_DOWN', 'the extent map is closed'));
    return new Promise((resolve, reject) => {
      this.requests.push(() => {
        try {
          resolve(work());
        } catch (error) {
          reject(error);
        }
      });
      this.env.schedule(() => {
        if (!this.crashed) this.requests.shift()!();
      });
    });
  }

  private located(chunkId: number): LocatedChunk {
    const { references, ...chunk } = this.state.chunks.get(chunkId)!;
    return chunk;
  }

  private chunkCount(volumeKey: number): number {
    let count = 0;
    for (const page of this.state.pages.get(volumeKey)?.values() ?? []) {
      count += page.filter((chunkId) => chunkId !== 0).length;
    }
    return count;
  }

  private liveBytes(segmentNumber: number): number {
    let bytes = 0;
    for (const chunk of this.state.chunks.values()) {
      if (chunk.segmentNumber === segmentNumber) bytes += payloadRoomBytes(chunk.storedBytes);
    }
    return bytes;
  }

  /** The plainest way: put everything in place, then count all over again what was touched. */
  private apply(change: MapChange): CommitEffect {
    const { pages, chunks } = this.state;
    const segments = new Set<number>();
    const volumes = new Set<number>();
    const lost: number[] = [];
    for (const chunk of change.addedChunks) {
      if (chunks.has(chunk.chunkId)) throw new WeftError('INTERNAL', `chunk ${chunk.chunkId} exists`);
      chunks.set(chunk.chunkId, { ...chunk, references: 0 });
      segments.add(chunk.segmentNumber);
      this.state.nextChunkId = Math.max(this.state.nextChunkId, chunk.chunkId + 1);
    }
    const removed = change.deletedVolumes.flatMap((volumeKey) => {
      return [...(pages.get(volumeKey)?.keys() ?? [])].map((extentIndex) => {
        return { volumeKey, extentIndex, chunkIds: [] as number[] };
      });
    });
    for (const { volumeKey, extentIndex, chunkIds } of [...change.pages, ...removed]) {
      const ids = Array.from(chunkIds);
      const volume = pages.get(volumeKey) ?? new Map<number, number[]>();
      for (const chunkId of ids) if (chunkId !== 0) chunks.get(chunkId)!.references++;
      lost.push(...(volume.get(extentIndex) ?? []).filter((chunkId) => chunkId !== 0));
      if (ids.some((chunkId) => chunkId !== 0)) volume.set(extentIndex, ids);
      else volume.delete(extentIndex);
      if (volume.size > 0) pages.set(volumeKey, volume);
      else pages.delete(volumeKey);
      volumes.add(volumeKey);
    }
    for (const { chunkId } of change.addedChunks) {
      if (chunks.get(chunkId)!.references > 0) continue;
      throw new WeftError('INTERNAL', `chunk ${chunkId} is added and no page refers to it`);
    }
    for (const chunkId of lost) {
      const chunk = chunks.get(chunkId)!;
      if (--chunk.references > 0) continue;
      chunks.delete(chunkId);
      segments.add(chunk.segmentNumber);
    }
    for (const moved of change.movedChunks) {
      const chunk = chunks.get(moved.chunkId);
      if (!chunk) continue;
      segments.add(chunk.segmentNumber).add(moved.segmentNumber);
      chunks.set(moved.chunkId, { ...moved, references: chunk.references });
    }
    return {
      segments: [...segments].map((segmentNumber) => {
        return { segmentNumber, liveBytes: this.liveBytes(segmentNumber) };
      }),
      volumes: [...volumes].map((volumeKey) => ({ volumeKey, chunkCount: this.chunkCount(volumeKey) })),
    };
  }
}
