/** Random PERSISTENT RESERVE OUT from several nexuses, with saves that fail and restarts: promises that always hold. */
import t from 'tap';
import { WeftError } from '../../../daemon/base/errors.ts';
import { holds } from '../../../daemon/scsi/reservation-state.ts';
import { type Bench, bench, Initiator } from '../initiator.ts';
import { MemoryUnitState } from '../memory-unit-state.ts';
import { type Action, keys, list, out, persistentIn } from './persistent-commands.ts';

const rounds = 20;
const steps = 250;
const types = [1, 3, 5, 6, 7, 8];
const actions: Action[] = [
  'register',
  'registerIgnoring',
  'reserve',
  'release',
  'clear',
  'preempt',
  'preemptAndAbort',
];

/** Repeats exactly from its seed (a linear congruential generator). */
function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Everything that is reported, without the generation. */
async function reported(from: Initiator): Promise<string> {
  const parts = await Promise.all([1, 2, 3].map((service) => persistentIn(from, service)));
  return parts.map((part, index) => part.toString('hex', index === 1 ? 0 : 4)).join(' ');
}

t.test('whatever comes: what was answered holds, what was refused has changed nothing', async (t) => {
  let answeredGood = 0;
  let restarts = 0;
  for (let round = 0; round < rounds; round += 1) {
    const random = randomFrom(round);
    const kept = new MemoryUnitState();
    const nexuses = Array.from(
      { length: 4 },
      (_, index) => `iqn.a:h${index},i,0x80000000000${index},t,0x0001`,
    );
    let unit: Bench = bench({ kept });
    let hosts: Initiator[] = [];
    const restart = (): void => {
      unit = bench({ kept });
      hosts = nexuses.map((nexus) => new Initiator(unit.server, nexus));
    };
    restart();
    const fail = (what: string): void => {
      t.fail(`round ${round}: ${what}`);
    };
    for (let step = 0; step < steps; step += 1) {
      const { reservations } = unit.unit;
      const from = hosts[random(hosts.length)]!;
      const action = actions[random(actions.length)]!;
      const own = reservations.state.registrations.get(from.nexus) ?? 0n;
      const key = random(8) === 0 ? BigInt(random(4)) : own;
      const flags = action.startsWith('register') ? [0, 1, 1, 4, 5][random(5)]! : 0;
      kept.failure = random(5) === 0 ? new WeftError('IO_ERROR', 'x') : null;
      const before = { reported: await reported(from), state: reservations.state };
      const result = await out(
        from,
        action,
        types[random(types.length)]!,
        list(key, BigInt(random(4)), flags),
      );
      const { state } = reservations;
      if (result === 'GOOD') answeredGood += 1;
      else if ((await reported(from)) !== before.reported)
        fail(`${action}, answered ${result}, changed something`);
      const moved = (state.generation - before.state.generation) >>> 0;
      const counts = action !== 'reserve' && action !== 'release';
      if (moved !== (counts && state !== before.state ? 1 : 0))
        fail(`${action} moved the generation by ${moved}`);
      const held = state.reservation;
      if (held !== null && ![...state.registrations.keys()].some((nexus) => holds(state, nexus))) {
        fail(`${action} left a reservation that nobody holds`);
      }
      for (const host of hosts) await host.result('03 00 00 00 ff'); // what they have to hear
      if (random(10) > 0) continue;
      restarts += 1;
      kept.failure = null;
      const kill = { reported: await reported(from), aptpl: state.aptpl };
      restart();
      const now = await reported(hosts[0]!);
      if (kill.aptpl && now !== kill.reported) fail('a restart changed what APTPL keeps');
      if (!kill.aptpl && (await keys(hosts[0]!)).length > 0) fail('a restart kept what APTPL does not');
      if ((await persistentIn(hosts[0]!, 0)).readUInt32BE(0) !== 0)
        fail('the generation is zero after a restart');
    }
  }
  t.ok(answeredGood > (rounds * steps) / 4, `${answeredGood} of ${rounds * steps} did something`);
  t.ok(restarts > rounds, `${restarts} restarts`);
});
