import t from 'tap';
import { type ErrorCode, errorCodes, WeftError } from '../../daemon/base/errors.ts';
import { encodeSense, sense, senseOfError } from '../../daemon/scsi/sense.ts';

t.test('fixed format carries the codes, and INFORMATION when it fits', async (t) => {
  t.equal(
    encodeSense(sense.lbaOutOfRange, null, false).toString('hex'),
    '70000500000000' + '0a00000000' + '2100' + '00000000',
  );
  t.equal(
    encodeSense(sense.unrecoveredReadError, 0x12345678, false).toString('hex'),
    'f0000312345678' + '0a00000000' + '1100' + '00000000',
  );
  t.equal(
    encodeSense(sense.unrecoveredReadError, 2 ** 33, false)[0],
    0x70,
    'VALID is clear when it does not fit',
  );
});

t.test('descriptor format carries the codes, and INFORMATION of 64 bits', async (t) => {
  t.equal(encodeSense(sense.miscompareDuringVerify, null, true).toString('hex'), '720e1d0000000000');
  t.equal(
    encodeSense(sense.miscompareDuringVerify, 2 ** 33, true).toString('hex'),
    '720e1d000000000c' + '000a8000' + '0000000200000000',
  );
});

t.test('every error code has a sense', async (t) => {
  const expected: Partial<Record<ErrorCode, [read: string, write: string]>> = {
    NO_SPACE: ['7/27/7', '7/27/7'],
    CORRUPT: ['3/11/0', '3/11/0'],
    IO_ERROR: ['3/11/0', '3/c/0'],
    FENCED: ['2/4/1', '2/4/1'],
    UNAVAILABLE: ['2/4/1', '2/4/1'],
    TIMEOUT: ['2/4/1', '2/4/1'],
    SHUTTING_DOWN: ['2/4/1', '2/4/1'],
  };
  for (const code of Object.keys(errorCodes) as ErrorCode[]) {
    const [read, write] = expected[code] ?? ['4/44/0', '4/44/0'];
    for (const [operation, text] of [['read', read] as const, ['write', write] as const]) {
      const { key, asc, ascq } = senseOfError(new WeftError(code, 'x'), operation).code;
      t.equal([key, asc, ascq].map((part) => part.toString(16)).join('/'), text, `${code} on ${operation}`);
    }
  }
  t.equal(senseOfError(new Error('odd'), 'read').code, sense.internalTargetFailure);
});

t.test('a medium error names the LBA when the error knows the offset', async (t) => {
  const corrupt = new WeftError('CORRUPT', 'x', { details: { offsetBytes: 4096 } });
  t.equal(senseOfError(corrupt, 'read').information, 8);
  const noSpace = new WeftError('NO_SPACE', 'x', { details: { offsetBytes: 4096 } });
  t.equal(senseOfError(noSpace, 'write').information, null);
});
