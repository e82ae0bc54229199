/** What a run of the benchmark found, and its table. */

/** What load.c printed, and the target's processor time meanwhile. */
export interface Sample {
  operations: number;
  seconds: number;
  iops: number;
  megabytesPerSecond: number;
  p50Us: number;
  p99Us: number;
  clientCpuSeconds: number;
  /** From login to logout, warm-up included; and the processor time the target took for them. */
  operationsInAll: number;
  targetCpuSeconds: number;
}

export interface Report {
  machine: {
    cores: number;
    cpu: string;
    kernel: string;
    memoryBytes: number;
    filesystem: string;
    node: string;
  };
  versions: { weft: string; tgt: string };
  parameters: { seconds: number; repeat: number; sizeBytes: number };
  lines: {
    name: string;
    mode: string;
    blockBytes: number;
    queueDepth: number;
    /** By target, in the order they ran. */
    samples: Record<string, Sample[]>;
  }[];
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Weft's throughput over tgt's, of runs that followed each other: the median, the lowest and the highest. */
export function ratios(weft: Sample[], tgt: Sample[]): { median: number; lowest: number; highest: number } {
  const each = weft.map((sample, round) => sample.iops / (tgt[round]?.iops ?? Number.NaN));
  return { median: median(each), lowest: Math.min(...each), highest: Math.max(...each) };
}

const columns = [
  ['', 18],
  ['target', -11],
  ['IOPS', 8],
  ['MB/s', 8],
  ['p50 µs', 9],
  ['p99 µs', 9],
  ['CPU µs/op', 10],
  ['of tgt (lowest–highest)', -24],
] as const;

function row(cells: string[]): string {
  return columns
    .map(([, width], at) =>
      width < 0 ? (cells[at] ?? '').padEnd(-width) : (cells[at] ?? '').padStart(width),
    )
    .join('  ')
    .trimEnd();
}

export function formatReport({ machine, versions, parameters, lines }: Report): string {
  const GiB = 2 ** 30;
  const out = [
    `${machine.cores} cores (${machine.cpu}), ${(machine.memoryBytes / GiB).toFixed(1)} GiB, ` +
      `Linux ${machine.kernel}, ${machine.filesystem}, Node ${machine.node}`,
    `weft ${versions.weft}, tgt ${versions.tgt}; LUNs of ${parameters.sizeBytes / GiB} GiB, filled with random data; ` +
      `medians of ${parameters.repeat} runs of ${parameters.seconds} s`,
    '',
    row(columns.map(([title]) => title)),
  ];
  for (const line of lines) {
    let name = line.name;
    for (const [target, samples] of Object.entries(line.samples)) {
      const of = (value: (sample: Sample) => number, digits = 0) =>
        median(samples.map(value)).toFixed(digits);
      const ratio = ratios(samples, line.samples.tgt ?? []);
      out.push(
        row([
          name,
          target,
          of((sample) => sample.iops),
          of((sample) => sample.megabytesPerSecond, 1),
          of((sample) => sample.p50Us),
          of((sample) => sample.p99Us),
          of((sample) => (sample.targetCpuSeconds * 1e6) / sample.operationsInAll, 1),
          target === 'tgt'
            ? ''
            : `${ratio.median.toFixed(2)} (${ratio.lowest.toFixed(2)}–${ratio.highest.toFixed(2)})`,
        ]),
      );
      name = '';
    }
  }
  return out.join('\n');
}
