import t from 'tap';
import { asWeftError, errorCodes, WeftError } from '../../daemon/base/errors.ts';

t.test('every code says what it means', async (t) => {
  for (const [code, meaning] of Object.entries(errorCodes)) {
    t.match(code, /^[A-Z][A-Z_]+$/);
    t.ok(meaning.length > 10, `${code} is explained`);
  }
});

t.test('what the operating system throws becomes a WeftError with its errno', async (t) => {
  const full = asWeftError(Object.assign(new Error('write failed'), { code: 'ENOSPC' }));
  t.equal(full.code, 'NO_SPACE');
  t.equal(full.details['errno'], 'ENOSPC');
  t.equal(asWeftError(Object.assign(new Error('x'), { code: 'EIO' })).code, 'IO_ERROR');
  t.equal(asWeftError(new TypeError('x')).code, 'INTERNAL');
  const own = new WeftError('NOT_FOUND', 'no volume "a"');
  t.equal(asWeftError(own), own, 'a WeftError passes through');
});
