import t from 'tap';
import {
  decodeLun,
  encodeLun,
  isSameUnit,
  reportLunsWellKnown,
} from '../../daemon/scsi/logical-unit-number.ts';

t.test('LUN fields mean what SAM-5 4.7 says', async (t) => {
  const table: [string, ReturnType<typeof decodeLun>][] = [
    ['0000000000000000', 0],
    ['00ff000000000000', 255],
    ['4000000000000000', 0],
    ['4100000000000000', 256],
    ['7fff000000000000', 0x3fff],
    ['c101000000000000', reportLunsWellKnown],
    ['0100000000000000', null], // another bus
    ['8000000000000000', null], // logical unit addressing
    ['c102000000000000', null], // ACCESS CONTROLS
    ['0000000100000000', null], // a second level
    ['0000000000000001', null],
    ['00', null],
  ];
  for (const [field, number] of table) t.equal(decodeLun(Buffer.from(field, 'hex')), number, field);
});

t.test('what REPORT LUNS shows addresses the same unit', async (t) => {
  for (const number of [0, 1, 255, 256, 0x3fff, reportLunsWellKnown] as const) {
    t.equal(decodeLun(encodeLun(number)), number);
  }
});

t.test('one unit may be addressed in two ways, and what addresses none is like nothing else', async (t) => {
  const field = (text: string): Buffer => Buffer.from(text.padEnd(16, '0'), 'hex');
  t.ok(isSameUnit(field('0001'), field('0001')));
  t.ok(isSameUnit(field('0001'), field('4001')), 'flat addressing');
  t.notOk(isSameUnit(field('0001'), field('4002')));
  t.notOk(isSameUnit(field('8001'), field('8002')));
  t.ok(isSameUnit(field('8001'), field('8001')), 'the same field is the same');
});
