import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { OpenIscsiEngine, parseSessions } from '../../plugin/open-iscsi.ts';

const iqn = 'iqn.2026-11.io.weft:db';

/** An iscsiadm that notes what it is told, and a sysfs in which a login makes a disk appear. */
function host(test: { testdir(): string }) {
  const directory = test.testdir();
  const sysfs = join(directory, 'sys');
  const log = join(directory, 'log');
  writeFileSync(log, '');
  mkdirSync(join(sysfs, 'class/iscsi_transport/tcp'), { recursive: true });
  mkdirSync(join(sysfs, 'class/iscsi_session/session3'), { recursive: true });
  mkdirSync(join(sysfs, 'devices/session3/target0:0:0/0:0:0:1/block/sdq'), { recursive: true });
  writeFileSync(join(sysfs, 'devices/session3/target0:0:0/0:0:0:1/state'), 'running\n');
  symlinkSync(join(sysfs, 'devices/session3'), join(sysfs, 'class/iscsi_session/session3/device'));
  writeFileSync(
    join(directory, 'initiatorname.iscsi'),
    '# comment\nInitiatorName=iqn.2026-11.io.weft.host:H1\n',
  );
  mkdirSync(join(directory, 'bin'));
  const script = `#!/bin/bash
echo "$*" >> ${log}
case "$*" in
  "--mode session") [ -e ${directory}/in ] || exit 21; echo "tcp: [3] 10.0.0.2:3260,1 ${iqn} (non-flash)"; echo "tcp: [4] 10.0.0.2:3260,1 iqn.other (non-flash)";;
  *gone:3260*--login) echo "iscsiadm: connection login retries (reopen_max) 5 exceeded" >&2; exit 8;;
  *--login) touch ${directory}/in;;
  *--logout) rm ${directory}/in;;
  *--value\\ bad-secret) echo "iscsiadm: bad-secret is bad" >&2; exit 7;;
esac
`;
  writeFileSync(join(directory, 'bin/iscsiadm'), script);
  chmodSync(join(directory, 'bin/iscsiadm'), 0o755);
  process.env.PATH = `${join(directory, 'bin')}:${path}`;
  const engine = new OpenIscsiEngine({ sysfs, initiatorFile: join(directory, 'initiatorname.iscsi') });
  return { engine, calls: () => readFileSync(log, 'utf8'), sysfs };
}

const path = process.env.PATH;
t.teardown(() => {
  process.env.PATH = path;
});

t.test('sessions are read from what iscsiadm prints', async (t) => {
  t.same(parseSessions(`tcp: [12] [fd00::1]:3260,1 ${iqn} (non-flash)\nnonsense\n`), [
    { number: 12, portal: '[fd00::1]:3260', iqn },
  ]);
});

t.test('a volume is attached through the portal that answers, and detached without its record', async (t) => {
  const { engine, calls } = host(t);
  await engine.probe();
  t.equal(await engine.initiator(), 'iqn.2026-11.io.weft.host:h1');
  const target = { volumeId: 'v', iqn, lun: 1, portals: ['gone:3260', '10.0.0.2:3260'], mutualChap: null };
  t.equal(await engine.find(target), null);
  const device = await engine.attach({ ...target, chap: { user: 'weft', secret: 'a-secret' } });
  t.same(device, { path: '/dev/sdq', key: 'session3' });
  t.match(calls(), /--portal 10.0.0.2:3260 .*node.session.timeo.replacement_timeout --value 600/);
  t.match(calls(), /node.session.auth.authmethod --value CHAP/);
  t.same(await engine.devices(target), ['/dev/sdq']);
  await engine.detach(target);
  t.equal(await engine.find(target), null);
  t.match(calls(), new RegExp(`--targetname ${iqn} --logout\n.*--targetname ${iqn} --op delete`));
  await engine.detach(target);
});

t.test('a disk the kernel has given up is not the volume any more', async (t) => {
  const { engine, sysfs } = host(t);
  const target = { volumeId: 'v', iqn, lun: 1, portals: ['10.0.0.2:3260'], chap: null, mutualChap: null };
  await engine.attach(target);
  writeFileSync(join(sysfs, 'devices/session3/target0:0:0/0:0:0:1/state'), 'offline\n');
  t.equal(await engine.find(target), null);
});

t.test('a failure names every portal, and never the secret', async (t) => {
  const { engine } = host(t);
  const target = { volumeId: 'v', iqn, lun: 1, portals: ['gone:3260'], chap: null, mutualChap: null };
  await t.rejects(engine.attach(target), { code: 'UNAVAILABLE', message: /gone:3260: .*login retries/ });
  const chap = { user: 'weft', secret: 'bad-secret' };
  const error = await engine.attach({ ...target, portals: ['10.0.0.2:3260'], chap }).then(
    () => '',
    (thrown: Error) => thrown.message,
  );
  t.match(error, /could not store the CHAP secret/);
  t.notMatch(error, /bad-secret/);
});
