import t from 'tap';
import { formatReport, median, ratios, type Sample } from '../../bench/report.ts';

function sample(iops: number): Sample {
  return {
    operations: iops * 3,
    seconds: 3,
    iops,
    megabytesPerSecond: (iops * 4096) / 1e6,
    p50Us: 10,
    p99Us: 20,
    clientCpuSeconds: 1,
    operationsInAll: 1_000_000,
    targetCpuSeconds: 2,
  };
}

t.test('the median is the middle, or the mean of the two in the middle', async (t) => {
  t.equal(median([3, 1, 2]), 2);
  t.equal(median([4, 1, 2, 3]), 2.5);
});

t.test('a ratio compares runs that followed each other', async (t) => {
  const found = ratios([sample(50), sample(200), sample(90)], [sample(100), sample(200), sample(100)]);
  t.strictSame(found, { median: 0.9, lowest: 0.5, highest: 1 });
});

t.test('the table names machine and parameters, and has each target of each line', async (t) => {
  const text = formatReport({
    machine: {
      cores: 2,
      cpu: 'Some CPU',
      kernel: '6.1',
      memoryBytes: 2 ** 34,
      filesystem: 'ext4',
      node: 'v24',
    },
    versions: { weft: '0.1.0', tgt: '1.0.85' },
    parameters: { seconds: 3, repeat: 1, sizeBytes: 2 ** 30 },
    lines: [
      {
        name: '4k randread qd1',
        mode: 'randread',
        blockBytes: 4096,
        queueDepth: 1,
        samples: { 'weft-flush': [sample(750)], tgt: [sample(1000)] },
      },
    ],
  });
  t.match(text, /2 cores \(Some CPU\), 16\.0 GiB, Linux 6\.1, ext4/);
  t.match(text, /medians of 1 runs of 3 s/);
  t.match(text, /4k randread qd1 +weft-flush +750 +3\.1 +10 +20 +2\.0 +0\.75 \(0\.75–0\.75\)/);
  t.match(text, /\n +tgt +1000 +4\.1 +10 +20 +2\.0\n?$/);
});
