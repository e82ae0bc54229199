import t from 'tap';
import { systemClock } from '../../daemon/env/clock.ts';
import { type Network, systemNetwork } from '../../daemon/env/network.ts';
import { systemRandom } from '../../daemon/env/random.ts';
import { Portal } from '../../daemon/iscsi/portal.ts';
import type { TargetEntry } from '../../daemon/iscsi/target-directory.ts';
import { iqn, ManualClock, openPortal, until } from './fixture.ts';
import { chapResponse, noTag, textOf } from './initiator.ts';
import { MemoryDevice } from './memory-device.ts';

const emptyDirectory = { find: () => null, list: () => [] };
const chap = { user: 'weft-1', secret: 'a-secret-of-16-bytes' };

t.test('a login without authentication negotiates what both sides can', async (t) => {
  const { connect, portal } = await openPortal(t, { alias: 'database' });
  const initiator = await connect();
  t.equal(
    await initiator.login(iqn, { keys: { 'X-com.example.key': '1', IFMarker: 'Yes', MaxConnections: '8' } }),
    0,
  );
  const answered = Object.fromEntries(initiator.answered);
  t.match(answered, {
    AuthMethod: 'None',
    TargetAlias: 'database',
    TargetPortalGroupTag: '1',
    HeaderDigest: 'None',
    InitialR2T: 'No',
    ImmediateData: 'Yes',
    MaxRecvDataSegmentLength: '262144',
    MaxBurstLength: '1048576',
    FirstBurstLength: '262144',
    MaxOutstandingR2T: '4',
    ErrorRecoveryLevel: '0',
    MaxConnections: '1',
    IFMarker: 'No',
    'X-com.example.key': 'NotUnderstood',
  });
  t.not(initiator.tsih, 0);
  await until(() => portal.sessions().length === 1);
  t.match(portal.sessions(iqn), [{ iqn, initiator: initiator.name, address: /^127\.0\.0\.1:\d+$/ }]);
});

t.test('CHAP lets in who knows the secret, and nobody else', async (t) => {
  const { connect } = await openPortal(t, { chap });
  for (const algorithms of ['5', '7', '5,7']) {
    const good = await connect();
    t.equal(await good.login(iqn, { chap: { ...chap, algorithms } }), 0, algorithms);
    t.equal(good.answered.get('CHAP_A'), algorithms === '5' ? '5' : '7', 'the stronger one is taken');
    good.close();
  }
  const wrong = [
    { ...chap, secret: 'another-secret-of-it' },
    { ...chap, user: 'weft-2' },
    { ...chap, algorithms: '6' },
  ];
  for (const credentials of wrong) {
    const initiator = await connect();
    t.equal(await initiator.login(iqn, { chap: credentials }), 0x0201);
    t.equal(await initiator.next(), null, 'and the connection is closed');
  }
  const none = await connect();
  t.equal(await none.login(iqn), 0x0201, 'AuthMethod=None is not enough');
  const skipping = await connect();
  await skipping.loginStep(1, 3, { InitiatorName: skipping.name, TargetName: iqn });
  t.equal(skipping.loginStatus, 0x0201, 'nor is leaving the security stage out');
  const silent = await connect();
  await silent.loginStep(0, 1, { InitiatorName: silent.name, TargetName: iqn });
  t.equal(silent.loginStatus, 0x0201, 'nor saying nothing about it');
});

t.test('a target proves itself when asked to, and never answers its own challenge', async (t) => {
  const mutualChap = { user: 'target-user', secret: 'another-16-byte-secret' };
  const { connect } = await openPortal(t, { chap, mutualChap, alias: 'database' });
  const initiator = await connect();
  t.equal(await initiator.login(iqn, { chap, mutual: mutualChap }), 0);
  t.equal(initiator.answered.get('TargetAlias'), 'database');
  const expected = chapResponse('md5', 77, mutualChap.secret, Buffer.from('5a'.repeat(16), 'hex'));
  t.equal(initiator.answered.get('CHAP_N'), 'target-user');
  t.equal(initiator.answered.get('CHAP_R'), `0x${expected.toString('hex')}`);

  const reflecting = await connect();
  await reflecting.loginStep(0, null, {
    InitiatorName: reflecting.name,
    TargetName: iqn,
    AuthMethod: 'CHAP',
  });
  await reflecting.loginStep(0, null, { CHAP_A: '5' });
  const challenge = reflecting.answered.get('CHAP_C')!;
  t.notOk(reflecting.answered.has('TargetAlias'), "the volume's name is not for strangers");
  const proof = chapResponse(
    'md5',
    Number(reflecting.answered.get('CHAP_I')),
    chap.secret,
    Buffer.from(challenge.slice(2), 'hex'),
  );
  await reflecting.loginStep(0, 1, {
    CHAP_N: chap.user,
    CHAP_R: `0x${proof.toString('hex')}`,
    CHAP_I: '1',
    CHAP_C: challenge,
  });
  t.equal(reflecting.loginStatus, 0x0201);
});

