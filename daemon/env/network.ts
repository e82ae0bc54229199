/**
 * Streams of bytes between hosts, as the fabric sees them.
 *
 * Built for the hot path: received bytes land where the receiver says (a parser's slab, or straight in a command's
 * transfer buffer), everything written in one call leaves in one writev, and nothing here makes a promise per message.
 */
import type { Server } from 'node:net';
import { createServer, Socket } from 'node:net';
import { asWeftError, WeftError } from '../base/errors.ts';
import { pollBusily } from './busy-poll.ts';

export interface Network {
  /**
   * Port 0 takes any free one. Fails with UNAVAILABLE when the address cannot be had. `onConnection` answers with the
   * receiver of the connection's bytes, or null to refuse it; the connection takes calls after it returned.
   */
  listen(
    host: string,
    port: number,
    onConnection: (connection: Connection) => Receiver | null,
  ): Promise<Listener>;
}

export interface Listener {
  readonly host: string;
  readonly port: number;
  /** Accepts no more; connections already made live on. */
  close(): Promise<void>;
}

export interface Connection {
  /** `address:port` of either end, IPv6 addresses in brackets. */
  readonly remoteAddress: string;
  readonly localAddress: string;
  /**
   * Sends the pieces, at least one, in order; they stay untouched until `sent`, which is called once, also when sending failed, and
   * never before that of an earlier write.
   */
  write(pieces: readonly Buffer[], sent: () => void): void;
  /** Calls `fire` when everything that is ready now has been handled: the place to send a turn's output at once. */
  endOfTurn(fire: () => void): void;
  pause(): void;
  resume(): void;
  /** Sends what is written, says goodbye, discards what still comes, and closes within `lingerMs`. */
  end(): void;
  /** Closes at once. */
  destroy(): void;
}

/** The owner of a connection's bytes. */
export interface Receiver {
  /** Where the next bytes may land: at least one byte. */
  room(): Buffer;
  /** That many bytes have landed at the start of the last `room()`. */
  filled(bytes: number): void;
  /** Called once. No byte lands or leaves any more. */
  closed(): void;
}

/** How long a closing connection waits for the other end, in ms. Without it a lost host would hold a socket for ever. */
export const lingerMs = 1000;

/** Accepted by the system and not by us yet. A fabric's worth of hosts may log in at once after a power cut. */
const listenBacklog = 511;

export const systemNetwork: Network = {
  listen(host, port, onConnection) {
    return new Promise((resolve, reject) => {
      const server = createServer({ noDelay: true, keepAlive: true, pauseOnConnect: true }, (accepted) =>
        welcome(accepted, onConnection),
      );
      server.once('error', (error) => {
        reject(
          new WeftError('UNAVAILABLE', `cannot listen on ${host}:${port}: ${error.message}`, {
            cause: error,
          }),
        );
      });
      server.listen({ host, port, backlog: listenBacklog }, () => {
        server.removeAllListeners('error');
        // A failed accept (out of descriptors) is not the end of the listener.
        server.on('error', () => {});
        resolve(systemListener(server, host));
      });
    });
  },
};

