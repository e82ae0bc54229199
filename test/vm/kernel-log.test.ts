import t from 'tap';
import { faultsIn } from './kernel-log.ts';

const conn = '[ 9.1]  connection1:0: detected conn error (1020)';
const path = '[ 9.2] I/O error, dev sda, sector 45234 op 0x1:(WRITE) flags 0xca00 phys_seg 2 prio class 2';
const joined = '[ 9.3] I/O error, dev dm-0, sector 8 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2';
const fileSystem =
  '[ 9.4] EXT4-fs error (device sda): ext4_find_entry:1463: inode #2: comm ls: reading directory';
const xfs = '[ 9.5] XFS (sdb): log I/O error -5';

t.test('outside a disturbance everything is a fault', async (t) => {
  for (const line of [conn, path, joined, fileSystem, xfs]) t.strictSame(faultsIn([line]), [line]);
  t.strictSame(faultsIn(['[ 0.0] ..MP-BIOS bug: 8254 timer not connected to IO-APIC']), []);
  t.strictSame(faultsIn(['[ 1.0] EXT4-fs (sda): mounted filesystem with ordered data mode.']), []);
});

t.test('a disturbance excuses a broken connection, and no lost I/O', async (t) => {
  const lines = ['weft-test: disturbed', conn, path, joined, fileSystem, xfs, 'weft-test: undisturbed', conn];
  t.strictSame(faultsIn(lines), [path, joined, fileSystem, xfs, conn]);
});

t.test('a cut path excuses its own I/O errors, and none of the device over the paths', async (t) => {
  const lines = [
    'weft-test: a path is cut',
    conn,
    path,
    joined,
    fileSystem,
    xfs,
    'weft-test: undisturbed',
    path,
  ];
  t.strictSame(faultsIn(lines), [joined, fileSystem, xfs, path]);
});

t.test('the warning a logout gives of itself is excused, and no other', async (t) => {
  const cause =
    '[ 1.0] workqueue: WQ_MEM_RECLAIM iscsi_ctrl_0:1:__iscsi_unbind_session [scsi_transport_iscsi] is flushing !WQ_MEM_RECLAIM pm:pm_runtime_work';
  const warning =
    '[ 1.1] WARNING: CPU: 0 PID: 803 at kernel/workqueue.c:2635 check_flush_dependency.part.0+0xb4/0x100';
  const trace = '[ 1.2] Call Trace:';
  const end = '[ 1.3] ---[ end trace 0000000000000000 ]---';
  const other = '[ 2.0] WARNING: CPU: 0 PID: 9 at fs/xfs/xfs_buf.c:1 xfs_buf_free+0x1/0x2';
  t.strictSame(faultsIn([cause, warning, trace, end]), []);
  t.strictSame(faultsIn([warning, trace, end]), [warning, trace], 'without its cause');
  t.strictSame(faultsIn([cause, warning, other, fileSystem, trace, end]), [other, fileSystem]);
  t.strictSame(faultsIn([cause, warning, trace, end, warning, trace]), [warning, trace], 'after its end');
});
