/** One seed's life: work, crash at a random event, start, verify; several times. Used by the tests and by `npm run sim`. */
import { MiB } from '../../daemon/base/limits.ts';
import type { Loss } from './sector-ledger.ts';
import { SimulatedNode } from './simulated-node.ts';

export interface LifeReport {
  crashes: number;
  operations: number;
  /** Journal files that were kept as segments. */
  adoptions: number;
  faults: string[];
}

export function report(node: SimulatedNode, crashes: number): LifeReport {
  const { operations, faults, disk } = node;
  return { crashes, operations, adoptions: disk.linkCount, faults };
}

const livesPerSeed = 3;
/** Several extents, and together more than the journal holds. */
const volumeBytes = 5 * MiB;

export async function liveThroughCrashes(seed: number, durability: 'flush' | 'sync'): Promise<LifeReport> {
  const node = new SimulatedNode({
    seed,
    adoptsReadily: seed % 2 === 0,
    durability,
    volumeBytes,
    volumes: 2,
  });
  const { random } = node;
  let crashes = 0;
  await node.start();
  while (crashes < livesPerSeed && node.faults.length === 0) {
    if (random.chance(0.3)) await workIntoCopy(node);
    else await workUntilCrash(node);
    if (node.faults.length > 0) break;
    const loss: Loss = random.chance(0.3) ? 'process' : 'power';
    node.crash(loss);
    crashes += 1;
    // A crash during recovery comes before the one that completes.
    if (random.chance(0.25)) await crashWhileStarting(node, loss);
    await node.start();
    await node.verify(loss);
  }
  if (node.faults.length === 0 && random.chance(0.2)) await finish(node);
  return report(node, crashes);
}

/** Work, and sometimes under it a drain of everything, or a volume that is deleted and another that is made. */
async function workUntilCrash(node: SimulatedNode): Promise<void> {
  const { random, clock } = node;
  const crashAtEvent = clock.eventCount + random.between(1, random.chance(0.3) ? 60 : 1200);
  await node.work(random.below(150), crashAtEvent);
  // Not answered when the crash comes first.
  if (random.chance(0.3))
    void node.replica.drain().catch((error) => node.faults.push(`drain: ${error.message}`));
  const online = node.volumes.filter((volume) => !volume.isDoomed);
  if (random.chance(0.3) && online.length > 1) {
    node.createVolume();
    node.deleteVolume(random.pick(online));
  }
  if (clock.eventCount < crashAtEvent) await node.work(300, crashAtEvent);
}

/** Work, and a crash some events into a copy. */
async function workIntoCopy(node: SimulatedNode): Promise<void> {
  const { random, clock } = node;
  await node.work(random.below(150));
  node.copy();
  await node.work(random.below(20), clock.eventCount + random.between(1, 100));
}

/** Power fails some events into the start; what was durable before must be so afterwards. */
async function crashWhileStarting(node: SimulatedNode, loss: Loss): Promise<void> {
  const crashAtEvent = node.clock.eventCount + node.random.between(1, 60);
  const starting = node.start().catch(() => {});
  await Promise.race([starting, node.clock.run(() => node.clock.eventCount >= crashAtEvent)]);
  node.crash(loss);
}

/** At the end, everything is drained and read once more from the extent store; or the daemon ends cleanly, with writes in flight. */
async function finish(node: SimulatedNode): Promise<void> {
  await node.work(60);
  await node.verifyDrained();
  const endAtEvent = node.clock.eventCount + node.random.between(1, 200);
  node.tolerated.add('SHUTTING_DOWN');
  await node.work(40, endAtEvent);
  await node.stop();
  node.crash('power');
  await node.start();
  await node.verify('process');
}
