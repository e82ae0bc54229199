/** Puts the plugin together: the socket first, then what was told and remembered, then what was left behind. */

import { mkdir, readFile, realpath, unlink } from 'node:fs/promises';
import type { Logger } from 'pino';
import { asWeftError, WeftError } from '../daemon/base/errors.ts';
import type { AttachEngine } from './attach.ts';
import { callLimitMs, VolumeDriver } from './driver.ts';
import { Fabric } from './fabric.ts';
import { ensureHostId } from './host-id.ts';
import type { HostVolumeEnvironment } from './host-volume.ts';
import { MountDirectory } from './mounts.ts';
import { OpenIscsiEngine } from './open-iscsi.ts';
import { RecordStore } from './records.ts';
import { Caretaker } from './recovery.ts';
import { type CallHandler, listen } from './server.ts';
import { readBasics, readSettings, type Settings } from './settings.ts';
import { UserspaceEngine } from './userspace.ts';

/** dockerd kills 10 s after it has asked to end. */
const drainLimitMs = 8_000;

export interface Plugin {
  /** Resolves when every volume of an earlier process was looked at. */
  recovered: Promise<void>;
  /**
   * Takes no more calls, finishes those that run, and leaves what is mounted as it is: Docker containers may be using
   * it, dockerd unmounts by itself what it does not need, and the next start puts the rest right.
   */
  stop(): Promise<void>;
}

export interface PluginParts {
  environment: Readonly<Record<string, string | undefined>>;
  log: Logger;
  /** Which engine attaches; by the settings when absent. */
  chooseEngine?: (settings: Settings, log: Logger) => Promise<AttachEngine>;
  /** How long a call may take; for tests. */
  callLimitMs?: number;
}

export async function startPlugin(parts: PluginParts): Promise<Plugin> {
  const { log } = parts;
  const { socketPath } = readBasics(parts.environment);
  const limitMs = parts.callLimitMs ?? callLimitMs;
  let started: (driver: VolumeDriver) => void = () => {};
  let failed: (error: unknown) => void = () => {};
  const starting = new Promise<VolumeDriver>((resolve, reject) => {
    started = resolve;
    failed = reject;
  });
  starting.catch(() => {});

  const handler: CallHandler = {
    async call(request, signal) {
      if (request.operation === 'Capabilities') return { Capabilities: { Scope: 'global' } };
      const driver = await within(limitMs, starting);
      return driver.call(request, signal);
    },
    undelivered: async (request) => (await starting).undelivered(request),
  };
  const server = await listen(socketPath, handler, log);
  log.info({ socketPath }, 'the socket is open');

  let caretaker: Caretaker | null = null;
  const recovered = (async () => {
    const settings = readSettings(parts.environment);
    const loaded = await load(settings, parts);
    caretaker = loaded.caretaker;
    const jobs = caretaker.recover(loaded.records, loaded.bootId);
    started(loaded.driver);
    caretaker.start();
    log.info(
      { node: settings.node, url: settings.url, volumes: loaded.records.length },
      'the plugin is ready',
    );
    await Promise.all([...jobs, loaded.fabric.refresh().catch(() => {})]);
  })().catch((error) => {
    // The socket stays: whoever calls is told what is wrong.
    log.error({ err: error }, error.message);
    failed(error);
  });

  return {
    recovered,
    async stop() {
      caretaker?.stop();
      server.close();
      server.closeIdleConnections();
      await Promise.race([
        starting.then((ready) => ready.queue.idle()).catch(() => {}),
        delayUnref(drainLimitMs),
      ]);
      server.closeAllConnections();
      await unlink(socketPath).catch(() => {});
    },
  };
}

async function load(settings: Settings, parts: PluginParts) {
  const { log } = parts;
  await mkdir(settings.mountDirectory, { recursive: true });
  await mkdir(settings.stateDirectory, { recursive: true, mode: 0o700 });
  // As the kernel writes them in its list of mounts.
  settings.mountDirectory = await realpath(settings.mountDirectory);
  settings.stateDirectory = await realpath(settings.stateDirectory);
  const store = new RecordStore(settings.stateDirectory);
  const { records, volumes, damaged } = await store.load();
  for (const what of damaged) log.error({ what }, 'a damaged record was put aside');
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const fabric = new Fabric(settings, store, volumes);
  const choose = parts.chooseEngine ?? chooseEngine;
  const env: HostVolumeEnvironment = {
    settings,
    fabric,
    store,
    mounts: new MountDirectory(settings.mountDirectory),
    log,
    engine: once(() => choose(settings, log)),
  };
  const driver = new VolumeDriver(env, bootId, parts.callLimitMs);
  return { driver, caretaker: new Caretaker(env, driver), records, bootId, fabric };
}

/** The kernel's initiator where there is one, because it is faster and outlives the plugin. */
async function chooseEngine(settings: Settings, log: Logger): Promise<AttachEngine> {
  const kernel = new OpenIscsiEngine();
  const userspace = new UserspaceEngine(
    settings.stateDirectory,
    settings.node,
    await ensureHostId(settings.stateDirectory),
  );
  const candidates = { 'open-iscsi': [kernel], userspace: [userspace], auto: [kernel, userspace] }[
    settings.attach
  ];
  const reasons: string[] = [];
  for (const engine of candidates) {
    try {
      await engine.probe();
      log.info({ engine: engine.name }, 'volumes are attached with this engine');
      return engine;
    } catch (thrown) {
      const error = asWeftError(thrown);
      reasons.push(error.message);
      log.info({ engine: engine.name, reason: error.message }, 'this engine cannot be used here');
    }
  }
  throw new WeftError('UNSUPPORTED', `this host has no way to attach a volume: ${reasons.join('; ')}`);
}

/** The first success is kept; after a failure the next caller tries again. */
function once<Value>(make: () => Promise<Value>): () => Promise<Value> {
  let made: Promise<Value> | null = null;
  return () => {
    made ??= make().catch((error) => {
      made = null;
      throw error;
    });
    return made;
  };
}

async function within<Value>(limitMs: number, promise: Promise<Value>): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  const ranOut = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(
        new WeftError('TIMEOUT', `waited ${limitMs / 1000} s for the plugin to read its records; try again`),
      );
    }, limitMs);
  });
  try {
    return await Promise.race([promise, ranOut]);
  } finally {
    clearTimeout(timer);
  }
}

function delayUnref(delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, delayMs).unref();
  });
}
