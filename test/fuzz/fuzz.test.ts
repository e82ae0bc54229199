/**
 * Whatever initiators send, weftd lives on, answers what has to be answered, keeps nothing, and a healthy session beside
 * them does not notice. How to replay what fails: docs/fuzzing.md.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { Campaign, type Result } from './campaign.ts';
import type { Conversation } from './conversation.ts';
import { Speaker } from './speaker.ts';
import { answerLimitMs } from './speaking-socket.ts';
import { WeftdUnderTest } from './weftd-under-test.ts';

const fixedSeed = 1;
const fixedInputs = 45_000;
const randomInputs = 5_000;
const regressions = join(import.meta.dirname, 'regressions');

async function fuzz(seed: number, inputs: number): Promise<Result> {
  const weftd = await WeftdUnderTest.start();
  t.teardown(() => weftd.stop());
  const result = await Campaign.run(weftd, { seed, inputs, range: null, onProgress: () => {} });
  if (result.failure !== null) t.comment(await weftd.lastWords());
  await weftd.stop();
  return result;
}

function replayOf(seed: number, { failure }: Result): string {
  if (failure === null) return 'nothing fails';
  const numbers = failure.suspects.map(({ number }) => number);
  const range = numbers.length === 0 ? '' : ` --from ${Math.min(...numbers)} --to ${Math.max(...numbers)}`;
  return `replay: npm run fuzz -- --seed ${seed}${range}`;
}

t.test('what failed once does not fail again', { timeout: 6 * answerLimitMs }, async (t) => {
  const weftd = await WeftdUnderTest.start();
  t.teardown(() => weftd.stop());
  for (const file of await readdir(regressions)) {
    const text = await readFile(join(regressions, file), 'utf8');
    const { conversation } = JSON.parse(text) as { conversation: Conversation };
    const { flaw } = await Speaker.hold(conversation, weftd.addressee);
    t.equal(flaw, null, file);
  }
  t.equal(await weftd.complaint(), null, 'and weftd is well');
});

t.test(`${fixedInputs} inputs from seed ${fixedSeed}`, async (t) => {
  const result = await fuzz(fixedSeed, fixedInputs);
  t.equal(result.failure?.what, undefined, replayOf(fixedSeed, result));
  t.ok(result.loggedIn > result.conversations / 2, 'most conversations got past the login');
  t.ok(result.commands > result.inputs / 2, 'most inputs are commands');
  t.ok(result.good > result.commands / 5, `${result.good} of ${result.commands} of them ended with GOOD`);
  t.ok(result.healthy.operations > 500, `the healthy session did ${result.healthy.operations} operations`);
});

const seed = Math.floor(Math.random() * 2 ** 31);
t.test(`${randomInputs} inputs from seed ${seed}, another one each time`, async (t) => {
  const result = await fuzz(seed, randomInputs);
  t.equal(result.failure?.what, undefined, replayOf(seed, result));
});
