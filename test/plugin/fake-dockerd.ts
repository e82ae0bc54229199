/** What dockerd does on the plugin's socket: POST, its own Accept, no Content-Type. */
import { request } from 'node:http';

export interface Answer {
  status: number;
  type: string;
  // biome-ignore lint/suspicious/noExplicitAny: documents of the protocol, looked into by assertions
  body: any;
}

export function post(
  socketPath: string,
  path: string,
  body: string | Buffer,
  method = 'POST',
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers: Record<string, string | number> = {
      accept: 'application/vnd.docker.plugins.v1.2+json',
      'content-length': Buffer.byteLength(body),
    };
    const call = request({ socketPath, path, method, headers, agent: false }, (response) => {
      const pieces: Buffer[] = [];
      response.on('data', (piece: Buffer) => pieces.push(piece));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(pieces).toString();
        resolve({
          status: response.statusCode ?? 0,
          type: response.headers['content-type'] ?? '',
          body: text === '' ? null : JSON.parse(text),
        });
      });
    });
    call.on('error', reject);
    call.end(body);
  });
}

export class FakeDockerd {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** A call of the VolumeDriver; Err is in the answer, '' for none. */
  async call(operation: string, document: Record<string, unknown> = {}) {
    return (await post(this.#socketPath, `/VolumeDriver.${operation}`, JSON.stringify(document))).body;
  }

  /** The same, which must succeed. */
  async must(operation: string, document: Record<string, unknown> = {}) {
    const answer = await this.call(operation, document);
    if (answer.Err !== '') throw new Error(`${operation} ${JSON.stringify(document)}: ${answer.Err}`);
    return answer;
  }
}
