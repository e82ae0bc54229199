import t from 'tap';
import { formatSize, parseSize } from '../../daemon/base/size.ts';

t.test('sizes people write are read in powers of 1024', async (t) => {
  const cases: [string, number][] = [
    ['1048576', 1_048_576],
    ['1', 1],
    ['512b', 512],
    ['10k', 10_240],
    ['512m', 536_870_912],
    ['10g', 10_737_418_240],
    ['10G', 10_737_418_240],
    ['10GB', 10_737_418_240],
    ['10 GiB', 10_737_418_240],
    ['1.5g', 1_610_612_736],
    ['0.5k', 512],
    [' 2t ', 2_199_023_255_552],
  ];
  for (const [text, sizeBytes] of cases) t.equal(parseSize(text), sizeBytes, text);
});

t.test('what is no size is refused, and the error names the key and shows how to write one', async (t) => {
  const wrong = [
    '',
    ' ',
    '-1',
    '-10g',
    '0',
    '0g',
    'g',
    '10x',
    '1e9',
    'Infinity',
    'NaN',
    '0x10',
    '1,5g',
    '1.5',
  ];
  wrong.push(
    '10gg',
    '10 g b',
    '9999999999999999p',
    '9007199254740993',
    '1'.repeat(400),
    '1\n2',
    '١٠g',
    '.5g',
  );
  for (const text of wrong) {
    t.throws(() => parseSize(text, 'journal.capacity'), {
      code: 'INVALID_ARGUMENT',
      message: /^journal\.capacity: .*10g/,
      details: { key: 'journal.capacity' },
    });
  }
});

t.test('sizes are shown with three digits at most', async (t) => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [512, '512 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [10_737_418_240, '10 GiB'],
    [1_073_741_823, '1 GiB'],
    [1_048_575, '1 MiB'],
    [123_456_789, '118 MiB'],
    [12_345_678_901, '11.5 GiB'],
  ];
  for (const [sizeBytes, text] of cases) t.equal(formatSize(sizeBytes), text);
});
