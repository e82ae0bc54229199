import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { WeftClient } from '../../daemon/api/client.ts';

async function against(
  t: { teardown(end: () => void): void },
  listener: RequestListener,
): Promise<WeftClient> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return new WeftClient({ url: `http://127.0.0.1:${port}`, token: 'x', timeoutMs: 300 });
}

t.test('a server that does not answer in time is a TIMEOUT, before or within its answer', async (t) => {
  await t.rejects((await against(t, () => undefined)).status(), { code: 'TIMEOUT' });
  const stuck = await against(t, (_request, response) => void response.write('{'));
  await t.rejects(stuck.status(), { code: 'TIMEOUT' });
});

t.test('a server that breaks off or is none is UNAVAILABLE', async (t) => {
  await t.rejects((await against(t, (request) => request.socket.destroy())).status(), {
    code: 'UNAVAILABLE',
  });
  const half = await against(t, (_request, response) => {
    response.write('{', () => response.destroy());
  });
  await t.rejects(half.status(), { code: 'UNAVAILABLE' });
  for (const [status, body] of [
    [200, '<html>'],
    [502, 'Bad Gateway'],
    [502, '{}'],
    [500, '{"error":"x"}'],
  ] as const) {
    const other = await against(t, (_request, response) => response.writeHead(status).end(body));
    await t.rejects(other.status(), { code: 'UNAVAILABLE', message: /not weftd/ }, `${status} ${body}`);
  }
  const nobody = new WeftClient({ url: 'http://127.0.0.1:1', timeoutMs: 5000 });
  await t.rejects(nobody.status(), { code: 'UNAVAILABLE', message: /cannot reach weftd/ });
});

t.test('an answer without end is cut off', async (t) => {
  const client = await against(t, (_request, response) => {
    const piece = Buffer.alloc(1_048_576, 'x');
    const more = (): void => {
      while (!response.destroyed && response.write(piece));
    };
    response.on('drain', more);
    more();
  });
  const patient = new WeftClient({ url: client.url.href, timeoutMs: 10_000 });
  await t.rejects(patient.status(), { code: 'UNAVAILABLE', message: /too long/ });
});

t.test('errors keep their code and their facts; a code of a newer server is INTERNAL', async (t) => {
  const answer = (code: string) =>
    against(t, (_request, response) => {
      const error = { code, message: 'words', details: { holder: 'a' } };
      response.writeHead(409).end(JSON.stringify({ error }));
    });
  await t.rejects((await answer('IN_USE')).status(), {
    code: 'IN_USE',
    message: 'words',
    details: { holder: 'a' },
  });
  await t.rejects((await answer('TOO_MODERN')).status(), { code: 'INTERNAL', message: 'words' });
  await t.rejects((await answer('toString')).status(), { code: 'INTERNAL' });
});

t.test('names cannot change the route they are put into', async (t) => {
  const urls: string[] = [];
  const client = await against(t, (request, response) => {
    urls.push(`${request.method} ${request.url}`);
    response.end('{}');
  });
  await client.volume('a/../../tokens?x#y');
  await client.volume('ü');
  t.strictSame(urls, ['GET /api/v1/volumes/a%2F..%2F..%2Ftokens%3Fx%23y', 'GET /api/v1/volumes/%C3%BC']);
  for (const name of ['', '.', '..']) {
    await t.rejects(async () => client.removeVolume(name), { code: 'INVALID_ARGUMENT' });
  }
  t.equal(urls.length, 2);
});

t.test('an address that is none is refused at once', async (t) => {
  for (const url of ['', '127.0.0.1:7480', 'ftp://a', 'unix:/run/x']) {
    t.throws(() => new WeftClient({ url }), { code: 'INVALID_ARGUMENT', message: /http:\/\/HOST:PORT/ }, url);
  }
});
