/** Finds the conversation that is to blame, alone, and takes from it what is not needed for the failure. */
import type { Conversation } from './conversation.ts';
import { Speaker } from './speaker.ts';
import { WeftdUnderTest } from './weftd-under-test.ts';

/** Nobody waits longer than that for a smaller input. */
const reductionLimitMs = 180_000;

/** Has these conversations with a weftd of their own, one after another; answers with what is wrong then, or null. */
export async function replay(conversations: readonly Conversation[]): Promise<string | null> {
  const weftd = await WeftdUnderTest.start();
  try {
    for (const conversation of conversations) {
      const { flaw } = await Speaker.hold(conversation, weftd.addressee);
      if (flaw !== null && weftd.isAlive) return flaw;
    }
    return await weftd.complaint();
  } finally {
    await weftd.stop();
  }
}

/** The shortest conversation found that fails alone, and how; null when none of the suspects does. */
export async function reduce(
  suspects: readonly Conversation[],
): Promise<{ conversation: Conversation; what: string } | null> {
  const endMs = performance.now() + reductionLimitMs;
  let left = suspects;
  while (left.length > 1) {
    const half = left.slice(0, left.length >> 1);
    left = (await replay(half)) === null ? left.slice(half.length) : half;
  }
  const [suspect] = left;
  const what = suspect === undefined ? null : await replay([suspect]);
  return what === null ? null : { conversation: await shortened(suspect!, endMs), what };
}

/** Takes away halves, quarters, and so on down to single steps, as long as it still fails. */
async function shortened(conversation: Conversation, endMs: number): Promise<Conversation> {
  let smallest = conversation;
  for (
    let size = Math.ceil(smallest.steps.length / 2);
    size >= 1;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let at = 0; at < smallest.steps.length; ) {
      if (performance.now() > endMs) return smallest;
      const steps = smallest.steps.toSpliced(at, size);
      const attempt = { ...smallest, steps };
      if ((await replay([attempt])) === null) at += size;
      else smallest = attempt;
    }
  }
  return smallest;
}
