import t from 'tap';
import {
  decodeLoginRequest,
  decodeScsiCommand,
  encodeAsyncMessage,
  encodeDataIn,
  encodeLoginResponse,
  encodeLogoutResponse,
  encodeNopIn,
  encodeR2t,
  encodeReject,
  encodeScsiResponse,
  encodeTaskManagementResponse,
  encodeTextResponse,
  noTag,
  serialAfterBy,
  serialBefore,
  setDataLength,
} from '../../daemon/iscsi/pdu.ts';

const numbers = { statSn: 0x01020304, expCmdSn: 0x05060708, maxCmdSn: 0x090a0b0c };
const sequence = '01020304' + '05060708' + '090a0b0c';
const itt = 0x11223344;

/** The 48 bytes an encoder writes, in hexadecimal, and a proof that it writes nowhere else. */
function bytesOf(encode: (b: Buffer, at: number) => void): string {
  const buffer = Buffer.alloc(64);
  encode(buffer, 8);
  const rest = Buffer.concat([buffer.subarray(0, 8), buffer.subarray(56)]);
  if (rest.some((byte) => byte !== 0)) throw new Error('wrote outside the header');
  return buffer.toString('hex', 8, 56);
}

const login = {
  transit: true,
  continued: false,
  currentStage: 1,
  nextStage: 3,
  versionMin: 0,
  isid: '800000000001',
  tsih: 0,
  itt,
  cid: 0,
  cmdSn: 7,
};

/** Byte for byte as RFC 7143 §11 draws them; spaces are between the words of a row. */
const golden: [string, (b: Buffer, at: number) => void, string][] = [
  [
    'SCSI Response §11.4',
    (b, at) =>
      encodeScsiResponse(b, at, itt, numbers, {
        status: 2,
        residualFlag: 2,
        residualBytes: 512,
        expDataSn: 3,
      }),
    `21820002 00000000 00000000 00000000 11223344 00000000 ${sequence} 00000003 00000000 00000200`,
  ],
  [
    'Data-In with status §11.7',
    (b, at) =>
      encodeDataIn(b, at, itt, numbers, {
        final: true,
        withStatus: true,
        residualFlag: 4,
        residualBytes: 9,
        dataSn: 1,
        offset: 0x10000,
      }),
    `25850000 00000000 00000000 00000000 11223344 ffffffff ${sequence} 00000001 00010000 00000009`,
  ],
  [
    'Data-In without status §11.7',
    (b, at) =>
      encodeDataIn(b, at, itt, numbers, {
        final: false,
        withStatus: false,
        residualFlag: 4,
        residualBytes: 9,
        dataSn: 0,
        offset: 0,
      }),
    '25000000 00000000 00000000 00000000 11223344 ffffffff 00000000 05060708 090a0b0c 00000000 00000000 00000000',
  ],
  [
    'R2T §11.8',
    (b, at) =>
      encodeR2t(b, at, itt, numbers, {
        lun: Buffer.from('0001000000000000', 'hex'),
        ttt: 5,
        r2tSn: 2,
        offset: 0x40000,
        lengthBytes: 0x20000,
      }),
    `31800000 00000000 00010000 00000000 11223344 00000005 ${sequence} 00000002 00040000 00020000`,
  ],
  [
    'Task Management Response §11.6',
    (b, at) => encodeTaskManagementResponse(b, at, itt, numbers, 5),
    `22800500 00000000 00000000 00000000 11223344 00000000 ${sequence} 00000000 00000000 00000000`,
  ],
  [
    'Login Response §11.13',
    (b, at) =>
      encodeLoginResponse(b, at, login, numbers, {
        transit: true,
        stage: 1,
        nextStage: 3,
        tsih: 0x0a0b,
        status: 0,
      }),
    `23870000 00000000 80000000 00010a0b 11223344 00000000 ${sequence} 00000000 00000000 00000000`,
  ],
  [
    'Login Response, refused §11.13.5',
    (b, at) =>
      encodeLoginResponse(b, at, login, numbers, {
        transit: false,
        stage: 0,
        nextStage: 0,
        tsih: 0,
        status: 0x0201,
      }),
    `23000000 00000000 80000000 00010000 11223344 00000000 ${sequence} 02010000 00000000 00000000`,
  ],
  [
    'Text Response §11.11',
    (b, at) => encodeTextResponse(b, at, itt, numbers, { final: false, continued: true, ttt: 1 }),
    `24400000 00000000 00000000 00000000 11223344 00000001 ${sequence} 00000000 00000000 00000000`,
  ],
  [
    'Logout Response §11.15',
    (b, at) => encodeLogoutResponse(b, at, itt, numbers, 2),
    `26800200 00000000 00000000 00000000 11223344 00000000 ${sequence} 00000000 00000000 00000000`,
  ],
  [
    'NOP-In §11.19',
    (b, at) => encodeNopIn(b, at, noTag, numbers, 0),
    `20800000 00000000 00000000 00000000 ffffffff 00000000 ${sequence} 00000000 00000000 00000000`,
  ],
  [
    'Asynchronous Message §11.9',
    (b, at) => encodeAsyncMessage(b, at, numbers, 1, [0, 0, 30]),
    `32800000 00000000 00000000 00000000 ffffffff 00000000 ${sequence} 01000000 0000001e 00000000`,
  ],
  [
    'Reject §11.17',
    (b, at) => encodeReject(b, at, numbers, 4),
    `3f800400 00000000 00000000 00000000 ffffffff 00000000 ${sequence} 00000000 00000000 00000000`,
  ],
];

for (const [name, encode, expected] of golden) {
  t.test(`${name} is laid out as the RFC draws it`, async (t) => {
    t.equal(bytesOf(encode), expected.replaceAll(' ', ''));
  });
}

t.test('a SCSI Command is read as the RFC draws it, and outlives the bytes it came from', async (t) => {
  const bytes = Buffer.from(
    '01a10000000010000001000000000000112233440000100000000007000000062a00000000070000080000000000000000',
    'hex',
  );
  const pdu = decodeScsiCommand(bytes);
  bytes.fill(0xee);
  t.match(pdu, { final: true, reads: false, writes: true, attribute: 1, itt, expectedBytes: 4096 });
  t.equal(pdu.lun.toString('hex'), '0001000000000000');
  t.equal(pdu.cdb.toString('hex'), '2a000000000700000800000000000000');
});

t.test('a Login Request is read as the RFC draws it', async (t) => {
  const bytes = Buffer.from(
    '43870000000000008000000000010000112233440001000000000007000000000000000000000000',
    'hex',
  );
  t.same(decodeLoginRequest(Buffer.concat([bytes, Buffer.alloc(8)])), { ...login, cid: 1 });
});

t.test('data lengths take 24 bits', async (t) => {
  const header = Buffer.alloc(48);
  setDataLength(header, 0, 0xabcdef);
  t.equal(header.toString('hex', 4, 8), '00abcdef');
});

t.test('serial numbers compare across their wrap', async (t) => {
  t.ok(serialBefore(0xffffffff, 0));
  t.notOk(serialBefore(0, 0xffffffff));
  t.notOk(serialBefore(5, 5));
  t.equal(serialAfterBy(0xffffffff, 2), 1);
});
