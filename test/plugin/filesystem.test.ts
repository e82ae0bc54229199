import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { FilesystemRecord } from '../../daemon/api/schema.ts';
import { type DeviceContent, readContent } from '../../plugin/block-device.ts';
import { decideFormat } from '../../plugin/filesystem.ts';

const uuid = 'a0e81a5c-8de7-4c5b-9d0a-1f2e3d4c5b6a';
const other = 'b0e81a5c-8de7-4c5b-9d0a-1f2e3d4c5b6a';
const contents = {
  blank: { kind: 'blank' },
  unknown: { kind: 'unknown-data' },
  its: { kind: 'filesystem', type: 'ext4', uuid },
  other: { kind: 'filesystem', type: 'ext4', uuid: other },
  xfs: { kind: 'filesystem', type: 'xfs', uuid },
  swap: { kind: 'foreign', what: 'swap' },
} satisfies Record<string, DeviceContent>;

t.test('a device is formatted only where the record and what is on it prove it fresh', async (t) => {
  const table: [FilesystemRecord['state'] | null, keyof typeof contents, number, string][] = [
    [null, 'blank', 0, 'make'],
    [null, 'blank', 4096, 'NOT_BLANK'],
    [null, 'unknown', 4096, 'NOT_BLANK'],
    [null, 'its', 4096, 'use'],
    [null, 'xfs', 4096, 'NOT_BLANK'],
    [null, 'swap', 4096, 'NOT_BLANK'],
    ['making', 'blank', 0, 'make again'],
    ['making', 'unknown', 4096, 'make again'],
    ['making', 'its', 4096, 'make again'],
    ['making', 'other', 4096, 'NOT_BLANK'],
    ['making', 'xfs', 4096, 'NOT_BLANK'],
    ['making', 'swap', 4096, 'NOT_BLANK'],
    ['ready', 'its', 4096, 'use'],
    ['ready', 'blank', 4096, 'CORRUPT'],
    ['ready', 'blank', 0, 'CORRUPT'],
    ['ready', 'unknown', 4096, 'CORRUPT'],
    ['ready', 'other', 4096, 'CORRUPT'],
    ['ready', 'xfs', 4096, 'CORRUPT'],
    ['ready', 'swap', 4096, 'CORRUPT'],
  ];
  for (const [state, content, usedBytes, expected] of table) {
    const filesystem = state === null ? null : ({ type: 'ext4', uuid, state } as const);
    let decided: string;
    try {
      const decision = decideFormat({ name: 'db', filesystem, usedBytes }, 'ext4', contents[content]);
      decided = decision.kind === 'make' && decision.again ? 'make again' : decision.kind;
      if (decision.kind === 'make' && decision.again) t.equal(decision.uuid, uuid);
    } catch (error) {
      decided = (error as { code: string }).code;
    }
    t.equal(decided, expected, `record ${state}, device ${content}`);
  }
});

t.test('a device that cannot be read is not blank', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'weft-content-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  await t.rejects(readContent(join(directory, 'missing')));
  await t.rejects(readContent('/dev/loop-control'));
});
