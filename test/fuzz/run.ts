/** npm run fuzz: see docs/fuzzing.md. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { MiB } from '../../daemon/base/limits.ts';
import { Campaign, type Failure, type Progress, type Result } from './campaign.ts';
import type { Conversation } from './conversation.ts';
import { reduce, replay } from './reduction.ts';
import { WeftdUnderTest } from './weftd-under-test.ts';

const usage = `npm run fuzz -- [--inputs N] [--seed S] [--from C --to C]
npm run fuzz -- --replay FILE...

Has conversations made from seed S (random) with a weftd of its own until N inputs (50000) have been sent, or those with
the numbers --from to --to. A failing one is made shorter and kept in build/fuzz; --replay has it once more.`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    inputs: { type: 'string', default: '50000' },
    seed: { type: 'string' },
    from: { type: 'string' },
    to: { type: 'string' },
    replay: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  },
});
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
const inputs = Number(values.inputs);
const range =
  values.from === undefined ? null : { from: Number(values.from), to: Number(values.to ?? values.from) };
const numbers = [seed, inputs, range?.from ?? 0, range?.to ?? 0];
if (values.help || !numbers.every(Number.isSafeInteger)) {
  process.stderr.write(`${usage}\n`);
  process.exit(values.help ? 0 : 2);
}

const say = (line: string) => process.stdout.write(`${line}\n`);
const mebibytes = (bytes: number) => `${Math.round(bytes / MiB)} MiB`;

if (values.replay !== undefined) process.exit(await replayFiles([values.replay, ...positionals]));
process.exit((await fuzz()) ? 0 : 1);

async function replayFiles(files: string[]): Promise<number> {
  let failed = 0;
  for (const file of files) {
    const { conversation } = JSON.parse(await readFile(file, 'utf8')) as { conversation: Conversation };
    const what = await replay([conversation]);
    say(what === null ? `ok ${file}` : `FAILED ${file}: ${what}`);
    if (what !== null) failed += 1;
  }
  return failed > 0 ? 1 : 0;
}

async function fuzz(): Promise<boolean> {
  say(
    `seed ${seed}${range === null ? `, ${inputs} inputs` : `, conversations ${range.from} to ${range.to}`}`,
  );
  const weftd = await WeftdUnderTest.start();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void weftd.stop().then(() => process.exit(130)));
  }
  let failure: Failure | null = null;
  try {
    const result = await Campaign.run(weftd, { seed, inputs, range, onProgress: tell });
    describe(result);
    failure = result.failure;
    if (failure !== null) say(await weftd.lastWords());
  } finally {
    await weftd.stop();
  }
  if (failure !== null) await explain(failure);
  return failure === null;
}

function tell({ inputs: sent, conversations, rssBytes }: Progress): void {
  say(`${sent} inputs, ${conversations} conversations, weftd ${mebibytes(rssBytes)}`);
}

/** Says how to have it again, alone and short where that is possible. */
async function explain({ what, suspects, trace }: Failure): Promise<void> {
  for (const line of trace) say(line);
  say(`FAILED: ${what}`);
  const first = Math.min(...suspects.map(({ number }) => number));
  const last = Math.max(...suspects.map(({ number }) => number));
  if (suspects.length > 0) say(`replay: npm run fuzz -- --seed ${seed} --from ${first} --to ${last}`);
  const smallest = await reduce(suspects);
  if (smallest === null) return;
  const { number } = smallest.conversation;
  const file = join('build/fuzz', `seed-${seed}-conversation-${number}.json`);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(
    file,
    `${JSON.stringify({ what: smallest.what, conversation: smallest.conversation }, null, 1)}\n`,
  );
  say(`conversation ${number} alone: ${smallest.what}\nmade shorter: npm run fuzz -- --replay ${file}`);
}

function describe(result: Result): void {
  const { healthy } = result;
  say(
    `${result.inputs} inputs (${result.commands} commands, ${result.good} of them GOOD) in ${result.conversations} conversations, ` +
      `${result.loggedIn} of them logged in, ${result.seconds.toFixed(1)} s`,
  );
  say(
    `weftd: ${mebibytes(result.warmRssBytes)} after the warm-up, ${mebibytes(result.endRssBytes)} at the end; ` +
      `data directory ${mebibytes(result.dataBytes)}`,
  );
  say(
    `healthy session: ${healthy.operations} operations, p99 ${healthy.p99Ms.toFixed(1)} ms, ` +
      `slowest ${healthy.slowestMs.toFixed(0)} ms`,
  );
}
