import { createHash } from 'node:crypto';
import t from 'tap';
import { ChapExchange } from '../../daemon/iscsi/chap.ts';
import { parseBinary } from '../../daemon/iscsi/key-text.ts';

const chap = { user: 'initiator', secret: 'secret-of-initiator' };
const mutual = { user: 'target', secret: 'secret-of-the-target' };
const hashes: Record<string, string> = { 5: 'md5', 6: 'sha1', 7: 'sha256', 8: 'sha3-256' };
const challenge = Buffer.from('c0'.repeat(32), 'hex');
const identifier = 0xd1;
const random = { bytes: (count: number) => (count === 1 ? Buffer.of(identifier) : challenge) };

const keys = (pairs: Record<string, string>) => new Map(Object.entries(pairs));
const hash = (id: number, secret: string, over: Buffer, algorithm = 'sha256') =>
  createHash(algorithm).update(Buffer.of(id)).update(secret).update(over).digest();
const hex = (bytes: Buffer) => `0x${bytes.toString('hex')}`;
const proof = { CHAP_N: chap.user, CHAP_R: hex(hash(identifier, chap.secret, challenge)) };

function challenged(withMutual: typeof mutual | null = mutual, offer = '7') {
  const exchange = new ChapExchange(chap, withMutual, random);
  const answer = exchange.next(keys({ CHAP_A: offer }));
  return { exchange, answer };
}

t.test('of the algorithms that are offered the strongest is taken, in whatever order', async (t) => {
  const cases: [string, string | null][] = [
    ['5', '5'],
    ['5,6', '6'],
    ['5,6,7', '7'],
    ['5,7,8,6', '8'],
    ['8', '8'],
    ['0x7', '7'],
    ['99,5', '5'],
    ['4,9', null],
    ['', null],
    ['7;5', null],
    [',', null],
  ];
  for (const [offer, taken] of cases) {
    const { exchange, answer } = challenged(null, offer);
    t.equal(answer === null ? null : new Map(answer).get('CHAP_A'), taken, offer);
    if (taken === null) continue;
    const response = hex(hash(identifier, chap.secret, challenge, hashes[taken]));
    t.strictSame(exchange.next(keys({ CHAP_N: chap.user, CHAP_R: response })), []);
    t.ok(exchange.isDone);
  }
});

t.test('a response is right in hexadecimal and in base64, and wrong in any other way', async (t) => {
  const right = hash(identifier, chap.secret, challenge);
  for (const text of [
    hex(right),
    hex(right).toUpperCase().replace('0X', '0x'),
    `0b${right.toString('base64')}`,
  ]) {
    const { exchange } = challenged();
    t.strictSame(exchange.next(keys({ ...proof, CHAP_R: text })), []);
    t.ok(exchange.isDone);
  }
  const wrong = {
    'one byte less': hex(right.subarray(1)),
    'one byte more': hex(Buffer.concat([right, Buffer.of(0)])),
    'a zero in front': hex(Buffer.concat([Buffer.of(0), right])),
    'no bytes': '0x',
    nothing: '',
    'another encoding': right.toString('hex'),
    'base64 without its end': `0b${right.toString('base64').replace('=', '')}`,
    'the challenge': hex(challenge),
    'of another identifier': hex(hash(1, chap.secret, challenge)),
    'of another algorithm': hex(hash(identifier, chap.secret, challenge, 'md5')),
  };
  for (const [what, response] of Object.entries(wrong)) {
    const { exchange } = challenged();
    t.equal(exchange.next(keys({ ...proof, CHAP_R: response })), null, what);
    t.notOk(exchange.isDone);
  }
  for (const user of ['', 'Initiator', 'initiator ', 'initiatorx']) {
    t.equal(challenged().exchange.next(keys({ ...proof, CHAP_N: user })), null, `user "${user}"`);
  }
});

t.test('binary values: hexadecimal is a number of any length, base64 is whole', async (t) => {
  const cases: [string, string | null][] = [
    ['0x1', '01'],
    ['0X0aF', '00af'],
    ['0xabcd', 'abcd'],
    ['0b', null],
    ['0bAA==', '00'],
    ['0BAAA=', '0000'],
    ['0bAAAA', '000000'],
    ['0bAAAAA', null],
    ['0bAA', null],
    ['0b==', null],
    ['0bAA==AA==', null],
    ['0xg', null],
    ['', null],
  ];
  for (const [text, bytes] of cases) t.equal(parseBinary(text)?.toString('hex') ?? null, bytes, text);
});

t.test('one connection has one attempt', async (t) => {
  const { exchange } = challenged();
  t.equal(exchange.next(keys({ ...proof, CHAP_R: '0x00' })), null);
  t.equal(exchange.next(keys(proof)), null, 'the right answer comes too late');
  t.equal(exchange.next(keys({ CHAP_A: '7' })), null, 'and nothing begins anew');
  t.notOk(exchange.isDone);
  const done = challenged().exchange;
  t.strictSame(done.next(keys(proof)), []);
  t.equal(done.next(keys(proof)), null);
});

t.test('the target proves itself to who has proved itself, and to nobody else', async (t) => {
  const theirs = Buffer.from('5a'.repeat(16), 'hex');
  const ask = { CHAP_I: '77', CHAP_C: hex(theirs) };
  t.strictSame(challenged().exchange.next(keys({ ...proof, ...ask })), [
    ['CHAP_N', 'target'],
    ['CHAP_R', hex(hash(77, mutual.secret, theirs))],
  ]);
  t.equal(challenged().exchange.next(keys({ ...proof, CHAP_R: '0x00', ...ask })), null, 'a wrong proof');
  t.equal(challenged(null).exchange.next(keys({ ...proof, ...ask })), null, 'a target that cannot');
  const reused = { ...mutual, secret: chap.secret };
  t.equal(
    challenged(reused).exchange.next(keys({ ...proof, ...ask })),
    null,
    'one secret for both directions',
  );
  const refused = {
    'our own challenge': { ...ask, CHAP_C: hex(challenge) },
    'an identifier of two bytes': { ...ask, CHAP_I: '256' },
    'no identifier': { CHAP_C: ask.CHAP_C },
    'no challenge': { CHAP_I: '77' },
    'an empty challenge': { ...ask, CHAP_C: '0x' },
    'a challenge of 1,025 bytes': { ...ask, CHAP_C: `0x${'11'.repeat(1025)}` },
  };
  for (const [what, asked] of Object.entries(refused)) {
    const { exchange } = challenged();
    t.equal(exchange.next(keys({ ...proof, ...asked })), null, what);
    t.notOk(exchange.isDone, what);
  }
  const longest = { ...ask, CHAP_C: `0x${'11'.repeat(1024)}` };
  t.equal(challenged().exchange.next(keys({ ...proof, ...longest }))?.length, 2);
});
