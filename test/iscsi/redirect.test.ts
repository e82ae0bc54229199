import { execa } from 'execa';
import t from 'tap';
import { systemClock } from '../../daemon/env/clock.ts';
import { systemNetwork } from '../../daemon/env/network.ts';
import { systemRandom } from '../../daemon/env/random.ts';
import { Portal } from '../../daemon/iscsi/portal.ts';
import type { MovedTarget } from '../../daemon/iscsi/target-directory.ts';
import { iqn, openPortal } from './fixture.ts';
import { Initiator, textOf } from './initiator.ts';

const chap = { user: 'weft-1', secret: 'a-secret-of-16-bytes' };

async function openRedirecting(t: { teardown(fn: () => Promise<void>): unknown }, moved: MovedTarget) {
  const directory = { find: (name: string) => (name === iqn ? moved : null), list: () => [] };
  const environment = { network: systemNetwork, clock: systemClock, random: systemRandom, directory };
  const portal = await Portal.open(environment, [{ host: '127.0.0.1', port: 0 }]);
  t.teardown(() => portal.close({ drainMs: 0 }));
  return portal.listensAt[0]!.port;
}

t.test('a target that moved is told with its address, before anything is proved', async (t) => {
  for (const [moved, status] of [
    ['temporarily', 0x0101],
    ['permanently', 0x0102],
  ] as const) {
    const port = await openRedirecting(t, { moved, address: '[2001:db8::1]:3260', lists: () => true });
    const initiator = await Initiator.connect(port);
    const answer = await initiator.loginStep(0, 1, {
      InitiatorName: initiator.name,
      TargetName: iqn,
      AuthMethod: 'CHAP,None',
    });
    t.equal(initiator.loginStatus, status);
    t.same(textOf(answer!.data), [['TargetAddress', '[2001:db8::1]:3260']], 'without a portal group tag');
    t.equal(answer!.flags & 0x80, 0, 'and without a transition');
    t.equal(await initiator.next(), null);
  }
});

t.test('whom the target does not list hears nothing of where it is', async (t) => {
  const moved = { moved: 'temporarily', address: '10.0.0.1:3260', lists: () => false } as const;
  const initiator = await Initiator.connect(await openRedirecting(t, moved));
  t.equal(await initiator.login(iqn), 0x0203);
});

t.test('libiscsi follows, and proves itself there', async (t) => {
  const { port } = await openPortal(t, { chap });
  const address = `127.0.0.1:${port}`;
  const here = await openRedirecting(t, { moved: 'temporarily', address, lists: () => true });
  const url = `iscsi://${chap.user}%${chap.secret}@127.0.0.1:${here}/${iqn}/0`;
  const inquiry = await execa('iscsi-inq', [url], { timeout: 20_000 });
  t.match(inquiry.stdout, /Vendor:WEFT/);
});
