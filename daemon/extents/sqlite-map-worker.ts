/** The thread that keeps the extent map: takes requests in order, answers in batches, blocks nobody. */
import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import type { ErrorCode } from '../base/errors.ts';
import { WeftError } from '../base/errors.ts';
import type { MapReply, MapRequest, MapThreadOptions } from './map-messages.ts';
import { SqliteMap } from './sqlite-map.ts';

assert(parentPort !== null, 'the extent map runs in a thread of its own');
const port = parentPort;
let map: SqliteMap | null = null;

try {
  map = new SqliteMap((workerData as MapThreadOptions).path);
  port.postMessage([{ requestId: 0, result: null }] satisfies MapReply[]);
} catch (error) {
  port.postMessage([{ requestId: 0, failure: failureOf(error) }] satisfies MapReply[]);
}

port.on('message', (requests: MapRequest[]) => {
  let replies: MapReply[] = [];
  let arrays: ArrayBuffer[] = [];
  const send = () => {
    if (replies.length > 0) port.postMessage(replies, arrays);
    replies = [];
    arrays = [];
  };
  for (const request of requests) {
    // A commit waits for the disk; what is answered already does not wait with it.
    if (request.operation === 'commit') send();
    try {
      const result = answer(request);
      if (result instanceof Float64Array) arrays.push(result.buffer as ArrayBuffer);
      replies.push({ requestId: request.requestId, result });
    } catch (error) {
      replies.push({ requestId: request.requestId, failure: failureOf(error) });
    }
  }
  send();
  if (map === null) port.close();
});

function answer(request: MapRequest): unknown {
  assert(map !== null, 'the extent map is open');
  switch (request.operation) {
    case 'summary':
      return map.summary();
    case 'loadPage':
      return map.loadPage(request.volumeKey, request.extentIndex);
    case 'listExtents':
      return map.listExtents(request.volumeKey);
    case 'listSegment':
      return map.listSegment(request.segmentNumber);
    case 'commit':
      return map.commit(request.change);
    case 'close':
      map.close();
      map = null;
      return null;
  }
}

/** An error as it crosses to the other thread, where classes are lost. */
function failureOf(error: unknown): { code: ErrorCode; message: string; details: Record<string, unknown> } {
  if (error instanceof WeftError) {
    return { code: error.code, message: error.message, details: { ...error.details } };
  }
  const sqliteCode = (error as { code?: unknown }).code;
  const message = `extent map: ${error instanceof Error ? error.message : String(error)}`;
  if (typeof sqliteCode !== 'string') return { code: 'INTERNAL', message, details: {} };
  return { code: codeOf(sqliteCode), message, details: { sqliteCode } };
}

function codeOf(sqliteCode: string): ErrorCode {
  if (sqliteCode.startsWith('SQLITE_FULL')) return 'NO_SPACE';
  if (sqliteCode.startsWith('SQLITE_CORRUPT') || sqliteCode === 'SQLITE_NOTADB') return 'CORRUPT';
  if (sqliteCode.startsWith('SQLITE_BUSY') || sqliteCode.startsWith('SQLITE_LOCKED')) return 'LOCKED';
  if (/^SQLITE_(IOERR|CANTOPEN|READONLY|PERM|AUTH)/.test(sqliteCode)) return 'IO_ERROR';
  return 'INTERNAL';
}
