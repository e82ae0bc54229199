import t from 'tap';
import { toldPortals } from '../daemon/told-portals.ts';

const interfaces = {
  lo: [{ address: '127.0.0.1', family: 'IPv4', internal: true }],
  eth0: [
    { address: '10.0.0.1', family: 'IPv4', internal: false },
    { address: '2001:db8::1', family: 'IPv6', internal: false },
  ],
  eth1: [{ address: '10.1.0.1', family: 'IPv4', internal: false }],
};

t.test(
  'each listening address has its own tag; a wildcard stands for the addresses of the machine',
  async (t) => {
    const listensAt = [
      { host: '192.0.2.1', port: 3260 },
      { host: '::1', port: 3261 },
      { host: '0.0.0.0', port: 3262 },
    ];
    t.same(toldPortals(listensAt, [], interfaces), [
      { address: '192.0.2.1:3260', groupTag: 1 },
      { address: '[::1]:3261', groupTag: 2 },
      { address: '10.0.0.1:3262', groupTag: 3 },
      { address: '10.1.0.1:3262', groupTag: 3 },
    ]);
  },
);

t.test('advertised addresses stand for the listening ones, or all for the only one', async (t) => {
  const one = { host: '0.0.0.0', port: 3260 };
  t.same(toldPortals([one, one], ['a:1', 'b:2'], interfaces), [
    { address: 'a:1', groupTag: 1 },
    { address: 'b:2', groupTag: 2 },
  ]);
  t.same(toldPortals([one], ['a:1', 'b:2'], interfaces), [
    { address: 'a:1', groupTag: 1 },
    { address: 'b:2', groupTag: 1 },
  ]);
});
