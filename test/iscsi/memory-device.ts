/** A SCSI device of the simplest kind: one LUN of memory, just enough commands to drive the transport. */
import type { ScsiDevice } from '../../daemon/iscsi/target-directory.ts';
import { type ScsiCommand, type ScsiReply, ScsiStatus } from '../../daemon/scsi/command.ts';

const sectorBytes = 512;

export class MemoryDevice implements ScsiDevice {
  readonly bytes: Buffer;
  readonly lost: string[] = [];
  readonly resets: string[] = [];
  /** While true, commands are not answered; `flow()` answers them. */
  isHeld = false;
  executed = 0;
  /** Nexus and port of each command. */
  readonly nexuses: [string, number][] = [];
  private readonly held: (() => void)[] = [];
  /** Data-in handed out and not released. */
  unreleased = 0;

  constructor(sizeBytes = 8 * 1024 * 1024) {
    this.bytes = Buffer.alloc(sizeBytes);
  }

  execute(command: ScsiCommand, done: (reply: ScsiReply) => void): void {
    this.executed += 1;
    this.nexuses.push([command.nexus, command.port]);
    const answer = () => done(this.reply(command));
    if (this.isHeld) this.held.push(answer);
    else if (command.cdb[0] === 0x12) answer();
    else setImmediate(answer);
  }

  get heldCount(): number {
    return this.held.length;
  }

  flow(): void {
    this.isHeld = false;
    for (const answer of this.held.splice(0)) answer();
  }

  nexusLost(nexus: string): void {
    this.lost.push(nexus);
  }
  resetUnit(lun: Buffer, nexus: string): void {
    this.resets.push(`unit ${lun.toString('hex')} ${nexus}`);
  }
  resetTarget(nexus: string): void {
    this.resets.push(`target ${nexus}`);
  }
  mayResetTarget(nexus: string): boolean {
    return !nexus.startsWith('iqn.2026-11.test:guest');
  }
  lunExists(lun: Buffer): boolean {
    return lun.readBigUInt64BE(0) === 0n;
  }

  private reply(command: ScsiCommand): ScsiReply {
    const { cdb, dataOut } = command;
    const none = { status: ScsiStatus.good, sense: null, dataIn: [], wantedInBytes: 0, wantedOutBytes: 0 };
    const at = cdb.readUInt32BE(2) * sectorBytes;
    const lengthBytes = cdb.readUInt16BE(7) * sectorBytes;
    switch (cdb[0]) {
      case 0x00:
        return none;
      case 0x12: {
        const page = cdb[1]! & 1 ? Buffer.from([0, cdb[2]!, 0, 1, 0]) : inquiryData();
        const data = page.subarray(0, cdb.readUInt16BE(3));
        return { ...none, dataIn: [data], wantedInBytes: data.length };
      }
      case 0x25: {
        const data = Buffer.alloc(8);
        data.writeUInt32BE(this.bytes.length / sectorBytes - 1, 0);
        data.writeUInt32BE(sectorBytes, 4);
        return { ...none, dataIn: [data], wantedInBytes: 8 };
      }
      case 0xa0: {
        const data = Buffer.alloc(16);
        data.writeUInt32BE(8, 0);
        return { ...none, dataIn: [data], wantedInBytes: 16 };
      }
      case 0x28:
        if (at + lengthBytes > this.bytes.length) break;
        this.unreleased += 1;
        return {
          ...none,
          dataIn: [Buffer.from(this.bytes.subarray(at, at + lengthBytes))],
          wantedInBytes: lengthBytes,
          release: () => {
            this.unreleased -= 1;
          },
        };
      case 0x2a:
        if (at + lengthBytes > this.bytes.length) break;
        dataOut.copy(this.bytes, at, 0, Math.min(lengthBytes, dataOut.length));
        return { ...none, wantedOutBytes: lengthBytes };
      case 0x35:
        return none;
      default:
        return { ...none, status: ScsiStatus.checkCondition, sense: fixedSense(5, 0x20, 0) };
    }
    return { ...none, status: ScsiStatus.checkCondition, sense: fixedSense(5, 0x21, 0) };
  }
}

function inquiryData(): Buffer {
  const data = Buffer.alloc(36, 0x20);
  data.set([0, 0, 6, 0x12, 31, 0, 0, 2], 0);
  data.write('WEFT', 8);
  data.write('MEMORY', 16);
  return data;
}

function fixedSense(key: number, asc: number, ascq: number): Buffer {
  const sense = Buffer.alloc(18);
  sense.set([0x70, 0, key, 0, 0, 0, 0, 10], 0);
  sense[12] = asc;
  sense[13] = ascq;
  return sense;
}

export function readCdb(sector: number, sectors: number, opcode = 0x28): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = opcode;
  cdb.writeUInt32BE(sector, 2);
  cdb.writeUInt16BE(sectors, 7);
  return cdb;
}

export const writeCdb = (sector: number, sectors: number): Buffer => readCdb(sector, sectors, 0x2a);

export function inquiryCdb(allocationBytes: number): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x12;
  cdb.writeUInt16BE(allocationBytes, 3);
  return cdb;
}
