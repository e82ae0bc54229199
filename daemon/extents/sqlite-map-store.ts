/**
 * The extent map in an SQLite file. SQLite blocks its thread, so it has one of its own
 * (`sqlite-map-worker.ts`); the requests of one turn of the event loop travel together, and so do their
 * replies.
 */
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { WeftError } from '../base/errors.ts';
import type { MapReply, MapRequest, MapThreadOptions, PackedPage } from './map-messages.ts';
import { packChange, unpackChunks } from './map-messages.ts';
import type { CommitEffect, LocatedChunk, MapChange, MapStore, MapSummary, StoredPage } from './map-store.ts';

// The same suffix as this file has: `.ts` in the work tree, `.js` when built.
const threadUrl = new URL(`./sqlite-map-worker${extname(import.meta.filename)}`, import.meta.url);

type Waiter = { resolve: (result: unknown) => void; reject: (error: WeftError) => void };
type RequestBody = MapRequest extends infer Each
  ? Each extends MapRequest
    ? Omit<Each, 'requestId'>
    : never
  : never;

export class SqliteMapStore implements MapStore {
  private readonly thread: Worker;
  private readonly waiters = new Map<number, Waiter>();
  private outbox: MapRequest[] = [];
  private outboxArrays: ArrayBuffer[] = [];
  private nextRequestId = 1;
  private ended: WeftError | null = null;

  /** Opens the file, or creates it. Errors: CORRUPT, FORMAT_TOO_NEW, NO_SPACE, IO_ERROR, LOCKED. */
  static async open(path: string): Promise<SqliteMapStore> {
    const store = new SqliteMapStore(path);
    try {
      // The thread answers request 0 when the file is open.
      await new Promise((resolve, reject) => store.waiters.set(0, { resolve, reject }));
    } catch (error) {
      await store.thread.terminate();
      throw error;
    }
    return store;
  }

  private constructor(path: string) {
    this.thread = new Worker(threadUrl, { workerData: { path } satisfies MapThreadOptions });
    this.thread.on('message', (replies: MapReply[]) => this.settle(replies));
    this.thread.on('error', (error) => this.end(`the extent map's thread failed: ${error.message}`, error));
    this.thread.on('exit', () => this.end('the extent map is closed'));
  }

  async summary(): Promise<MapSummary> {
    return (await this.request({ operation: 'summary' })) as MapSummary;
  }

  async loadPage(volumeKey: number, extentIndex: number): Promise<StoredPage | null> {
    const page = (await this.request({ operation: 'loadPage', volumeKey, extentIndex })) as PackedPage | null;
    return page && { chunkIds: page.chunkIds, chunks: unpackChunks(page.chunks) };
  }

  async listExtents(volumeKey: number): Promise<number[]> {
    return (await this.request({ operation: 'listExtents', volumeKey })) as number[];
  }

  async listSegment(segmentNumber: number): Promise<LocatedChunk[]> {
    return unpackChunks((await this.request({ operation: 'listSegment', segmentNumber })) as Float64Array);
  }

  async commit(change: MapChange): Promise<CommitEffect> {
    const packed = packChange(change);
    for (const array of [packed.pages, packed.chunkIds, packed.addedChunks, packed.movedChunks]) {
      this.outboxArrays.push(array.buffer as ArrayBuffer);
    }
    return (await this.request({ operation: 'commit', change: packed })) as CommitEffect;
  }

  async close(): Promise<void> {
    if (this.ended) return;
    const exited = new Promise((resolve) => this.thread.once('exit', resolve));
    await this.request({ operation: 'close' });
    await exited;
  }

  private request(body: RequestBody): Promise<unknown> {
    if (this.ended) {
      this.outboxArrays = [];
      return Promise.reject(this.ended);
    }
    const requestId = this.nextRequestId++;
    if (this.outbox.length === 0) queueMicrotask(() => this.post());
    this.outbox.push({ requestId, ...body } as MapRequest);
    return new Promise((resolve, reject) => this.waiters.set(requestId, { resolve, reject }));
  }

  private post(): void {
    const requests = this.outbox;
    const arrays = this.outboxArrays;
    this.outbox = [];
    this.outboxArrays = [];
    if (!this.ended) this.thread.postMessage(requests, arrays);
  }

  private settle(replies: MapReply[]): void {
    for (const reply of replies) {
      const waiter = this.waiters.get(reply.requestId);
      this.waiters.delete(reply.requestId);
      if (reply.failure) {
        const { code, message, details } = reply.failure;
        waiter?.reject(new WeftError(code, message, { details }));
      } else {
        waiter?.resolve(reply.result);
      }
    }
  }

  private end(message: string, cause?: unknown): void {
    this.ended ??= new WeftError(cause ? 'INTERNAL' : 'SHUTTING_DOWN', message, { cause });
    for (const waiter of this.waiters.values()) waiter.reject(this.ended);
    this.waiters.clear();
  }
}
