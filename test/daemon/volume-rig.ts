/** What tests of the real daemon start from: weftd on a temporary directory, volumes on it, nothing left behind. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { VolumeCreate } from '../../daemon/api/schema.ts';
import { eventually } from '../system/eventually.ts';
import { type WeftdOptions, WeftdProcess } from '../system/weftd-process.ts';

/** A drain of everything begins about 5 s after the last write. */
const drainLimitMs = 40_000;

/** Removed when the test ends, after everything that was started later. */
export async function temporaryDirectory(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-daemon-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

export async function startWeftd(t: Test, options: WeftdOptions = {}): Promise<WeftdProcess> {
  const weftd = await WeftdProcess.start(options);
  t.teardown(async () => {
    if (!t.passing()) t.comment(await weftd.log(20));
    // Not asked to drain: whoever wants that asks for it in the test.
    await weftd.kill9();
    await weftd.stop();
  });
  return weftd;
}

/** Creates a volume; answers with its URL for libiscsi and QEMU, CHAP secret included. */
export async function createVolume(weftd: WeftdProcess, wanted: VolumeCreate): Promise<string> {
  const client = await weftd.client();
  await client.createVolume(wanted);
  const { iqn, lun, chap } = await client.attachment(wanted.name);
  const who = chap === null ? '' : `${chap.user}%${chap.secret}@`;
  return `iscsi://${who}${weftd.portal}/${iqn}/${lun}`;
}

/** Waits until everything in the journal is stored in segments. */
export async function drained(weftd: WeftdProcess): Promise<void> {
  const client = await weftd.client();
  await eventually('the journal is drained', drainLimitMs, async () => {
    return (await client.status()).journal.usedBytes <= 4096;
  });
}
