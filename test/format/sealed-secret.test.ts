import t from 'tap';
import { openSecret, sealedPattern, sealingKeyId, sealSecret } from '../../daemon/format/sealed-secret.ts';
import { decodeSecretKeys, encodeSecretKeys, secretKey } from '../../daemon/format/secret-keys.ts';

const key = secretKey(Buffer.from(Array.from({ length: 32 }, (_, at) => at)));
const other = secretKey(Buffer.alloc(32, 0xee));
const place = { owner: 'iqn.2026-11.io.weft:volume-1', field: 'chap' };
const nonce = Buffer.alloc(12, 0x5a);
const golden = 'weft-sealed:1:630dcd2966c43366:WlpaWlpaWlpaWlpa80eBMsRdbjJ3DeoEeOXErdfV9LHCdBlmTNnbmA';

t.test('a sealed secret and a key file keep their bytes', async (t) => {
  t.equal(sealSecret('twelve-bytes', key, place, nonce), golden);
  t.equal(openSecret(golden, key, place), 'twelve-bytes');
  t.equal(
    encodeSecretKeys([key]),
    'weft-secret-keys 1\n630dcd2966c43366 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n',
  );
});

t.test('what was sealed opens with its key in its place, and nowhere else', async (t) => {
  for (const secret of ['twelve-bytes', '', 'ünïcode secret', 'x'.repeat(255)]) {
    const sealed = sealSecret(secret, key, place, nonce);
    t.match(sealed, sealedPattern);
    t.equal(sealingKeyId(sealed), key.id);
    t.equal(openSecret(sealed, key, place), secret);
  }
  const corrupt = { code: 'CORRUPT' };
  t.throws(() => openSecret(golden, key, { ...place, field: 'mutual-chap' }), corrupt, 'another field');
  t.throws(() => openSecret(golden, key, { ...place, owner: `${place.owner}2` }), corrupt, 'another volume');
  const impostor = { id: key.id, key: other.key };
  t.throws(() => openSecret(golden, impostor, place), corrupt, 'another key under the same id');
});

t.test('every changed character is noticed, and no message repeats a secret or a key', async (t) => {
  const start = golden.lastIndexOf(':') + 1;
  for (let at = start; at < golden.length; at += 1) {
    const changed = golden.slice(0, at) + (golden[at] === 'A' ? 'B' : 'A') + golden.slice(at + 1);
    // The last character carries bits that no byte takes.
    if (Buffer.from(changed.slice(start), 'base64url').equals(Buffer.from(golden.slice(start), 'base64url')))
      continue;
    t.throws(() => openSecret(changed, key, place), { code: 'CORRUPT' });
  }
  for (const text of ['', 'secret', golden.replace(':1:', ':2:'), golden.slice(0, 60)]) {
    t.throws(() => sealingKeyId(text), {
      code: 'CORRUPT',
      message: /^a sealed secret is not one of format 1$/,
    });
  }
});

t.test('a key file is read as written, with comments, and by hand without ids', async (t) => {
  t.strictSame(decodeSecretKeys(encodeSecretKeys([key, other]), 'f'), [key, other]);
  const byHand = `weft-secret-keys 1\n# new\n${other.key.toString('hex')}\n\n${key.key.toString('hex')}`;
  t.strictSame(decodeSecretKeys(byHand, 'f'), [other, key]);
});

t.test('a damaged key file is refused without telling what is in it', async (t) => {
  const good = encodeSecretKeys([key]);
  const cases: [string, string, RegExp][] = [
    ['', 'CORRUPT', /first line/],
    ['holiday pictures', 'CORRUPT', /first line/],
    ['weft-secret-keys 1\n', 'CORRUPT', /0 keys/],
    [good.replace('0001', '0002'), 'CORRUPT', /line 2 is damaged/],
    [good.replace('0001', '00'), 'CORRUPT', /line 2 is not a key/],
    [good.replace(' 1\n', ' 2\n'), 'FORMAT_TOO_NEW', /version 2/],
  ];
  for (const [text, code, message] of cases) {
    t.throws(() => decodeSecretKeys(text, 'secrets.key'), { code, message });
    t.throws(() => decodeSecretKeys(text, 'secrets.key'), { message: /^(?!.*0c0d0e0f).*secrets\.key/ });
  }
});
