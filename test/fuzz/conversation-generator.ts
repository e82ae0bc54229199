/** The conversation that belongs to a seed and a number. Nothing else goes into it, so it can be had again. */
import { SeededRandom } from '../simulation/seeded-random.ts';
import { anyCommand } from './command-generator.ts';
import type { Conversation, Damage, LoginStep, Step } from './conversation.ts';
import { properLogin, wrongLogin } from './login-generator.ts';
import { anyRequest } from './request-generator.ts';

/** What the generator has to know of the volumes it aims at. */
export interface Aims {
  /** By volume: whether it demands CHAP. */
  chap: readonly boolean[];
  /** 512-byte blocks of each. */
  blockCount: number;
}

export function conversationOf(seed: number, number: number, aims: Aims): Conversation {
  const random = new SeededRandom(Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b));
  const volume = random.below(aims.chap.length);
  const shape = {
    chap: aims.chap[volume]!,
    discovery: false,
    headerDigest: random.chance(0.25),
    dataDigest: random.chance(0.25),
  };
  shape.discovery = !shape.chap && random.chance(0.04);
  const character = random.next();
  // A discovery session takes no commands, so sending them there is no order.
  const orderly = character < 0.3 && !shape.discovery;
  const isLoginWrong = character > 0.8;
  const logins = isLoginWrong ? wrongLogin(random, shape, number) : properLogin(random, shape, number);
  const steps = stepsOf(
    random,
    aims.blockCount,
    orderly,
    isLoginWrong ? random.below(6) : random.between(8, 60),
  );
  return {
    number,
    volume,
    orderly,
    logins,
    steps,
    pieceBytes: random.chance(0.9) ? 0 : random.pick([1, 7, 47, 48, 49, 500, 1460]),
    cutAfterBytes: orderly || random.chance(0.85) ? null : random.below(random.pick([600, 5000, 200_000])),
    end: random.pick(['logout', 'goodbye', 'reset']),
  };
}

function stepsOf(random: SeededRandom, blockCount: number, orderly: boolean, count: number): Step[] {
  const steps: Step[] = [];
  for (let left = count; left > 0; left--) {
    const kind = random.next();
    if (kind < 0.74) steps.push(anyCommand(random, blockCount, orderly));
    else if (kind < 0.92) steps.push(anyRequest(random, orderly));
    else if (kind < 0.975) steps.push({ kind: 'answers', ms: 100 });
    else if (kind < 0.985) steps.push({ kind: 'deaf', ms: random.pick([1, 10, 60]) });
    else if (!orderly && kind < 0.99)
      steps.push({ kind: 'noise', data: { hex: random.bytes(random.below(200)).toString('hex') } });
    else if (!orderly) repeat(random, steps);
  }
  if (!orderly) for (const step of steps) if (random.chance(0.02)) damage(random, step);
  return steps;
}

/** Says again what was said, or says two things the other way round. */
function repeat(random: SeededRandom, steps: Step[]): void {
  if (steps.length < 2) return;
  const index = random.below(steps.length - 1);
  if (random.chance(0.5)) steps.push(structuredClone(steps[index]!));
  else steps.splice(index, 2, steps[index + 1]!, steps[index]!);
}

function damage(random: SeededRandom, step: Step | LoginStep): void {
  if (!('damage' in step)) return;
  // Headers are where the decisions are.
  const at = random.below(random.chance(0.8) ? 48 : 1000);
  const ways: Damage[] = [
    { how: 'flip', at, bit: random.below(8) },
    { how: 'flip', at, bit: random.below(8) },
    { how: 'set', at, value: random.below(256) },
    { how: 'set', at: random.between(4, 7), value: random.pick([0, 1, 2, 0x7f, 0xff]) },
    { how: 'cut', at: random.below(1000) },
    { how: 'twice' },
    { how: random.pick(['header digest', 'data digest']) },
  ];
  for (let count = random.between(1, 2); count > 0; count--) step.damage.push(random.pick(ways));
}
