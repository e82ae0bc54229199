/**
 * The thread of the healthy session: an initiator that writes and reads its volume without a pause and knows what must
 * be there. It reports when asked, and ends when told to.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Initiator } from '../iscsi/initiator.ts';
import { readCdb, writeCdb } from '../iscsi/memory-device.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';
import type { HealthReport, HealthyOptions } from './healthy-session.ts';

const blockBytes = 4096;
const sectorsPerBlock = blockBytes / 512;
const longestRunBlocks = 16;

const options = workerData as HealthyOptions;
const blockCount = options.sizeBytes / blockBytes;
/** By block: the last write that was acknowledged; 0: never written, zeros. */
const generations = new Uint32Array(blockCount);
const random = new SeededRandom(options.seed);
const latenciesMs: number[] = [];
const report: HealthReport = { operations: 0, slowestMs: 0, p99Ms: 0, complaint: null };
let isEnding = false;

parentPort!.on('message', (message: 'report' | 'end') => {
  if (message === 'end') isEnding = true;
  else parentPort!.postMessage(summary());
});

function summary(): HealthReport {
  const sorted = Float64Array.from(latenciesMs).sort();
  return { ...report, p99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? 0 };
}

function blockOf(block: number, generation: number): Buffer {
  const stamp = Buffer.alloc(16);
  if (generation === 0) return Buffer.alloc(blockBytes);
  stamp.writeUInt32LE(block, 0);
  stamp.writeUInt32LE(generation, 4);
  stamp.writeUInt32LE(Math.imul(block + 1, generation) >>> 0, 8);
  stamp.writeUInt32LE(options.seed >>> 0, 12);
  return Buffer.alloc(blockBytes, stamp);
}

async function timed<Result>(work: () => Promise<Result>): Promise<Result> {
  const begin = performance.now();
  const result = await work();
  const tookMs = performance.now() - begin;
  report.operations += 1;
  report.slowestMs = Math.max(report.slowestMs, tookMs);
  // The last million answers are enough for a percentile.
  if (latenciesMs.length < 1_000_000) latenciesMs.push(tookMs);
  else latenciesMs[report.operations % latenciesMs.length] = tookMs;
  return result;
}

async function write(initiator: Initiator, first: number, count: number, generation: number): Promise<void> {
  const data = Buffer.concat(Array.from({ length: count }, (_, at) => blockOf(first + at, generation)));
  const cdb = writeCdb(first * sectorsPerBlock, count * sectorsPerBlock);
  const itt = initiator.command(cdb, { write: data.length, data });
  const { status } = await timed(() => initiator.collect(itt));
  if (status !== 0) throw new Error(`a write ended with status ${status}`);
  generations.fill(generation, first, first + count);
}

async function check(initiator: Initiator, first: number, count: number): Promise<void> {
  const cdb = readCdb(first * sectorsPerBlock, count * sectorsPerBlock);
  const itt = initiator.command(cdb, { read: count * blockBytes });
  const { status, data } = await timed(() => initiator.collect(itt));
  if (status !== 0) throw new Error(`a read ended with status ${status}`);
  for (let at = 0; at < count; at++) {
    const expected = blockOf(first + at, generations[first + at]!);
    if (!data.subarray(at * blockBytes, (at + 1) * blockBytes).equals(expected)) {
      throw new Error(`block ${first + at} does not hold what was written`);
    }
  }
}

async function begin(): Promise<Initiator> {
  const initiator = await Initiator.connect(options.port);
  initiator.name = 'iqn.2026-11.test:healthy';
  const status = await initiator.login(options.iqn, options.chap === null ? {} : { chap: options.chap });
  if (status !== 0) throw new Error(`the login ended with ${status.toString(16)}`);
  // The first command hears of the power being on.
  await initiator.collect(initiator.command(Buffer.alloc(16)));
  return initiator;
}

try {
  const initiator = await begin();
  for (let generation = 1; !isEnding; generation++) {
    const count = random.between(1, longestRunBlocks);
    await write(initiator, random.below(blockCount - count), count, generation);
    await check(initiator, random.below(blockCount - longestRunBlocks), random.between(1, longestRunBlocks));
    if (options.pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, options.pauseMs));
  }
  for (let first = 0; first < blockCount; first += longestRunBlocks) {
    await check(initiator, first, Math.min(longestRunBlocks, blockCount - first));
  }
  initiator.close();
} catch (error) {
  report.complaint = (error as Error).message;
}
parentPort!.postMessage(summary());
parentPort!.close();
