/** fio writes and verifies a volume attached as the plugin attaches it without the kernel's iSCSI. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { MiB } from '../../daemon/base/limits.ts';
import { attachVolume } from './attached-volume.ts';
import { createVolume, drained, startWeftd, temporaryDirectory } from './volume-rig.ts';

/** Block size, queue depth, bytes: each on a region of its own. */
const cases = [
  { bs: '4k', depth: 1, sizeMiB: 4 },
  { bs: '4k', depth: 16, sizeMiB: 16 },
  { bs: '16k', depth: 4, sizeMiB: 24 },
  { bs: '64k', depth: 8, sizeMiB: 32 },
  { bs: '256k', depth: 16, sizeMiB: 32 },
  { bs: '1m', depth: 16, sizeMiB: 48 },
  { bs: '4k-1m', depth: 16, sizeMiB: 48 },
];
const limitMs = 50_000;

/** The same job writes, and verifies later: fio repeats its random numbers. */
function jobFile(): string {
  const jobs = [];
  let offsetMiB = 0;
  for (const { bs, depth, sizeMiB } of cases) {
    const size = bs.includes('-') ? `bsrange=${bs}` : `bs=${bs}`;
    jobs.push(
      `[${bs}-depth-${depth}]`,
      'stonewall',
      size,
      `iodepth=${depth}`,
      `offset=${offsetMiB}m`,
      `size=${sizeMiB}m`,
    );
    offsetMiB += sizeMiB;
  }
  const shared = [
    'rw=randwrite',
    'ioengine=libaio',
    'direct=1',
    'verify=crc32c',
    'verify_fatal=1',
    'group_reporting',
  ];
  return `${['[global]', ...shared, ...jobs].join('\n')}\n`;
}

t.test('what fio wrote at 4k to 1m and depths 1 to 16 is there', async (t) => {
  const directory = await temporaryDirectory(t);
  const weftd = await startWeftd(t);
  await createVolume(weftd, { name: 'fio', sizeBytes: 256 * MiB });
  const volume = await attachVolume(t, weftd, 'fio', directory);
  const job = join(directory, 'verify.fio');
  await writeFile(job, jobFile());
  const fio = (...args: string[]) =>
    execa('fio', [`--filename=${volume.device}`, ...args, job], {
      cwd: directory,
      timeout: limitMs,
      stdin: 'ignore',
    });
  await fio();
  t.pass('verified while it was attached');

  // Attached anew: nothing comes out of this machine's page cache. Killed: it comes out of the journal.
  await volume.detach();
  await weftd.kill9();
  await weftd.startAgain();
  await volume.attach();
  await fio('--verify_only');
  t.pass('verified after kill -9');

  await volume.detach();
  await drained(weftd);
  await volume.attach();
  await fio('--verify_only');
  t.pass('verified out of the segments');

  await execa('dd', [
    'if=/dev/zero',
    `of=${volume.device}`,
    'bs=4k',
    'count=1',
    'seek=1000',
    'conv=notrunc,fsync',
  ]);
  await t.rejects(fio('--verify_only'), /verify/i, 'a wrong block would be seen');
});
