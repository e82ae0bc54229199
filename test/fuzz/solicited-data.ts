/** What an initiator may send unasked, and the Data-Outs with which it answers an R2T, right and wrong (RFC 7143 §11.7, §11.8). */
import { type CommandStep, lengthOf, type Solicited } from './conversation.ts';

export interface DataOut {
  ttt: number;
  dataSn: number;
  offset: number;
  data: Buffer;
  final: boolean;
}

interface Asked {
  ttt: number;
  offset: number;
  lengthBytes: number;
}

/** The longest data segment that is sent. Targets take 8 KiB at least, ours 256. */
const pieceBytes = 64 * 1024;

/** The wrong ways but 'none' send once what an R2T asks for, with one fault. */
export function dataOutsFor(how: Solicited, asked: Asked, data: Buffer): DataOut[] {
  if (how === 'none') return [];
  const most = how === 'many pieces' ? 512 : pieceBytes;
  const pieces: DataOut[] = [];
  const end = Math.min(asked.offset + asked.lengthBytes, data.length);
  // A thousand pieces show no more than a hundred.
  const step = Math.max(most, Math.ceil((end - asked.offset) / 100 / 4) * 4);
  for (let at = asked.offset; at < end || pieces.length === 0; at += step) {
    const piece = data.subarray(at, Math.min(at + step, end));
    pieces.push({ ttt: asked.ttt, dataSn: pieces.length, offset: at, data: piece, final: at + step >= end });
  }
  const last = pieces.at(-1)!;
  switch (how) {
    case 'short':
      last.data = last.data.subarray(0, last.data.length >> 1);
      break;
    case 'long':
      last.data = Buffer.concat([last.data, Buffer.alloc(512, 1)]);
      break;
    case 'never final':
      last.final = false;
      break;
    case 'wrong tag':
      last.ttt = (last.ttt + 1) >>> 0;
      break;
    case 'wrong offset':
      last.offset += 512;
      break;
    case 'wrong DataSN':
      last.dataSn += 1;
      break;
    case 'twice':
      pieces.push({ ...last });
      break;
    default:
  }
  return pieces;
}

/** How much of a command's data the session's parameters let go unasked. */
export function maySend(
  negotiated: ReadonlyMap<string, string>,
  step: CommandStep,
): { immediateBytes: number; unsolicitedBytes: number } {
  const number = (key: string, otherwise: number) => {
    const value = Number(negotiated.get(key) ?? otherwise);
    return Number.isInteger(value) ? value : otherwise;
  };
  const firstBurst = Math.min(number('FirstBurstLength', 65_536), number('MaxBurstLength', 262_144));
  const whole = Math.min(lengthOf(step.data), step.expectedBytes, firstBurst);
  const mayImmediate = negotiated.get('ImmediateData') !== 'No';
  const segment = Math.min(number('MaxRecvDataSegmentLength', 8192), whole);
  const immediateBytes = mayImmediate ? Math.min(step.immediateBytes, segment) : 0;
  const mayUnasked = negotiated.get('InitialR2T') === 'No';
  const unsolicitedBytes = mayUnasked ? Math.min(step.unsolicitedBytes, whole - immediateBytes) : 0;
  return { immediateBytes, unsolicitedBytes };
}
