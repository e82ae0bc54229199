/** Lives with a disk that fails, fills up or rots: what must hold then. Used by the tests and by `npm run sim`. */
import { asWeftError } from '../../daemon/base/errors.ts';
import { blockSizeBytes, MiB } from '../../daemon/base/limits.ts';
import { type LifeReport, report } from './crash-points.ts';
import type { Loss } from './sector-ledger.ts';
import { SimulatedNode } from './simulated-node.ts';

const volumeBytes = 6 * MiB;
/** In this time of the simulation a store that has room again must take writes again. */
const recoveryMs = 20_000;

/** Reads, writes and syncs fail now and then. Whoever is told so restarts the daemon; nothing promised is lost. */
export async function liveThroughErrors(seed: number, durability: 'flush' | 'sync'): Promise<LifeReport> {
  const node = new SimulatedNode({
    seed,
    adoptsReadily: seed % 2 === 0,
    durability,
    volumeBytes,
    volumes: 2,
  });
  const { random } = node;
  let restarts = 0;
  await node.start();
  for (let round = 0; round < 3 && node.faults.length === 0; round++) {
    node.tolerated.add('IO_ERROR');
    for (let count = random.between(1, 3); count > 0; count--)
      node.disk.fail(random.pick(['read', 'write', 'sync'] as const), random.between(1, 80));
    await node.work(random.between(50, 200));
    const loss: Loss = random.chance(0.5) ? 'process' : 'power';
    node.crash(loss);
    restarts += 1;
    await startInSpiteOfErrors(node);
    node.disk.healthy();
    node.tolerated.clear();
    await node.verify(loss);
  }
  if (node.faults.length === 0) {
    await node.work(60);
    await node.verifyDrained();
  }
  return report(node, restarts);
}

/** A fault may meet the start, which then is refused and tried again. */
async function startInSpiteOfErrors(node: SimulatedNode): Promise<void> {
  for (let attempt = 0; attempt < 5; attempt++) {
    try {
      return await node.start();
    } catch (error) {
      if (asWeftError(error).code !== 'IO_ERROR') throw error;
      node.crash('process');
    }
  }
  node.faults.push('the start fails again and again');
}

/** The disk is too small, and is made larger. Writes are refused, reads are not, nothing acknowledged is lost. */
export async function liveOnFullDisk(seed: number, durability: 'flush' | 'sync'): Promise<LifeReport> {
  const capacityBytes = 7 * MiB + (seed % 5) * MiB;
  const reserveBytes = (seed % 3) * MiB;
  const node = new SimulatedNode({
    seed,
    adoptsReadily: seed % 2 === 0,
    durability,
    volumeBytes,
    volumes: 2,
    capacityBytes,
    reserveBytes,
  });
  const crashes = await fill(node);
  node.disk.options.capacityBytes = 2 ** 40;
  await node.clock.advance(recoveryMs);
  node.tolerated.clear();
  await node.work(100);
  await node.verifyDrained();
  return report(node, crashes);
}

/** The disk stays too small, but its user unmaps and deletes: then it takes writes again. */
export async function liveOnGivenBackRoom(seed: number, durability: 'flush' | 'sync'): Promise<LifeReport> {
  const capacityBytes = 18 * MiB + (seed % 5) * MiB;
  const reserveBytes = 6 * MiB;
  const node = new SimulatedNode({
    seed,
    adoptsReadily: seed % 2 === 0,
    durability,
    volumeBytes,
    volumes: 2,
    capacityBytes,
    reserveBytes,
  });
  const crashes = await fill(node);
  await giveBack(node);
  await node.clock.advance(recoveryMs);
  await writeSome(node);
  return report(node, crashes);
}

/** Writes until nothing fits any more, with a crash now and then. Returns the crashes. */
async function fill(node: SimulatedNode): Promise<number> {
  await node.start();
  node.tolerated.add('NO_SPACE');
  await node.work(300);
  await node.verify(null);
  if (node.random.chance(0.5)) return 0;
  const loss: Loss = node.random.chance(0.5) ? 'process' : 'power';
  node.crash(loss);
  await node.start();
  await node.verify(loss);
  await node.work(100);
  await node.verify(null);
  return 1;
}

/** Unmaps all of the first volume and deletes the second: what a user does about a full store. */
async function giveBack(node: SimulatedNode): Promise<void> {
  const [first, second] = node.volumes;
  node.deleteVolume(second!);
  // An unmap may be refused while the journal is full; the host tries again.
  for (let attempt = 0; ; attempt++) {
    const unmap = new Promise<Error | null>((resolve) =>
      first!.device.unmap(0, first!.sizeBytes, true, resolve),
    );
    const error = await node.clock.settle(unmap);
    if (error === null) return;
    if (attempt === 10) {
      node.faults.push(`unmap is refused for good: ${error.message}`);
      return;
    }
    await node.clock.advance(2000);
  }
}

async function writeSome(node: SimulatedNode): Promise<void> {
  const data = Buffer.alloc(16 * blockSizeBytes, 1);
  const { device } = node.volumes[0]!;
  const write = new Promise<Error | null>((resolve) => device.write(0, data, false, resolve));
  const error = await node.clock.settle(write);
  if (error !== null) node.faults.push(`after everything was given back: ${error.message}`);
}

/** Bits turn. What is read is right or CORRUPT, never anything else, and all that is not damaged goes on. */
export async function liveWithRot(seed: number, durability: 'flush' | 'sync'): Promise<LifeReport> {
  const node = new SimulatedNode({
    seed,
    adoptsReadily: seed % 2 === 0,
    durability,
    volumeBytes,
    volumes: 2,
  });
  const { random } = node;
  await node.start();
  await node.work(random.between(20, 200));
  node.tolerated.add('CORRUPT');
  for (let round = 0; round < 3 && node.faults.length === 0; round++) {
    await rot(node, random.between(1, 4));
    await node.work(150);
    await node.clock.settle(node.replica.drain());
    await node.verify(null);
    await node.stop();
    if (random.chance(0.5)) node.crash('power');
    try {
      await node.start();
    } catch (error) {
      // Records of unknown blocks are lost: the start is refused rather than old data served.
      if (asWeftError(error).code !== 'CORRUPT') throw error;
      break;
    }
    await node.verify(null);
  }
  return report(node, 0);
}

async function rot(node: SimulatedNode, bits: number): Promise<void> {
  const { disk, clock, random } = node;
  for (let count = 0; count < bits; count++) {
    const directory = random.pick(['journal', 'segments']);
    const names = (await clock.settle(disk.list(directory))).filter((name) => !name.startsWith('free'));
    if (names.length === 0) continue;
    const path = `${directory}/${random.pick(names)}`;
    try {
      const file = await clock.settle(disk.open(path, 'read'));
      const sizeBytes = await clock.settle(file.size());
      await clock.settle(file.close());
      disk.flipBit(path, random.below(sizeBytes), random.below(8));
    } catch {
      // Nothing is stored there: a hole has no bits to turn. Or the file is gone.
    }
  }
}
