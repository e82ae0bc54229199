/** PERSISTENT RESERVE commands as tests send them. */
import { type Bench, type BenchOptions, bench, type Initiator } from '../initiator.ts';

export const actions = {
  register: 0,
  reserve: 1,
  release: 2,
  clear: 3,
  preempt: 4,
  preemptAndAbort: 5,
  registerIgnoring: 6,
  move: 7,
  replaceLost: 8,
};
export type Action = keyof typeof actions;

/** The basic parameter list. */
export function list(key: bigint, actionKey = 0n, flags = 0, more: Buffer = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(24);
  bytes.writeBigUInt64BE(key, 0);
  bytes.writeBigUInt64BE(actionKey, 8);
  bytes[20] = flags;
  return Buffer.concat([bytes, more]);
}

/** The list of REGISTER AND MOVE. `flags`: UNREG 02h, APTPL 01h. */
export function moveList(key: bigint, newKey: bigint, flags: number, port: number, id: Buffer): Buffer {
  const bytes = Buffer.alloc(24);
  bytes.writeBigUInt64BE(key, 0);
  bytes.writeBigUInt64BE(newKey, 8);
  bytes[17] = flags;
  bytes.writeUInt16BE(port, 18);
  bytes.writeUInt32BE(id.length, 20);
  return Buffer.concat([bytes, id]);
}

/** TransportIDs with their length before them. */
export function transportIds(...ids: Buffer[]): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(ids.reduce((sum, id) => sum + id.length, 0));
  return Buffer.concat([length, ...ids]);
}

export function out(from: Initiator, action: Action, type: number, parameters: Buffer): Promise<string> {
  const cdb = Buffer.from([0x5f, actions[action], type, 0, 0, 0, 0, 0, 0, 0]);
  cdb.writeUInt32BE(parameters.length, 5);
  return from.result(cdb, parameters);
}

export function persistentIn(from: Initiator, action: number): Promise<Buffer> {
  return from.data(Buffer.from([0x5e, action, 0, 0, 0, 0, 0, 0x10, 0, 0]));
}

/** Keys in the order they registered. */
export async function keys(from: Initiator): Promise<bigint[]> {
  const data = await persistentIn(from, 0);
  return Array.from({ length: (data.length - 8) / 8 }, (_, index) => data.readBigUInt64BE(8 + index * 8));
}

/** The first initiator is registered with key 0xa, the second with 0xb. */
export async function registered(options: BenchOptions & { flags?: number } = {}): Promise<Bench> {
  const { flags = 0, ...more } = options;
  const made = bench(more);
  const results = [
    await out(made.first, 'register', 0, list(0n, 0xan, flags)),
    await out(made.second, 'registerIgnoring', 0, list(99n, 0xbn, flags)),
  ];
  if (results.some((result) => result !== 'GOOD')) throw new Error(`not registered: ${results}`);
  return made;
}
