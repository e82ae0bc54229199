/**
 * The least of PostgreSQL's protocol (version 3, simple queries, no password), so that a test knows exactly which
 * commits were acknowledged: psql and pgbench tell only of their own end.
 */
import { connect, type Socket } from 'node:net';

const protocolVersion = 196_608;

interface Waiting {
  rows: (string | null)[][];
  error: Error | null;
  resolve: (rows: (string | null)[][]) => void;
  reject: (error: Error) => void;
}

export class PostgresClient {
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  #waiting: Waiting | null = null;
  #ended: Error | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (bytes) => this.#receive(bytes));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('the server closed the connection')));
  }

  static async connect(port: number, database = 'postgres', limitMs = 5000): Promise<PostgresClient> {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    const client = new PostgresClient(socket);
    const timer = setTimeout(() => socket.destroy(new Error('the server does not answer')), limitMs);
    try {
      const parameters = Buffer.from(`user\0postgres\0database\0${database}\0\0`);
      const header = Buffer.alloc(8);
      header.writeInt32BE(header.length + parameters.length, 0);
      header.writeInt32BE(protocolVersion, 4);
      await client.#ask(Buffer.concat([header, parameters]));
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return client;
  }

  /** Rows as text. Statements in one call are one transaction; when it resolves, they are committed. */
  query(sql: string): Promise<(string | null)[][]> {
    const text = Buffer.from(`${sql}\0`);
    const header = Buffer.alloc(5);
    header.write('Q');
    header.writeInt32BE(text.length + 4, 1);
    return this.#ask(Buffer.concat([header, text]));
  }

  close(): void {
    this.#socket.destroy();
  }

  #ask(message: Buffer): Promise<(string | null)[][]> {
    if (this.#ended !== null) return Promise.reject(this.#ended);
    if (this.#waiting !== null) throw new Error('one query at a time');
    return new Promise((resolve, reject) => {
      this.#waiting = { rows: [], error: null, resolve, reject };
      this.#socket.write(message);
    });
  }

  #fail(error: Error): void {
    this.#ended ??= error;
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.reject(error);
  }

  #receive(bytes: Buffer): void {
    this.#received = Buffer.concat([this.#received, bytes]);
    while (this.#received.length >= 5) {
      const length = this.#received.readInt32BE(1) + 1;
      if (this.#received.length < length) return;
      const message = this.#received.subarray(0, length);
      this.#received = this.#received.subarray(length);
      this.#handle(String.fromCharCode(message[0]!), message.subarray(5));
    }
  }

  #handle(kind: string, body: Buffer): void {
    const waiting = this.#waiting;
    if (waiting === null) return;
    if (kind === 'D') waiting.rows.push(dataRow(body));
    // A fatal error is followed by the end of the connection, any other by ReadyForQuery.
    if (kind === 'E') waiting.error = new Error(errorText(body));
    if (kind !== 'Z') return;
    this.#waiting = null;
    if (waiting.error !== null) waiting.reject(waiting.error);
    else waiting.resolve(waiting.rows);
  }
}

function dataRow(body: Buffer): (string | null)[] {
  const row: (string | null)[] = [];
  let at = 2;
  for (let column = 0; column < body.readInt16BE(0); column++) {
    const length = body.readInt32BE(at);
    at += 4;
    row.push(length < 0 ? null : body.toString('utf8', at, at + length));
    at += Math.max(0, length);
  }
  return row;
}

/** Fields of one letter and a string each; M is the message for people. */
function errorText(body: Buffer): string {
  const fields = body.toString('utf8').split('\0');
  return fields.find((field) => field.startsWith('M'))?.slice(1) ?? 'an error without words';
}