function systemListener(server: Server, host: string): Listener {
  const address = server.address();
  if (address === null || typeof address === 'string') throw asWeftError(new Error('not a TCP listener'));
  return {
    host,
    port: address.port,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

/**
 * Node lets only the maker of a socket choose where data lands (`onread`), and a server makes its sockets itself. So
 * the handle moves from the accepted socket, which has read nothing yet (`pauseOnConnect`), to one of our making.
 */
function welcome(accepted: Socket, onConnection: (connection: Connection) => Receiver | null): void {
  accepted.on('error', () => {});
  const remote = socketAddress(accepted.remoteAddress, accepted.remotePort);
  const local = socketAddress(accepted.localAddress, accepted.localPort);
  const holder = accepted as unknown as { _handle: unknown };
  if (remote !== null && local !== null && holder._handle !== null) {
    const connection = new SystemConnection(remote, local);
    const receiver = onConnection(connection);
    if (receiver !== null) {
      const handle = holder._handle;
      holder._handle = null;
      connection.start(handle, receiver);
    }
  }
  // Without its handle this only takes the accepted socket off the server's count; with it, it closes the connection.
  accepted.destroy();
}

const nowhere = Buffer.alloc(64 * 1024);

class SystemConnection implements Connection {
  readonly remoteAddress: string;
  readonly localAddress: string;
  private socket: Socket | null = null;
  private isEnding = false;
  private isClosed = false;
  /** Of writes behind the end: what was written before them may be on its way still. */
  private unsent: (() => void)[] = [];

  constructor(remoteAddress: string, localAddress: string) {
    this.remoteAddress = remoteAddress;
    this.localAddress = localAddress;
  }

  start(handle: unknown, receiver: Receiver): void {
    const socket = new Socket({
      handle,
      onread: {
        buffer: () => (this.isEnding ? nowhere : receiver.room()),
        callback: (bytes: number) => {
          pollBusily();
          if (!this.isEnding) receiver.filled(bytes);
          return true;
        },
      },
    } as unknown as ConstructorParameters<typeof Socket>[0]);
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('end', () => this.end());
    socket.on('close', () => {
      this.isEnding = true;
      this.isClosed = true;
      for (const sent of this.unsent.splice(0)) sent();
      receiver.closed();
    });
  }

  write(pieces: readonly Buffer[], sent: () => void): void {
    const last = pieces.length - 1;
    const socket = this.socket;
    if (socket === null || this.isClosed) {
      sent();
      return;
    }
    if (this.isEnding) {
      this.unsent.push(sent);
      return;
    }
    pollBusily();
    if (last > 0) socket.cork();
    for (let index = 0; index < last; index += 1) socket.write(pieces[index]!);
    socket.write(pieces[last]!, () => sent());
    if (last > 0) socket.uncork();
  }

  endOfTurn(fire: () => void): void {
    setImmediate(fire);
  }

  pause(): void {
    this.socket?.pause();
  }

  resume(): void {
    if (!this.isClosed) this.socket?.resume();
  }

  end(): void {
    if (this.isEnding || this.socket === null) return;
    this.isEnding = true;
    const socket = this.socket;
    socket.resume();
    socket.end();
    const timer = setTimeout(() => socket.destroy(), lingerMs);
    timer.unref();
    socket.once('close', () => clearTimeout(timer));
  }

  destroy(): void {
    this.isEnding = true;
    this.socket?.destroy();
  }
}

function socketAddress(address: string | undefined, port: number | undefined): string | null {
  if (address === undefined || port === undefined) return null;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/**
 * What initiators are told of a listener on `host`: nobody can log in to "all addresses", so for that the machine's
 * own, and loopback when it has no other.
 */
export function reachableHosts(
  host: string,
  interfaces: Readonly<Record<string, readonly NetworkAddress[] | undefined>>,
): string[] {
  const families = wildcardFamilies.get(host);
  if (families === undefined) return [host];
  const own = Object.values(interfaces)
    .flatMap((addresses) => addresses ?? [])
    .filter(({ family, internal, address }) => {
      // A link-local address means nothing without the interface it is of.
      return families.includes(family) && !internal && !address.startsWith('fe80:');
    })
    .map(({ address }) => address);
  return own.length > 0 ? own : [host === '0.0.0.0' ? '127.0.0.1' : '::1'];
}

/** As `os.networkInterfaces` lists them. */
export interface NetworkAddress {
  address: string;
  family: string;
  internal: boolean;
}

const wildcardFamilies: ReadonlyMap<string, readonly string[]> = new Map([
  ['0.0.0.0', ['IPv4']],
  ['::', ['IPv4', 'IPv6']],
]);
