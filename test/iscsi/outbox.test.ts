import t from 'tap';
import { Outbox, type Wire } from '../../daemon/iscsi/outbox.ts';
import { digestOf } from './initiator.ts';

t.test('a PDU is whole before its data is released: the release may begin the next one', async (t) => {
  const sent: Buffer[] = [];
  const wire: Wire = {
    write: (pieces, done) => {
      for (const piece of pieces) sent.push(Buffer.from(piece));
      done();
    },
    endOfTurn: () => {},
  };
  const outbox = new Outbox(wire, () => {});
  outbox.dataDigest = true;
  const data = Buffer.from('seven b');
  const first = outbox.header();
  outbox.slab[first] = 0x25;
  outbox.end(first, data, () => {
    const second = outbox.header();
    outbox.slab[second] = 0x21;
    outbox.endEmpty(second);
  });
  outbox.flush();
  const bytes = Buffer.concat(sent);
  const padded = Buffer.concat([data, Buffer.alloc(1)]);
  t.equal(bytes[0], 0x25);
  t.same(bytes.subarray(48, 60), Buffer.concat([padded, digestOf(padded)]), 'data, padding, digest');
  t.equal(bytes[60], 0x21, 'then the next PDU');
  t.equal(bytes.length, 108);
});