t.test('mutual CHAP that the target cannot do is refused', async (t) => {
  const { connect } = await openPortal(t, { chap });
  const initiator = await connect();
  t.equal(await initiator.login(iqn, { chap, mutual: { secret: 'x' } }), 0x0201);
});

t.test('each kind of refusal has its status', async (t) => {
  const { connect } = await openPortal(t, { admit: () => 'claimed by host-b' });
  const cases: [number, (initiator: Awaited<ReturnType<typeof connect>>) => Promise<unknown>][] = [
    [0x0202, (i) => i.login(iqn)],
    [0x0203, (i) => i.login('iqn.2026-11.io.weft:none')],
    [0x0205, (i) => i.loginStep(0, 1, { InitiatorName: i.name, TargetName: iqn }, { versionMin: 1 })],
    [0x0207, (i) => i.loginStep(0, 1, { TargetName: iqn })],
    [0x0207, (i) => i.loginStep(0, 1, { InitiatorName: i.name })],
    [0x0209, (i) => i.loginStep(0, 1, { InitiatorName: i.name, TargetName: iqn, SessionType: 'Odd' })],
    [0x0200, (i) => i.loginStep(0, 1, { InitiatorName: 'nobody', TargetName: iqn })],
    [0x0200, (i) => i.loginStep(0, 2, { InitiatorName: i.name, TargetName: iqn })],
    [0x0200, (i) => i.loginStep(0, 1, { InitiatorName: i.name }, { continued: true })],
  ];
  for (const [status, act] of cases) {
    const initiator = await connect();
    await act(initiator);
    t.equal(initiator.loginStatus, status);
    t.equal(await initiator.next(), null);
  }
});

t.test('a key sent twice is refused', async (t) => {
  const { connect } = await openPortal(t);
  const initiator = await connect();
  await initiator.loginStep(0, 1, { InitiatorName: initiator.name, TargetName: iqn });
  await initiator.loginStep(1, null, { InitialR2T: 'No' });
  t.equal(initiator.loginStatus, 0);
  await initiator.loginStep(1, 3, { InitialR2T: 'Yes' });
  t.equal(initiator.loginStatus, 0x0200);
});

t.test('a CHAP key sent twice is refused: one connection has one guess', async (t) => {
  const { connect } = await openPortal(t, { chap });
  const initiator = await connect();
  const who = { InitiatorName: initiator.name, TargetName: iqn, AuthMethod: 'CHAP' };
  await initiator.loginStep(0, null, who);
  await initiator.loginStep(0, null, { CHAP_A: '7' });
  t.equal(initiator.loginStatus, 0);
  await initiator.loginStep(0, null, { CHAP_A: '7' });
  t.equal(initiator.loginStatus, 0x0200);
});

t.test('a target that does not list the initiator answers as one that is not there', async (t) => {
  const { connect } = await openPortal(t, { chap, lists: (name) => name === 'iqn.2026-11.test:listed' });
  const answer = async (name: string, target: string, keys: Record<string, string>) => {
    const initiator = await connect();
    const pdu = await initiator.loginStep(0, null, { InitiatorName: name, TargetName: target, ...keys });
    t.equal(await initiator.next(), null, 'and the connection is closed');
    return pdu?.header.toString('hex');
  };
  const stranger = 'iqn.2026-11.test:stranger';
  for (const keys of [{ AuthMethod: 'CHAP' }, { AuthMethod: 'None' }, {}]) {
    const forbidden = await answer(stranger, iqn, keys);
    t.equal(forbidden, await answer(stranger, 'iqn.2026-11.io.weft:volume-0', keys), 'byte for byte');
    t.equal(forbidden?.slice(72, 76), '0203');
  }
  const listed = await connect();
  listed.name = 'iqn.2026-11.TEST:Listed';
  t.equal(await listed.login(iqn, { chap }), 0, 'names compare in lower case');
});

