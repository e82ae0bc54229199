/** The socket of one conversation: whole or in pieces, cut off where the conversation wants it, with a memory of headers. */
import { connect, type Socket } from 'node:net';
import type { Conversation } from './conversation.ts';

/** How long anything that has to be answered may take, in ms: longer than any command takes on a busy machine. */
export const answerLimitMs = 20_000;
/** Unsent bytes at which the conversation waits for the socket. */
const unsentLimitBytes = 1 << 20;
/** Of a conversation's PDUs, how many are remembered. */
const traceLength = 120;

export class SpeakingSocket {
  isOver = false;
  readonly #socket: Socket;
  readonly #conversation: Conversation;
  #sentBytes = 0;
  readonly #headers: [whose: '<' | '>', header: Buffer][] = [];
  /** Whoever waits for something to change. */
  readonly #wakers = new Set<() => void>();
  /** Ends when everything said so far is written: pieces of two PDUs never mix. */
  #writing: Promise<void> = Promise.resolve();

  /** From an address of its own within 127.0.0.0/8: hosts are told apart, and so are their failures. */
  constructor(port: number, conversation: Conversation, received: (bytes: Buffer) => void) {
    const { number } = conversation;
    const localAddress = `127.${1 + (number & 0x7f)}.${(number >> 7) & 0xff}.${1 + ((number >> 15) & 0x7f)}`;
    const socket = connect({ host: '127.0.0.1', port, localAddress });
    this.#socket = socket;
    this.#conversation = conversation;
    socket.setNoDelay(true);
    socket.on('data', (bytes: Buffer) => {
      received(bytes);
      this.#changed();
    });
    socket.on('connect', () => this.#changed());
    socket.on('drain', () => this.#changed());
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isOver = true;
      this.#changed();
    });
  }

  async connected(): Promise<void> {
    const isOpen = () => this.#socket.readyState === 'open';
    if (!(await this.until(isOpen, answerLimitMs))) throw new Error('the target took no connection');
  }

  /** Sends after everything before it. @throws Error when the target takes no bytes. */
  send(bytes: Buffer): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write(bytes));
    return this.#writing;
  }

  async #write(bytes: Buffer): Promise<void> {
    if (this.isOver) return;
    this.remember('>', bytes);
    const { cutAfterBytes, pieceBytes } = this.#conversation;
    const leftBytes = cutAfterBytes === null ? bytes.length : cutAfterBytes - this.#sentBytes;
    const sending = bytes.subarray(0, leftBytes);
    this.#sentBytes += sending.length;
    // Very long PDUs are dribbled in 64 pieces, or one conversation would take the time of a thousand.
    const piece = pieceBytes === 0 ? sending.length : Math.max(pieceBytes, sending.length >> 6);
    for (let at = 0; at < sending.length && !this.isOver; at += piece) {
      this.#socket.write(sending.subarray(at, at + piece));
      if (pieceBytes > 0) await new Promise(setImmediate);
    }
    if (sending.length < bytes.length) {
      this.isOver = true;
      this.#socket.destroy();
      return;
    }
    const isTaken = () => this.#socket.writableLength <= unsentLimitBytes;
    if (!isTaken() && !(await this.until(isTaken, answerLimitMs)) && !this.isOver) {
      throw new Error('the target takes no more bytes');
    }
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  remember(whose: '<' | '>', bytes: Buffer): void {
    this.#headers.push([whose, Buffer.from(bytes.subarray(0, 48))]);
    if (this.#headers.length > 2 * traceLength) this.#headers.splice(0, traceLength);
  }

  /** The headers of the last PDUs, in hexadecimal, ">" for ours. */
  trace(): string[] {
    return this.#headers.slice(-traceLength).map(([whose, header]) => `${whose} ${header.toString('hex')}`);
  }

  /** Waits until that holds, the connection is over, or the time is; says whether it holds. */
  async until(holds: () => boolean, limitMs: number): Promise<boolean> {
    const endMs = performance.now() + limitMs;
    while (!holds() && !this.isOver) {
      const leftMs = endMs - performance.now();
      if (leftMs <= 0) return false;
      await new Promise<void>((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          this.#wakers.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, leftMs);
        this.#wakers.add(wake);
      });
    }
    return holds();
  }

  #changed(): void {
    for (const wake of [...this.#wakers]) wake();
  }
}
