import t from 'tap';
import { GiB, MiB } from '../../daemon/base/limits.ts';
import {
  noOptions,
  optionDifferences,
  optionsOfVolume,
  optionsToLabels,
  readOptionList,
  resolveOptions,
} from '../../plugin/options.ts';

const host = { defaults: noOptions, overrides: noOptions, container: null };

t.test('a volume is 10 GiB of ext4, root 0755, when nothing is said', async (t) => {
  t.same(resolveOptions({}, host).options, {
    sizeBytes: 10 * GiB,
    container: null,
    fs: 'ext4',
    durability: null,
    uid: 0,
    gid: 0,
    mode: 0o755,
  });
});

t.test('sizes are written in the ways people know, and rounded up to whole MiB', async (t) => {
  const sizes: [Record<string, string>, number][] = [
    [{ size: '10g' }, 10 * GiB],
    [{ size: '512m' }, 512 * MiB],
    [{ size: '1073741824' }, GiB],
    [{ size: '1073741825' }, GiB + MiB],
    [{ sizeMb: '100' }, 100 * MiB],
  ];
  for (const [given, sizeBytes] of sizes) t.equal(resolveOptions(given, host).options.sizeBytes, sizeBytes);
});

t.test("overrides beat what is asked for, which beats the host's defaults", async (t) => {
  const settings = {
    defaults: readOptionList('size=20g, fs=xfs'),
    overrides: readOptionList('durability=sync,uid=7'),
    container: 'gold',
  };
  const { options, chosen } = resolveOptions({ size: '1g', uid: '8', durability: 'flush' }, settings);
  t.match(options, { sizeBytes: GiB, fs: 'xfs', durability: 'sync', uid: 7, container: 'gold' });
  t.same([...chosen].sort(), ['durability', 'sizeBytes', 'uid'], "defaults are nobody's choice");
});

t.test('options come back from the labels they are kept in, and differences are named', async (t) => {
  const { options } = resolveOptions({ size: '2g', fs: 'xfs', uid: '70', gid: '71', mode: '2770' }, host);
  const volume = {
    labels: optionsToLabels(options),
    // Grown since it was made.
    sizeBytes: 4 * GiB,
    container: 'default',
    durability: 'flush' as const,
    filesystem: null,
  };
  const existing = optionsOfVolume(volume);
  t.same(existing, { ...options, container: 'default', durability: 'flush' });
  t.same(optionDifferences(existing, resolveOptions({ size: '2g', mode: '2770' }, host)), []);
  t.same(optionDifferences(existing, resolveOptions({ size: '3g', mode: '0770', container: 'gold' }, host)), [
    'size is 2 GiB, not 3 GiB',
    'container is default, not gold',
    'mode is 2770, not 0770',
  ]);
  const spoilt = { ...volume, labels: { ...volume.labels, 'weft.uid': 'nobody' } };
  t.equal(optionsOfVolume(spoilt).uid, 0, 'a label that cannot be read says nothing');
});
