import t from 'tap';
import { encodeKeyText, parseBinary, parseKeyText, parseNumber } from '../../daemon/iscsi/key-text.ts';
import { defaultParameters, negotiateKey, settleParameters } from '../../daemon/iscsi/negotiation.ts';

t.test('every key is answered by its rule', async (t) => {
  const table: [key: string, offered: string, answer: string | null][] = [
    ['HeaderDigest', 'CRC32C,None', 'CRC32C'],
    ['HeaderDigest', 'None,CRC32C', 'None'],
    ['DataDigest', 'MD5,CRC32C', 'CRC32C'],
    ['DataDigest', 'MD5', 'Reject'],
    ['MaxConnections', '8', '1'],
    ['InitialR2T', 'No', 'No'],
    ['InitialR2T', 'Yes', 'Yes'],
    ['InitialR2T', 'Maybe', 'Reject'],
    ['ImmediateData', 'Yes', 'Yes'],
    ['ImmediateData', 'No', 'No'],
    ['MaxRecvDataSegmentLength', '0x20000', null],
    ['MaxRecvDataSegmentLength', '511', 'Reject'],
    ['MaxBurstLength', '16776192', '4194304'],
    ['MaxBurstLength', '65536', '65536'],
    ['FirstBurstLength', '1048576', '262144'],
    ['FirstBurstLength', '16777216', 'Reject'],
    ['DefaultTime2Wait', '2', '2'],
    ['DefaultTime2Retain', '20', '0'],
    ['MaxOutstandingR2T', '16', '4'],
    ['MaxOutstandingR2T', '1', '1'],
    ['DataPDUInOrder', 'No', 'Yes'],
    ['DataSequenceInOrder', 'No', 'Yes'],
    ['ErrorRecoveryLevel', '2', '0'],
    ['ErrorRecoveryLevel', '3', 'Reject'],
    ['TaskReporting', 'FastAbort,RFC3720', 'RFC3720'],
    ['iSCSIProtocolLevel', '2', '1'],
    ['IFMarker', 'Yes', 'No'],
    ['OFMarkInt', '1~2', 'Reject'],
    ['X-com.example', 'a', 'NotUnderstood'],
    ['constructor', 'a', 'NotUnderstood'],
    ['MaxBurstLength', 'Irrelevant', null],
    ['X-com.example', 'NotUnderstood', null],
  ];
  for (const [key, offered, answer] of table) {
    const reply = negotiateKey(key, offered, defaultParameters());
    t.same(reply, answer === null ? null : [key, answer], `${key}=${offered}`);
  }
});

t.test('every number is taken within its range, and out of it rejected', async (t) => {
  const ranges: [key: string, low: number, high: number][] = [
    ['MaxConnections', 1, 65_535],
    ['MaxRecvDataSegmentLength', 512, 16_777_215],
    ['MaxBurstLength', 512, 16_777_215],
    ['FirstBurstLength', 512, 16_777_215],
    ['DefaultTime2Wait', 0, 3600],
    ['DefaultTime2Retain', 0, 3600],
    ['MaxOutstandingR2T', 1, 65_535],
    ['ErrorRecoveryLevel', 0, 2],
    ['iSCSIProtocolLevel', 0, 31],
  ];
  for (const [key, low, high] of ranges) {
    const answer = (value: number) => negotiateKey(key, String(value), defaultParameters())?.[1];
    for (const good of [low, high]) t.not(answer(good), 'Reject', `${key}=${good}`);
    for (const bad of [low - 1, high + 1, low + 0.5]) t.equal(answer(bad), 'Reject', `${key}=${bad}`);
  }
});

t.test('in discovery, keys about commands and data are irrelevant', async (t) => {
  for (const key of ['MaxConnections', 'InitialR2T', 'MaxBurstLength', 'DataPDUInOrder']) {
    t.same(negotiateKey(key, '1', defaultParameters(), true), [key, 'Irrelevant']);
  }
  t.same(negotiateKey('HeaderDigest', 'CRC32C,None', defaultParameters(), true), ['HeaderDigest', 'CRC32C']);
  t.same(negotiateKey('X-com.example', '1', defaultParameters(), true), ['X-com.example', 'NotUnderstood']);
});

t.test('what was negotiated is what the session runs with', async (t) => {
  const parameters = defaultParameters();
  for (const [key, value] of [
    ['MaxRecvDataSegmentLength', '131072'],
    ['MaxBurstLength', '32768'],
    ['FirstBurstLength', '65536'],
    ['InitialR2T', 'No'],
    ['ImmediateData', 'No'],
    ['MaxOutstandingR2T', '3'],
    ['HeaderDigest', 'CRC32C'],
    ['ErrorRecoveryLevel', 'x'],
  ] as const) {
    negotiateKey(key, value, parameters);
  }
  settleParameters(parameters);
  t.same(parameters, {
    headerDigest: true,
    dataDigest: false,
    initialR2t: false,
    immediateData: false,
    initiatorMaxDataBytes: 131_072,
    maxBurstBytes: 32_768,
    firstBurstBytes: 32_768,
    maxOutstandingR2t: 3,
  });
});

t.test('key text is parsed, or refused when it is malformed', async (t) => {
  t.same(parseKeyText(Buffer.from('A=1\0B=x=y\0C=\0\0')), [
    ['A', '1'],
    ['B', 'x=y'],
    ['C', ''],
  ]);
  t.same(parseKeyText(Buffer.alloc(0)), []);
  for (const text of ['=1\0', 'A\0', `${'k'.repeat(64)}=1\0`, 'A=1\0'.repeat(129)]) {
    t.equal(parseKeyText(Buffer.from(text)), null, text.slice(0, 20));
  }
  t.equal(
    encodeKeyText([
      ['A', '1'],
      ['B', '2'],
    ]).toString(),
    'A=1\0B=2\0',
  );
});

t.test('numbers and binary values come in the notations of RFC 7143 6.1', async (t) => {
  t.same(['10', '0x1F', '', '-1', '1e3', '0x', '99999999999'].map(parseNumber), [
    10,
    31,
    null,
    null,
    null,
    null,
    null,
  ]);
  t.same(parseBinary('0xabc'), Buffer.from('0abc', 'hex'));
  t.same(parseBinary('0bAQID'), Buffer.from([1, 2, 3]));
  t.same(['', '0x', 'abc', '0xzz', '0b***'].map(parseBinary), [null, null, null, null, null]);
});
