/** Composition of one node: opens the parts in the order they need each other, and closes them in reverse. */
import { networkInterfaces, totalmem } from 'node:os';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { ensureAdminToken } from './api/admin-token.ts';
import { createApiServer } from './api/server.ts';
import { asWeftError, WeftError } from './base/errors.ts';
import type { Config, HostPort } from './config.ts';
import { Catalog } from './control/catalog.ts';
import type { ControlStore } from './control/control-store.ts';
import { volumeRecordSchema } from './control/documents.ts';
import { openSqliteControlStore } from './control/sqlite-control-store.ts';
import { systemClock } from './env/clock.ts';
import { openDataDirectory } from './env/data-directory.ts';
import { systemNetwork } from './env/network.ts';
import { systemRandom } from './env/random.ts';
import { SystemDisk } from './env/system-disk.ts';
import { SqliteMapStore } from './extents/sqlite-map-store.ts';
import { Portal } from './iscsi/portal.ts';
import { LocalReplica } from './replica/local-replica.ts';
import type { VolumeIdentity } from './replica/replica.ts';
import { openSecrets, readDiscoveryChap } from './secret-files.ts';
import { toldPortals } from './told-portals.ts';
import { VolumeTargets } from './volume-targets.ts';

/** Newly written data that is read into the system's cache while there is nothing to do: part of the machine's memory. */
const warmUpMemoryFraction = 1 / 8;

/** How long initiators have to log out by themselves when the daemon is told to end, in ms. */
const logoutGraceMs = 2_000;

export interface RunningNode {
  id: string;
  api: HostPort;
  /** In the order of their portal group tags. */
  iscsi: HostPort[];
  /** Ends cleanly: no new work, what is under way finishes, everything acknowledged is made durable. */
  stop(): Promise<void>;
}

export async function startNode(config: Config, version: string, log: Logger): Promise<RunningNode> {
  /** What has been opened, to be closed in reverse order. */
  const opened: (() => unknown)[] = [];
  try {
    return await open(config, version, log, opened);
  } catch (error) {
    await closeAll(opened, log);
    throw error;
  }
}

async function open(
  config: Config,
  version: string,
  log: Logger,
  opened: (() => unknown)[],
): Promise<RunningNode> {
  const clock = systemClock;
  const random = systemRandom;
  const startedAt = new Date(clock.nowMs()).toISOString();
  let state: 'ready' | 'draining' = 'ready';

  const data = await openDataDirectory(config.dataDirectory, clock.nowMs());
  opened.push(() => data.unlock());
  const store = await openFile(join(data.path, 'control.db'), openSqliteControlStore);
  opened.push(() => store.close());
  const secrets = await openSecrets(config, data.path, { store, random, log });
  const discovery = await readDiscoveryChap(config.discoveryChapFile);
  const maps = await openFile(join(data.path, 'map.db'), (path) => SqliteMapStore.open(path));
  opened.push(() => maps.close());
  const replica = await LocalReplica.open(
    {
      stores: [{ disk: new SystemDisk(data.path), tier: 'hot' }],
      maps,
      clock,
      random,
      log: log.child({ part: 'replica' }),
    },
    {
      volumes: await knownVolumes(store),
      journalCapacityBytes: config.journal.capacityBytes,
      journalFileBytes: config.journal.fileSizeBytes,
      warmUpBytes: totalmem() * warmUpMemoryFraction,
      chunkCacheBytes: config.cacheBytes,
    },
  );
  opened.push(() => replica.close());

  const targets = new VolumeTargets({
    replica,
    clock,
    epoch: data.label.starts,
    discovery,
    admit: (volume, initiator) => catalog.volumes.admit(volume, initiator),
    lists: (volume, initiator) => catalog.volumes.lists(volume, initiator),
    credentials: (volume) => catalog.volumes.credentials(volume),
    unitState: (volumeId) => catalog.unitStates.of(volumeId),
  });
  opened.push(() => targets.close());
  const onFault = (error: Error): void =>
    log.warn({ error: asWeftError(error).message }, 'background work failed');
  const forgetsDamagedUnits = config.reservationsLost === 'forget';
  const environment = { store, host: targets, clock, random, secrets, onFault, forgetsDamagedUnits };
  const catalog = new Catalog(environment);
  await catalog.start();
  for (const volume of catalog.volumes.list()) {
    const fault = catalog.volumes.fault(volume);
    if (fault !== null) log.error({ volume: volume.name, error: fault.message }, 'a volume is not served');
  }
  opened.push(() => catalog.stop());
  const tokenFile = await ensureAdminToken(data.path, catalog.tokens);

  // Only now, with every volume served: an initiator that finds its target missing gives up for good.
  const portalEnvironment = {
    network: systemNetwork,
    clock,
    random,
    directory: targets,
    log: log.child({ part: 'iscsi' }),
  };
  const portal = await Portal.open(portalEnvironment, config.iscsi).catch((cause) => {
    const { code, message, details } = asWeftError(cause);
    throw new WeftError(code, `iSCSI: ${message}; choose other addresses for --iscsi`, { cause, details });
  });
  opened.push(() => portal.close({ drainMs: logoutGraceMs }));
  const iscsi = portal.listensAt;
  targets.attachPortal(portal, toldPortals(iscsi, config.iscsiAdvertise, networkInterfaces()));

  const node = { id: data.label.nodeId, name: config.nodeName, version, startedAt, state: () => state };
  const server = createApiServer({ catalog, clock, node }, log.child({ part: 'api' }));
  const api = await server.listen(config.api.host, config.api.port);
  opened.push(() => server.close());
  log.info({ node: node.id, api, iscsi, data: data.path, tokenFile }, 'weftd is ready');
  return {
    id: node.id,
    api,
    iscsi,
    stop: async () => {
      state = 'draining';
      await closeAll(opened, log);
    },
  };
}

/** Whatever is wrong with a file, the message names it. */
async function openFile<Opened>(path: string, open: (path: string) => Promise<Opened>): Promise<Opened> {
  try {
    return await open(path);
  } catch (cause) {
    const { code, message, details } = asWeftError(cause);
    const advice = code === 'CORRUPT' ? '; restore it from a backup' : '';
    throw new WeftError(code, `${path}: ${message}${advice}`, { cause, details: { ...details } });
  }
}

/** Everything is closed, whatever of it fails: the journal must be flushed even when a socket does not close. */
async function closeAll(opened: (() => unknown)[], log: Logger): Promise<void> {
  for (let close = opened.pop(); close !== undefined; close = opened.pop()) {
    try {
      await close();
    } catch (error) {
      log.error({ error: asWeftError(error).message }, 'a part did not close cleanly');
    }
  }
}

/** Every volume that has data, those in the trash included: the journal may still hold some of it. */
async function knownVolumes(store: ControlStore): Promise<VolumeIdentity[]> {
  const documents = await store.list('volume/');
  return documents.map((document) => volumeRecordSchema.parse(document.value));
}
