/** A small initiator for tests: builds CDBs, sends them to a device server, and reads what comes back. */
import { GiB, sectorSizeBytes } from '../../daemon/base/limits.ts';
import { type ScsiReply, ScsiStatus } from '../../daemon/scsi/command.ts';
import { DeviceServer, type DeviceServerOptions } from '../../daemon/scsi/device-server.ts';
import { LogicalUnit } from '../../daemon/scsi/logical-unit.ts';
import { nexusParts } from '../../daemon/scsi/nexus-name.ts';
import { MemoryDevice } from './memory-device.ts';
import { MemoryUnitState } from './memory-unit-state.ts';

export const testUuid = '0199f3d2-7b1c-4c7a-9a3e-0123456789ab';
export const lunZero = Buffer.alloc(8);

export interface Bench {
  device: MemoryDevice;
  unit: LogicalUnit;
  /** What the unit keeps; another bench on it is the unit after a restart. */
  kept: MemoryUnitState;
  server: DeviceServer;
  first: Initiator;
  second: Initiator;
}

export interface BenchOptions extends Omit<Partial<DeviceServerOptions>, 'units'> {
  sizeBytes?: number;
  durability?: 'flush' | 'sync';
  /** Null: nothing survives a restart. */
  kept?: MemoryUnitState | null;
}

/** One unit of 1 GiB and two initiators, both at port 1. */
export function bench(options: BenchOptions = {}): Bench {
  const { sizeBytes = GiB, durability = 'flush', kept = new MemoryUnitState(), ...ofServer } = options;
  const device = new MemoryDevice({ sizeBytes, durability });
  const store = kept === null ? {} : { store: kept.open() };
  const unit = new LogicalUnit({ device, identity: { uuid: testUuid }, ...store });
  const server = new DeviceServer({ ...ofServer, units: new Map([[0, unit]]) });
  return {
    device,
    unit,
    kept: kept ?? new MemoryUnitState(),
    server,
    first: new Initiator(server, 'iqn.2026-01.test:a,i,0x800000000001,t,0x0001'),
    second: new Initiator(server, 'iqn.2026-01.test:b,i,0x800000000002,t,0x0001'),
  };
}

/** 'GOOD', 'CONFLICT', or 'key/asc/ascq' of the sense data. */
export function outcome(reply: ScsiReply): string {
  if (reply.status === ScsiStatus.good) return 'GOOD';
  if (reply.status === ScsiStatus.conditionMet) return 'CONDITION MET';
  if (reply.status === ScsiStatus.reservationConflict) return 'CONFLICT';
  if (reply.status === ScsiStatus.taskAborted) return 'ABORTED';
  if (reply.status === ScsiStatus.busy) return 'BUSY';
  const sense = reply.sense!;
  const codes = sense[0]! & 0x02 ? [sense[1]!, sense[2]!, sense[3]!] : [sense[2]!, sense[12]!, sense[13]!];
  return codes.map((code) => code.toString(16).padStart(2, '0')).join('/');
}

export class Initiator {
  readonly nexus: string;
  readonly #server: DeviceServer;
  readonly #port: number;

  constructor(server: DeviceServer, nexus: string, port = nexusParts(nexus).targetPort) {
    this.#port = port;
    this.#server = server;
    this.nexus = nexus;
  }

  /** `cdb`: hexadecimal, filled up with zeros to 16 bytes. */
  send(
    cdb: string | Buffer,
    options: { dataOut?: Buffer; expectedInBytes?: number; lun?: Buffer } = {},
  ): Promise<ScsiReply> {
    const bytes = typeof cdb === 'string' ? Buffer.from(cdb.replaceAll(' ', ''), 'hex') : cdb;
    const { dataOut = Buffer.alloc(0), expectedInBytes = 1 << 24, lun = lunZero } = options;
    return new Promise((resolve) => {
      const cdb = Buffer.concat([bytes], 16);
      const command = { lun, cdb, dataOut, expectedInBytes, nexus: this.nexus, port: this.#port };
      this.#server.execute(command, resolve);
    });
  }

  /** What came of a command, in one word. */
  async result(cdb: string | Buffer, dataOut?: Buffer): Promise<string> {
    return outcome(await this.send(cdb, dataOut === undefined ? {} : { dataOut }));
  }

  /** The data-in of a command that must be GOOD. */
  async data(cdb: string | Buffer, dataOut?: Buffer): Promise<Buffer> {
    const reply = await this.send(cdb, dataOut === undefined ? {} : { dataOut });
    if (reply.status !== ScsiStatus.good) throw new Error(`not GOOD but ${outcome(reply)}`);
    const data = Buffer.concat(reply.dataIn);
    reply.release?.();
    return data;
  }

  write(block: number, data: Buffer): Promise<string> {
    return this.result(cdb10(0x2a, 0, block, data.length / sectorSizeBytes), data);
  }

  read(block: number, blocks: number): Promise<Buffer> {
    return this.data(cdb10(0x28, 0, block, blocks));
  }
}

export function cdb6(opcode: number, block: number, blocks: number): Buffer {
  return Buffer.from([opcode, block >> 16, (block >> 8) & 0xff, block & 0xff, blocks, 0]);
}

export function cdb10(opcode: number, flags: number, block: number, blocks: number): Buffer {
  const cdb = Buffer.alloc(10);
  cdb[0] = opcode;
  cdb[1] = flags;
  cdb.writeUInt32BE(block, 2);
  cdb.writeUInt16BE(blocks, 7);
  return cdb;
}

export function cdb12(opcode: number, flags: number, block: number, blocks: number): Buffer {
  const cdb = Buffer.alloc(12);
  cdb[0] = opcode;
  cdb[1] = flags;
  cdb.writeUInt32BE(block, 2);
  cdb.writeUInt32BE(blocks, 6);
  return cdb;
}

export function cdb16(opcode: number, flags: number, block: number | bigint, blocks: number): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = opcode;
  cdb[1] = flags;
  cdb.writeBigUInt64BE(BigInt(block), 2);
  cdb.writeUInt32BE(blocks, 10);
  return cdb;
}

/** Sectors that tell where they belong. */
export function pattern(blocks: number, seed = 1): Buffer {
  const data = Buffer.alloc(blocks * sectorSizeBytes);
  for (let index = 0; index < data.length; index += 1)
    data[index] = (index * 31 + (index >> 9) * 7 + seed) & 0xff;
  return data;
}
