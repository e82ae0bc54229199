/**
 * An initiator that sends exactly what a test says, right or wrong. It builds its PDUs by itself, so that a mistake in
 * the target's own layouts shows.
 */
import { createHash } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { crc32c } from '@node-rs/crc32';

export const noTag = 0xffffffff;

export interface Pdu {
  header: Buffer;
  data: Buffer;
  opcode: number;
  flags: number;
  itt: number;
}

export interface RequestFields {
  opcode: number;
  immediate?: boolean;
  flags?: number;
  byte2?: number;
  byte3?: number;
  lun?: Buffer;
  itt?: number;
  /** Bytes 20-23, 24-27, 28-31 and so on, in words. */
  words?: Partial<Record<20 | 24 | 28 | 32 | 36 | 40 | 44, number>>;
  cdb?: Buffer;
  data?: Buffer;
}

export class Initiator {
  readonly socket: Socket;
  headerDigest = false;
  dataDigest = false;
  cmdSn = 1;
  expStatSn = 0;
  name = 'iqn.2026-11.test:host-a';
  isid = '800000000001';
  cid = 0;
  /** Text keys of the last login answer of each step, merged. */
  readonly answered = new Map<string, string>();
  loginStatus = -1;
  tsih = 0;
  isClosed = false;
  private nextItt = 1;
  private received: Buffer = Buffer.alloc(0);
  private readonly pdus: Pdu[] = [];
  private wake: (() => void) | null = null;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (data: Buffer) => {
      this.received = this.received.length === 0 ? data : Buffer.concat([this.received, data]);
      this.cut();
      this.wake?.();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isClosed = true;
      this.wake?.();
    });
  }

  /** `from`: the address it comes from. */
  static connect(port: number, from = '127.0.0.1'): Promise<Initiator> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port, localAddress: from }, () =>
        resolve(new Initiator(socket)),
      );
      socket.once('error', reject);
    });
  }

  itt(): number {
    this.nextItt += 1;
    return this.nextItt;
  }

  encode(fields: RequestFields): Buffer {
    const header = Buffer.alloc(48);
    const data = fields.data ?? Buffer.alloc(0);
    header[0] = fields.opcode | (fields.immediate ? 0x40 : 0);
    header[1] = fields.flags ?? 0x80;
    header[2] = fields.byte2 ?? 0;
    header[3] = fields.byte3 ?? 0;
    header.writeUIntBE(data.length, 5, 3);
    fields.lun?.copy(header, 8);
    header.writeUInt32BE(fields.itt ?? this.itt(), 16);
    for (const [at, value] of Object.entries(fields.words ?? {})) header.writeUInt32BE(value, Number(at));
    fields.cdb?.copy(header, 32);
    const parts: Buffer[] = [header];
    // Digests begin after the login.
    const isLogin = fields.opcode === 0x03;
    if (this.headerDigest && !isLogin) parts.push(digestOf(header));
    const padded = Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
    if (padded.length > 0) parts.push(padded);
    if (this.dataDigest && !isLogin && padded.length > 0) parts.push(digestOf(padded));
    return Buffer.concat(parts);
  }

  send(fields: RequestFields): void {
    this.socket.write(this.encode(fields));
  }

  /** The next PDU, or null when the target closed the connection. */
  async next(): Promise<Pdu | null> {
    while (this.pdus.length === 0) {
      if (this.isClosed) return null;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
      this.wake = null;
    }
    const pdu = this.pdus.shift()!;
    if (pdu.itt !== noTag || pdu.opcode !== 0x20) this.expStatSn = pdu.header.readUInt32BE(24) + 1;
    return pdu;
  }

  /** Resolves once the target has closed the connection, with what it sent before. */
  async drain(): Promise<Pdu[]> {
    const all: Pdu[] = [];
    for (let pdu = await this.next(); pdu !== null; pdu = await this.next()) all.push(pdu);
    return all;
  }

  close(): void {
    this.socket.destroy();
  }

  /** One login request; answers with the response. */
  async loginStep(
    stage: number,
    nextStage: number | null,
    keys: Record<string, string>,
    more: { tsih?: number; continued?: boolean; versionMin?: number } = {},
  ): Promise<Pdu | null> {
    const text = Object.entries(keys)
      .map(([key, value]) => `${key}=${value}\0`)
      .join('');
    const lun = Buffer.alloc(8);
    lun.write(this.isid, 0, 'hex');
    lun.writeUInt16BE(more.tsih ?? 0, 6);
    this.send({
      opcode: 0x03,
      immediate: true,
      flags: (nextStage === null ? 0 : 0x80 | nextStage) | (stage << 2) | (more.continued ? 0x40 : 0),
      byte3: more.versionMin ?? 0,
      lun,
      itt: 1,
      words: { 20: this.cid << 16, 24: this.cmdSn, 28: this.expStatSn },
      data: Buffer.from(text),
    });
    const pdu = await this.next();
    if (pdu === null) return null;
    this.loginStatus = pdu.header.readUInt16BE(36);
    this.tsih = pdu.header.readUInt16BE(14);
    for (const [key, value] of textOf(pdu.data)) this.answered.set(key, value);
    return pdu;
  }

  /** A whole login. With `chap`, CHAP with MD5 unless another algorithm is named. */
  async login(
    iqn: string | null,
    options: {
      chap?: { user: string; secret: string; algorithms?: string };
      mutual?: { secret: string };
      keys?: Record<string, string>;
      tsih?: number;
    } = {},
  ): Promise<number> {
    const who: Record<string, string> = { InitiatorName: this.name };
    if (iqn === null) who.SessionType = 'Discovery';
    else who.TargetName = iqn;
    const { chap, tsih = 0 } = options;
    if (chap === undefined) {
      await this.loginStep(0, 1, { ...who, AuthMethod: 'None' }, { tsih });
    } else {
      await this.loginStep(0, null, { ...who, AuthMethod: 'CHAP,None' });
      if (this.loginStatus !== 0) return this.loginStatus;
      await this.loginStep(0, null, { CHAP_A: chap.algorithms ?? '5' });
      if (this.loginStatus !== 0) return this.loginStatus;
      const response = chapResponse(
        this.answered.get('CHAP_A') === '7' ? 'sha256' : 'md5',
        Number(this.answered.get('CHAP_I')),
        chap.secret,
        Buffer.from(this.answered.get('CHAP_C')!.slice(2), 'hex'),
      );
      const answer: Record<string, string> = { CHAP_N: chap.user, CHAP_R: `0x${response.toString('hex')}` };
      if (options.mutual !== undefined)
        Object.assign(answer, { CHAP_I: '77', CHAP_C: `0x${'5a'.repeat(16)}` });
      await this.loginStep(0, 1, answer);
    }
    if (this.loginStatus !== 0) return this.loginStatus;
    await this.loginStep(
      1,
      3,
      {
        HeaderDigest: this.headerDigest ? 'CRC32C' : 'None',
        DataDigest: this.dataDigest ? 'CRC32C' : 'None',
        InitialR2T: 'No',
        ImmediateData: 'Yes',
        MaxRecvDataSegmentLength: '65536',
        MaxBurstLength: '1048576',
        FirstBurstLength: '262144',
        MaxOutstandingR2T: '4',
        ErrorRecoveryLevel: '0',
        ...options.keys,
      },
      { tsih },
    );
    return this.loginStatus;
  }

  /** Sends a SCSI command; answers with its ITT. */
  command(
    cdb: Buffer,
    options: {
      read?: number;
      write?: number;
      data?: Buffer;
      final?: boolean;
      attribute?: number;
      immediate?: boolean;
      cmdSn?: number;
      itt?: number;
      lun?: Buffer;
    } = {},
  ): number {
    const itt = options.itt ?? this.itt();
    const flags =
      (options.final === false ? 0 : 0x80) |
      (options.read === undefined ? 0 : 0x40) |
      (options.write === undefined ? 0 : 0x20) |
      (options.attribute ?? 1);
    const cmdSn = options.cmdSn ?? this.cmdSn;
    if (options.cmdSn === undefined && !options.immediate) this.cmdSn += 1;
    this.send({
      opcode: 0x01,
      immediate: options.immediate ?? false,
      flags,
      itt,
      words: { 20: options.read ?? options.write ?? 0, 24: cmdSn, 28: this.expStatSn },
      cdb,
      ...(options.lun === undefined ? {} : { lun: options.lun }),
      ...(options.data === undefined ? {} : { data: options.data }),
    });
    return itt;
  }

  dataOut(itt: number, ttt: number, dataSn: number, offset: number, data: Buffer, final: boolean): void {
    const words = { 20: ttt, 28: this.expStatSn, 36: dataSn, 40: offset };
    this.send({ opcode: 0x05, flags: final ? 0x80 : 0, itt, words, data });
  }

  /** Collects a read: its data, and how it ended. */
  async collect(
    itt: number,
  ): Promise<{ data: Buffer; status: number; flags: number; residual: number; count: number }> {
    const parts: Buffer[] = [];
    for (let count = 0; ; ) {
      const pdu = await this.next();
      if (pdu === null) throw new Error('the target closed the connection');
      if (pdu.itt !== itt) throw new Error(`an answer to ${pdu.itt}, not ${itt}`);
      if (pdu.opcode === 0x25) {
        if (pdu.header.readUInt32BE(36) !== count) throw new Error('DataSN out of order');
        parts.push(pdu.data);
        count += 1;
      }
      if (pdu.opcode === 0x21 || (pdu.flags & 1) === 1) {
        const residual = pdu.header.readUInt32BE(44);
        return { data: Buffer.concat(parts), status: pdu.header[3]!, flags: pdu.flags, residual, count };
      }
    }
  }

  private cut(): void {
    for (;;) {
      const { received } = this;
      if (received.length < 48) return;
      const length = received.readUIntBE(5, 3);
      const headerBytes = 48 + (this.headerDigest ? 4 : 0);
      const padded = (length + 3) & ~3;
      const total = headerBytes + padded + (this.dataDigest && padded > 0 ? 4 : 0);
      // Digests begin after the login.
      const isLogin = received[0] === 0x23;
      const size = isLogin ? 48 + padded : total;
      if (received.length < size) return;
      const header = received.subarray(0, 48);
      const dataAt = isLogin ? 48 : headerBytes;
      if (!isLogin) this.verify(received, headerBytes, dataAt, padded);
      const data = received.subarray(dataAt, dataAt + length);
      this.pdus.push({
        header,
        data,
        opcode: header[0]! & 0x3f,
        flags: header[1]!,
        itt: header.readUInt32BE(16),
      });
      this.received = received.subarray(size);
    }
  }

  private verify(bytes: Buffer, headerBytes: number, dataAt: number, padded: number): void {
    if (this.headerDigest && !bytes.subarray(48, headerBytes).equals(digestOf(bytes.subarray(0, 48)))) {
      throw new Error('the target sent a wrong header digest');
    }
    const digestAt = dataAt + padded;
    if (this.dataDigest && padded > 0) {
      const expected = digestOf(bytes.subarray(dataAt, digestAt));
      if (!bytes.subarray(digestAt, digestAt + 4).equals(expected)) {
        throw new Error('the target sent a wrong data digest');
      }
    }
  }
}

/** RFC 7143 appendix: the CRC goes out with its least significant byte first. */
export function digestOf(bytes: Buffer): Buffer {
  const digest = Buffer.alloc(4);
  digest.writeUInt32LE(crc32c(bytes), 0);
  return digest;
}

export function textOf(data: Buffer): [string, string][] {
  return data
    .toString()
    .split('\0')
    .filter((item) => item !== '')
    .map((item) => [item.slice(0, item.indexOf('=')), item.slice(item.indexOf('=') + 1)]);
}

export function chapResponse(hash: string, identifier: number, secret: string, challenge: Buffer): Buffer {
  return createHash(hash).update(Buffer.of(identifier)).update(secret).update(challenge).digest();
}
