import t from 'tap';
import { ApiFabric, adminToken } from './api-fabric.ts';

interface Bad {
  what: string;
  method: string;
  path: string;
  /** Sent as it is when it is text, as JSON otherwise. */
  body?: unknown;
  headers?: Record<string, string>;
  status: number;
  code: string;
  /** The message says so. */
  says?: RegExp;
}

const volumes = '/api/v1/volumes';
const initiator = 'iqn.2026-11.example:host';
const filesystem = { type: 'ext4', uuid: '5c5b2a0e-5f0e-4b57-9d0a-222222222222', state: 'ready' };
const post = (what: string, body: unknown, says: RegExp, more: Partial<Bad> = {}): Bad => ({
  what,
  method: 'POST',
  path: volumes,
  body,
  status: 400,
  code: 'INVALID_ARGUMENT',
  says,
  ...more,
});
const patch = (what: string, body: unknown, says: RegExp, more: Partial<Bad> = {}): Bad =>
  post(what, body, says, { method: 'PATCH', path: `${volumes}/db`, ...more });

const wrong: Bad[] = [
  post('malformed JSON', '{"name": "x"', /not JSON/),
  post('an empty body', '', /name/),
  post('JSON that is no object', '[]', /body/),
  post('a bare value', '"x"', /^body: .*object/),
  post('a null', 'null', /^body: .*object/),
  post('another content type', 'name=x', /content-type: application\/json/, {
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
  }),
  post('a compressed body', '{}', /encoding/, { headers: { 'content-encoding': 'gzip' } }),
  post('a body of a megabyte', JSON.stringify({ name: 'x'.repeat(1_048_576) }), /64 KiB/, {
    status: 413,
    code: 'PAYLOAD_TOO_LARGE',
  }),
  post('an unknown key', { name: 'x', sise: 1 }, /sise.*allowed: name, sizeBytes/),
  post('no name', { sizeBytes: 1_073_741_824 }, /^name: /),
  post('an empty name', { name: '' }, /^name: a name is 1 to 128/),
  post('a name that climbs', { name: '../../etc/passwd' }, /^name: /),
  post('a name with a slash', { name: 'a/b' }, /^name: /),
  post('a name of dots', { name: '..' }, /^name: /),
  post('a name with a NUL', { name: 'a\u0000b' }, /^name: /),
  post('a name with a line break', { name: 'a\n' }, /^name: /),
  post('a name that is too long', { name: 'a'.repeat(129) }, /^name: /),
  post('a name that is a number', { name: 5 }, /^name: .*string/),
  post('a size of zero', { name: 'x', sizeBytes: 0 }, /^sizeBytes: /),
  post('a negative size', { name: 'x', sizeBytes: -1_073_741_824 }, /^sizeBytes: /),
  post('a size that is text', { name: 'x', sizeBytes: '1g' }, /^sizeBytes: /),
  post('a size with a fraction', { name: 'x', sizeBytes: 1_048_576.5 }, /^sizeBytes: /),
  post('an absurd size', { name: 'x', sizeBytes: 2 ** 50 }, /^sizeBytes: /),
  post('a size beyond counting', '{"name": "x", "sizeBytes": 1e400}', /^sizeBytes: /),
  post('an unknown durability', { name: 'x', durability: 'eventually' }, /^durability: .*flush.*sync/),
  post('an unknown chap', { name: 'x', chap: 'secret' }, /^chap: /),
  post('labels that are no text', { name: 'x', labels: { a: 1 } }, /^labels\.a: /),
  post('a container that is not there', { name: 'x', container: 'nowhere' }, /container nowhere/, {
    status: 404,
    code: 'NOT_FOUND',
  }),
  post('a name that is taken', { name: 'db' }, /volume db already/, { status: 409, code: 'ALREADY_EXISTS' }),
  patch('a volume that is not there', { sizeBytes: 2_147_483_648 }, /no volume ghost/, {
    path: `${volumes}/ghost`,
    status: 404,
    code: 'NOT_FOUND',
  }),
  patch('a shrinking size', { sizeBytes: 1_048_576 }, /can only grow/),
  patch('a change of what cannot change', { name: 'other' }, /name.*allowed: sizeBytes, chap, .*filesystem/),
  patch('a filesystem that was never begun', { filesystem }, /no filesystem recorded/, {
    status: 409,
    code: 'CONFLICT',
  }),
  patch('a filesystem nobody makes', { filesystem: { ...filesystem, type: 'ntfs' } }, /^filesystem\.type: /),
  {
    what: 'a path that climbs',
    method: 'GET',
    path: `${volumes}/..%2F..%2Fetc%2Fpasswd`,
    status: 400,
    code: 'INVALID_ARGUMENT',
    says: /^name: /,
  },
  { what: 'broken escapes', method: 'GET', path: `${volumes}/%zz`, status: 400, code: 'INVALID_ARGUMENT' },
  { what: 'a route there is not', method: 'GET', path: '/api/v1/volume', status: 404, code: 'NOT_FOUND' },
  { what: 'another version', method: 'GET', path: '/api/v2/volumes', status: 404, code: 'NOT_FOUND' },
  { what: 'a method there is not', method: 'PUT', path: volumes, body: {}, status: 404, code: 'NOT_FOUND' },
  {
    what: 'an unknown query',
    method: 'DELETE',
    path: `${volumes}/db?forse=true`,
    status: 400,
    code: 'INVALID_ARGUMENT',
    says: /forse.*allowed: force, purge/,
  },
  {
    what: 'a query twice',
    method: 'DELETE',
    path: `${volumes}/db?purge=true&purge=false`,
    status: 400,
    code: 'INVALID_ARGUMENT',
    says: /^purge: /,
  },
  {
    what: 'a claim by a nameless initiator',
    method: 'PUT',
    path: `${volumes}/db/claim`,
    body: { holder: 'h', initiator: 'host' },
    status: 400,
    code: 'INVALID_ARGUMENT',
    says: /^initiator: an initiator name is/,
  },
  {
    what: 'a claim for ever',
    method: 'PUT',
    path: `${volumes}/db/claim`,
    body: { holder: 'h', initiator, ttlSeconds: 1e9 },
    status: 400,
    code: 'INVALID_ARGUMENT',
    says: /^ttlSeconds: /,
  },
  {
    what: 'trash by no id',
    method: 'DELETE',
    path: '/api/v1/trash/db',
    status: 400,
    code: 'INVALID_ARGUMENT',
  },
  {
    what: 'trash that is not there',
    method: 'DELETE',
    path: '/api/v1/trash/5c5b2a0e-5f0e-4b57-9d0a-333333333333',
    status: 404,
    code: 'NOT_FOUND',
  },
  {
    what: 'a restore of nothing',
    method: 'POST',
    path: `${volumes}/ghost/restore`,
    body: {},
    status: 404,
    code: 'NOT_FOUND',
    says: /in the trash/,
  },
  {
    what: 'a container with odd chunks',
    method: 'POST',
    path: '/api/v1/containers',
    body: { name: 'c', chunkSizeBytes: 12_288 },
    status: 400,
    code: 'INVALID_ARGUMENT',
    says: /power of two/,
  },
  {
    what: 'three copies on one node',
    method: 'POST',
    path: '/api/v1/containers',
    body: { name: 'c', replicationFactor: 3 },
    status: 400,
    code: 'INVALID_ARGUMENT',
    says: /^replicationFactor: /,
  },
  {
    what: 'a container in use',
    method: 'DELETE',
    path: '/api/v1/containers/default',
    status: 409,
    code: 'IN_USE',
    says: /has volumes \(1, /,
  },
  {
    what: 'a token with a made-up role',
    method: 'POST',
    path: '/api/v1/tokens',
    body: { name: 'x', role: 'root' },
    status: 400,
    code: 'INVALID_ARGUMENT',
    says: /^role: /,
  },
  {
    what: 'no token left to administrate',
    method: 'DELETE',
    path: '/api/v1/tokens/admin',
    status: 409,
    code: 'CONFLICT',
    says: /only administrator/,
  },
];

t.test('wrong requests get their typed error and change nothing', async (t) => {
  const fabric = await ApiFabric.start(t);
  await fabric.create('db');
  const before = fabric.snapshot();
  const callsBefore = fabric.host.calls.length;
  for (const bad of wrong) {
    const text = bad.body === undefined || typeof bad.body === 'string' ? bad.body : JSON.stringify(bad.body);
    const response = await fetch(fabric.url + bad.path, {
      method: bad.method,
      headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json', ...bad.headers },
      ...(text === undefined ? {} : { body: text as string }),
    });
    t.equal(response.status, bad.status, `${bad.what}: status`);
    const { error } = (await response.json()) as {
      error: { code: string; message: string; details: unknown };
    };
    t.equal(error.code, bad.code, `${bad.what}: code`);
    t.match(error.message, bad.says ?? /./, `${bad.what}: message`);
    t.type(error.details, 'object');
  }
  t.strictSame(fabric.snapshot(), before, 'the control store is as before');
  t.equal(fabric.host.calls.length, callsBefore, 'the data path was told nothing');
  t.ok(wrong.length >= 40);
});

t.test(
  'a request with endless headers or a broken first line is ended, and the next is served',
  async (t) => {
    const fabric = await ApiFabric.start(t);
    const response = await fetch(`${fabric.url}/healthz`, { headers: { 'x-long': 'x'.repeat(40_000) } });
    t.equal(response.status, 431);
    await fabric.client().health();
  },
);
