import t from 'tap';
import { isReadOnly, isShutDown, mountsBelow, parseMountInfo, topMount } from '../../plugin/mount-table.ts';

const text = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:40 / /mnt/we\\040ft rw,relatime shared:7 master:3 - tmpfs tmpfs rw
41 40 7:0 / /mnt/we\\040ft/a.1 rw,relatime shared:8 - ext4 /dev/loop0 rw,errors=remount-ro
42 41 7:1 / /mnt/we\\040ft/a.1 rw,relatime - ext4 /dev/loop1 ro,emergency_ro
43 42 7:2 / /mnt/we\\040ft/a.1/data/deep rw,relatime - xfs /dev/loop2 rw,shutdown
broken line
`;

t.test("the kernel's list is read with its escapes, peer groups and stacked mounts", async (t) => {
  const mounts = parseMountInfo(text);
  t.equal(mounts.length, 6);
  const own = topMount(mounts, '/mnt/we ft');
  t.match(own, { device: '0:40', sharedGroup: 7, fsType: 'tmpfs' });
  const top = topMount(mounts, '/mnt/we ft/a.1');
  t.match(top, { device: '7:1', source: '/dev/loop1', sharedGroup: null });
  t.ok(top !== null && isReadOnly(top) && isShutDown(top));
  t.notOk(own !== null && (isReadOnly(own) || isShutDown(own)));
  t.equal(topMount(mounts, '/mnt'), null);
  t.same(
    mountsBelow(mounts, '/mnt/we ft').map((mount) => mount.mountId),
    [43, 42, 41],
    'the deepest and topmost is unmounted first',
  );
});
