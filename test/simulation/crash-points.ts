/** One seed's life: work, crash at a random event, start, verify; several times. Used by the tests and by `npm run sim`. */
import type { Loss } from './sector-ledger.ts';
import { SimulatedNode } from './simulated-node.ts';

export interface LifeReport {
  seed: number;
  crashes: number;
  operations: number;
  events: number;
  faults: string[];
}

const livesPerSeed = 3;

export async function liveThroughCrashes(seed: number, durability: 'flush' | 'sync'): Promise<LifeReport> {
  const node = new SimulatedNode({ seed, durability });
  const { random } = node;
  let crashes = 0;
  await node.start();
  while (crashes < livesPerSeed && node.faults.length === 0) {
    const crashAtEvent = node.clock.eventCount + random.between(1, random.chance(0.3) ? 60 : 2500);
    await node.work(400, crashAtEvent);
    if (node.faults.length > 0) break;
    const loss: Loss = random.chance(0.3) ? 'process' : 'power';
    node.crash(loss);
    crashes += 1;
    // A crash during recovery comes before the one that completes.
    if (random.chance(0.25)) await crashWhileStarting(node, loss);
    await node.start();
    await node.verify(loss);
  }
  if (node.faults.length === 0) await verifyDrained(node);
  return { seed, crashes, operations: node.operations, events: node.clock.eventCount, faults: node.faults };
}

/** Power fails some events into the start; what was durable before must be so afterwards. */
async function crashWhileStarting(node: SimulatedNode, loss: Loss): Promise<void> {
  const crashAtEvent = node.clock.eventCount + node.random.between(1, 60);
  const starting = node.start().catch(() => {});
  await Promise.race([starting, node.clock.run(() => node.clock.eventCount >= crashAtEvent)]);
  node.crash(loss);
}

/** At the end, everything is drained and read once more from the extent store. */
async function verifyDrained(node: SimulatedNode): Promise<void> {
  await node.work(60);
  await node.verify(null);
  await node.clock.settle(node.replica.drain());
  await node.verify(null);
  const { usedBytes } = node.replica.state().journal;
  if (usedBytes > 64 * 1024) node.faults.push(`the drained journal still takes ${usedBytes} bytes`);
}
