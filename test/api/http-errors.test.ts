import t from 'tap';
import { asHttpError, httpStatuses } from '../../daemon/api/http-errors.ts';
import { assert } from '../../daemon/base/assert.ts';
import { errorCodes, WeftError } from '../../daemon/base/errors.ts';

t.test('every code has a status, and no status is without a code', async (t) => {
  t.strictSame(Object.keys(httpStatuses).toSorted(), Object.keys(errorCodes).toSorted());
  for (const status of Object.values(httpStatuses)) t.ok(status >= 400 && status < 600);
});

t.test('an expected failure tells its code, its words and its facts', async (t) => {
  const error = new WeftError('IN_USE', 'volume db is in use', { details: { holder: 'a' } });
  t.strictSame(asHttpError(error), {
    status: 409,
    body: { error: { code: 'IN_USE', message: 'volume db is in use', details: { holder: 'a' } } },
  });
});

t.test('a fault of our own keeps its words for the log', async (t) => {
  const faults: unknown[] = [new Error('secret'), 'secret', null, undefined, { message: 'secret' }];
  try {
    assert(false, 'secret');
  } catch (fault) {
    faults.push(fault);
  }
  for (const fault of faults) {
    const { status, body } = asHttpError(fault);
    t.equal(status, 500);
    t.equal(body.error.code, 'INTERNAL');
    t.notMatch(JSON.stringify(body), 'secret');
  }
});