t.test('credentials, lists and claims that change during a login are those that count', async (t) => {
  let now: Partial<TargetEntry> = { chap };
  const device = new MemoryDevice();
  const find = (name: string): TargetEntry | null =>
    name === iqn ? { iqn, device, chap, lists: () => true, admit: () => null, ...now } : null;
  const { connect, portal } = await openPortal(t, {}, { directory: { find, list: () => [] } });
  const cases: [number, Partial<TargetEntry>][] = [
    [0x0201, { chap: { ...chap, secret: 'a-new-secret-of-it' } }],
    [0x0203, { lists: () => false }],
    [0x0202, { admit: () => 'claimed by host-b' }],
    [0, { chap }],
  ];
  for (const [status, change] of cases) {
    now = { chap };
    const initiator = await connect();
    await initiator.loginStep(0, null, {
      InitiatorName: initiator.name,
      TargetName: iqn,
      AuthMethod: 'CHAP',
    });
    await initiator.loginStep(0, null, { CHAP_A: '7' });
    const challenge = Buffer.from(initiator.answered.get('CHAP_C')!.slice(2), 'hex');
    const response = chapResponse('sha256', Number(initiator.answered.get('CHAP_I')), chap.secret, challenge);
    await initiator.loginStep(0, 1, { CHAP_N: chap.user, CHAP_R: `0x${response.toString('hex')}` });
    t.equal(initiator.loginStatus, 0);
    now = change;
    await initiator.loginStep(1, 3, {});
    t.equal(initiator.loginStatus, status);
    initiator.close();
    await until(() => portal.connectionCount === 0);
  }
});

t.test('discovery asks for credentials where it has some', async (t) => {
  const mutualChap = { user: 'discovery-target', secret: 'target-of-discovery' };
  const list = () => [{ iqn, portals: [] }];
  const directory = { discovery: { chap, mutualChap }, find: () => null, list };
  const { connect } = await openPortal(t, {}, { directory });
  const anonymous = await connect();
  t.equal(await anonymous.login(null), 0x0201);
  const wrong = await connect();
  t.equal(await wrong.login(null, { chap: { ...chap, secret: 'not-the-right-one' } }), 0x0201);
  const right = await connect();
  t.equal(await right.login(null, { chap, mutual: mutualChap }), 0);
  t.equal(right.answered.get('CHAP_N'), mutualChap.user);
});

t.test('login text may be spread over requests with the C bit', async (t) => {
  const { connect } = await openPortal(t);
  const initiator = await connect();
  const part = await initiator.loginStep(0, null, { InitiatorName: initiator.name }, { continued: true });
  t.equal(part?.data.length, 0);
  await initiator.loginStep(0, 3, { TargetName: iqn });
  t.equal(initiator.loginStatus, 0);
  t.not(initiator.tsih, 0);
});

t.test('who does not finish the login in time, or sends something else, is disconnected', async (t) => {
  const clock = new ManualClock();
  const { connect, portal } = await openPortal(t, {}, { clock });
  const slow = await connect();
  await slow.loginStep(0, 1, { InitiatorName: slow.name, TargetName: iqn });
  clock.pass(15_000);
  t.equal(await slow.next(), null);
  const odd = await connect();
  odd.command(Buffer.alloc(16));
  t.equal(await odd.next(), null);
  await until(() => portal.connectionCount === 0);
});

