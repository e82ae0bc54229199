import { connect } from 'node:net';
import t from 'tap';
import { type Connection, type Receiver, reachableHosts, systemNetwork } from '../../daemon/env/network.ts';

/** Receives into one reused buffer and does with it what the test says. */
function receiver(
  filled: (bytes: Buffer) => void,
  closed: () => void = () => {},
  roomBytes = 1000,
): Receiver {
  const room = Buffer.alloc(roomBytes);
  return { room: () => room, filled: (bytes) => filled(room.subarray(0, bytes)), closed };
}

t.test('bytes land in the room given, and pieces leave in order', async (t) => {
  let connection: Connection | null = null;
  let sent = 0;
  const listener = await systemNetwork.listen('127.0.0.1', 0, (accepted) => {
    connection = accepted;
    return receiver((bytes) => accepted.write([Buffer.from(bytes), Buffer.from('|')], () => (sent += 1)));
  });
  const client = connect(listener.port, '127.0.0.1');
  const payload = Buffer.alloc(100_000, 'abcdefg');
  client.write(payload);
  let echoed = '';
  await new Promise<void>((resolve) => {
    client.on('data', (data) => {
      echoed += data.toString('latin1');
      if (echoed.replaceAll('|', '').length === payload.length && echoed.endsWith('|')) resolve();
    });
  });
  t.equal(echoed.replaceAll('|', ''), payload.toString('latin1'));
  t.match(connection!, { remoteAddress: /^127\.0\.0\.1:\d+$/, localAddress: `127.0.0.1:${listener.port}` });
  client.destroy();
  await listener.close();
  t.equal(sent, echoed.split('|').length - 1, 'every write is reported once');
});

t.test('a connection that either side ends is told once, and what was written arrives', async (t) => {
  let closed = 0;
  const ended: (() => void)[] = [];
  const listener = await systemNetwork.listen('127.0.0.1', 0, (accepted) =>
    receiver(
      (bytes) => {
        if (bytes.toString() !== 'bye') return;
        accepted.write([Buffer.from('the last words')], () => {});
        accepted.end();
      },
      () => {
        closed += 1;
        ended.shift()?.();
      },
    ),
  );
  const once = () => new Promise<void>((resolve) => ended.push(resolve));
  const first = connect(listener.port, '127.0.0.1');
  const firstEnded = once();
  first.write('bye');
  let heard = '';
  first.on('data', (data) => {
    heard += data;
  });
  await firstEnded;
  t.equal(heard, 'the last words');
  const second = connect(listener.port, '127.0.0.1');
  const secondEnded = once();
  second.end('x');
  await secondEnded;
  const third = connect(listener.port, '127.0.0.1', () => third.resetAndDestroy());
  await once();
  t.equal(closed, 3);
  await listener.close();
});

t.test('an end that the other side ignores closes all the same', async (t) => {
  const closed = new Promise<void>((resolve) => {
    void systemNetwork
      .listen('127.0.0.1', 0, (accepted) => receiver(() => accepted.end(), resolve))
      .then((listener) => {
        const client = connect({ port: listener.port, host: '127.0.0.1', allowHalfOpen: true });
        client.write('x');
        client.on('error', () => {});
        t.teardown(async () => {
          client.destroy();
          await listener.close();
        });
      });
  });
  await t.resolves(closed);
});

t.test('what is written behind an end is not reported before what is still on its way', async (t) => {
  const reported: string[] = [];
  let ended = false;
  const listener = await systemNetwork.listen('127.0.0.1', 0, (accepted) => {
    // More than the system takes without somebody who reads.
    const onItsWay = Buffer.alloc(64 * 1024 * 1024, 'on its way');
    return receiver(
      () => {
        accepted.write([onItsWay], () => reported.push('on its way'));
        accepted.end();
        accepted.write([Buffer.from('behind')], () => reported.push('behind'));
        accepted.write([Buffer.from('last')], () => reported.push('last'));
        ended = true;
      },
      () => reported.push('closed'),
    );
  });
  const client = connect(listener.port, '127.0.0.1');
  client.on('error', () => {});
  client.write('x');
  while (!ended) await new Promise(setImmediate);
  t.same(reported, [], 'nothing while bytes may still leave from where they lie');
  while (!reported.includes('closed')) await new Promise(setImmediate);
  t.same(reported, ['on its way', 'behind', 'last', 'closed']);
  client.destroy();
  await listener.close();
});

t.test('a paused connection receives nothing until it is resumed', async (t) => {
  let total = 0;
  let server: Connection | null = null;
  const listener = await systemNetwork.listen('127.0.0.1', 0, (accepted) => {
    server = accepted;
    return receiver((bytes) => {
      total += bytes.length;
      if (total === bytes.length) accepted.pause();
    });
  });
  const client = connect(listener.port, '127.0.0.1');
  client.write(Buffer.alloc(200_000));
  while (total === 0) await new Promise(setImmediate);
  const held = total;
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  t.equal(total, held);
  server!.resume();
  while (total < 200_000) await new Promise(setImmediate);
  t.equal(total, 200_000);
  client.destroy();
  await listener.close();
});

t.test('a refused connection is closed, and an address in use is an error that says so', async (t) => {
  const listener = await systemNetwork.listen('127.0.0.1', 0, () => null);
  const client = connect(listener.port, '127.0.0.1');
  client.on('error', () => {});
  await new Promise<void>((resolve) => client.on('close', () => resolve()));
  await t.rejects(
    systemNetwork.listen('127.0.0.1', listener.port, () => null),
    { code: 'UNAVAILABLE', message: new RegExp(`127.0.0.1:${listener.port}`) },
  );
  await listener.close();
});

t.test('a listener on all addresses is announced at those of the machine', async (t) => {
  const address = (address: string, internal = false) => ({
    address,
    internal,
    family: address.includes(':') ? 'IPv6' : 'IPv4',
  });
  const interfaces = {
    lo: [address('127.0.0.1', true), address('::1', true)],
    eth0: [address('192.0.2.7'), address('2001:db8::7'), address('fe80::7')],
    gone: undefined,
  };
  t.strictSame(reachableHosts('192.0.2.9', interfaces), ['192.0.2.9']);
  t.strictSame(reachableHosts('0.0.0.0', interfaces), ['192.0.2.7']);
  t.strictSame(reachableHosts('::', interfaces), ['192.0.2.7', '2001:db8::7']);
  t.strictSame(reachableHosts('0.0.0.0', { lo: interfaces.lo }), ['127.0.0.1']);
  t.strictSame(reachableHosts('::', {}), ['::1']);
});