t.test('discovery lists the targets, at the address it was asked at unless they have others', async (t) => {
  const { connect, portal, port } = await openPortal(t);
  const initiator = await connect();
  t.equal(await initiator.login(null), 0);
  const ask = async (keys: string, ttt = noTag) => {
    initiator.send({ opcode: 0x04, words: { 20: ttt, 24: initiator.cmdSn }, data: Buffer.from(keys) });
    initiator.cmdSn += 1;
    return (await initiator.next())!;
  };
  const all = await ask('SendTargets=All\0');
  t.equal(all.flags & 0x80, 0x80);
  t.same(textOf(all.data), [
    ['TargetName', iqn],
    ['TargetAddress', `127.0.0.1:${port},1`],
    ['TargetName', 'iqn.2026-11.io.weft:volume-2'],
    ['TargetAddress', '10.0.0.1:3260,1'],
    ['TargetAddress', '[fe80::1]:3260,2'],
  ]);
  t.same(textOf((await ask(`SendTargets=${iqn}\0`)).data).length, 2);
  t.same(textOf((await ask('SendTargets=iqn.nobody\0')).data), []);
  t.same(textOf((await ask('Odd=1\0')).data), [['Odd', 'NotUnderstood']]);
  initiator.command(Buffer.alloc(16));
  t.equal((await initiator.next())?.opcode, 0x3f, 'SCSI commands are refused in discovery');
  t.same(portal.sessions(), []);
});

t.test('an answer longer than the initiator takes comes in parts', async (t) => {
  const many = Array.from({ length: 50 }, (_, n) => ({
    iqn: `iqn.2026-11.io.weft:v${n}`,
    portals: [{ address: '1.2.3.4:3260', groupTag: 1 }],
  }));
  const { connect } = await openPortal(t, {}, { directory: { find: () => null, list: () => many } });
  const initiator = await connect();
  t.equal(await initiator.login(null, { keys: { MaxRecvDataSegmentLength: '512' } }), 0);
  const parts: Buffer[] = [];
  let ttt = noTag;
  for (let isFirst = true; isFirst || ttt !== noTag; isFirst = false) {
    const data = Buffer.from(isFirst ? 'SendTargets=All\0' : '');
    initiator.send({ opcode: 0x04, words: { 20: ttt, 24: initiator.cmdSn }, data });
    initiator.cmdSn += 1;
    const pdu = (await initiator.next())!;
    t.ok(pdu.data.length <= 512);
    t.equal((pdu.flags & 0x80) === 0, (pdu.flags & 0x40) !== 0);
    parts.push(pdu.data);
    ttt = pdu.header.readUInt32BE(20);
  }
  t.equal(textOf(Buffer.concat(parts)).length, 100);
});

t.test(
  'each portal is a target port of its own: tag, nexus, port of a command, what discovery says',
  async (t) => {
    const { connect, device, portal } = await openPortal(t, {}, {}, 2);
    t.same(portal.targetPorts(), [1, 2]);
    const first = await connect(1);
    const second = await connect(2);
    t.equal(await first.login(iqn), 0);
    t.equal(await second.login(iqn), 0);
    t.equal(first.answered.get('TargetPortalGroupTag'), '1');
    t.equal(second.answered.get('TargetPortalGroupTag'), '2');
    t.equal(portal.sessions(iqn).length, 2, 'one initiator port has a nexus with each');
    for (const initiator of [first, second]) await initiator.collect(initiator.command(Buffer.alloc(16)));
    t.same(device.nexuses, [
      ['iqn.2026-11.test:host-a,i,0x800000000001,t,0x0001', 1],
      ['iqn.2026-11.test:host-a,i,0x800000000001,t,0x0002', 2],
    ]);
    const asking = await connect(2);
    await asking.login(null);
    asking.send({
      opcode: 0x04,
      words: { 20: noTag, 24: asking.cmdSn },
      data: Buffer.from(`SendTargets=${iqn}\0`),
    });
    t.same(textOf((await asking.next())!.data), [
      ['TargetName', iqn],
      ['TargetAddress', `127.0.0.1:${portal.listensAt[1]!.port},2`],
    ]);
  },
);

t.test('when one of several addresses cannot be had, none is listened on', async (t) => {
  const taken = await openPortal(t);
  const listening: number[] = [];
  let closed = 0;
  const network: Network = {
    listen: async (host, port, accept) => {
      const listener = await systemNetwork.listen(host, port, accept);
      listening.push(listener.port);
      return {
        ...listener,
        close: () => {
          closed += 1;
          return listener.close();
        },
      };
    },
  };
  const environment = { network, clock: systemClock, random: systemRandom, directory: emptyDirectory };
  const addresses = [0, taken.port].map((port) => ({ host: '127.0.0.1', port }));
  await t.rejects(Portal.open(environment, addresses), { code: 'UNAVAILABLE' });
  t.same([listening.length, closed], [1, 1]);
});
