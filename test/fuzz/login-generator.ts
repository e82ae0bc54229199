/** Logins: proper ones of every shape, to get in, and ones that go wrong in a chosen place (RFC 7143 §6.3, §12, §13). */
import type { SeededRandom } from '../simulation/seeded-random.ts';
import type { Content, LoginKey, LoginStep } from './conversation.ts';

/** Every operational key of §13 (and the obsolete markers), with legal, boundary and illegal values. */
const operationalKeys: Readonly<Record<string, readonly string[]>> = {
  HeaderDigest: ['None', 'CRC32C', 'CRC32C,None', 'None,CRC32C', 'MD5', '', 'crc32c', 'CRC32C,CRC32C'],
  DataDigest: ['None', 'CRC32C', 'CRC32C,None', 'None,CRC32C', 'x'.repeat(300), ',', 'None,'],
  MaxConnections: ['1', '2', '65535', '0', '65536', '-1', '0x1'],
  InitialR2T: ['Yes', 'No', 'yes', 'Maybe', ''],
  ImmediateData: ['Yes', 'No', 'NO', '1'],
  MaxRecvDataSegmentLength: ['512', '8192', '65536', '262144', '16777215', '511', '16777216', '0', '1e5'],
  MaxBurstLength: ['512', '65536', '262144', '16776192', '16777215', '511', '99999999999'],
  FirstBurstLength: ['512', '4096', '65536', '262144', '16777215', '0', '0x10000'],
  MaxOutstandingR2T: ['1', '2', '8', '65535', '0', '65536'],
  DefaultTime2Wait: ['0', '2', '3600', '3601'],
  DefaultTime2Retain: ['0', '20', '3600', '3601', '-5'],
  DataPDUInOrder: ['Yes', 'No', '?'],
  DataSequenceInOrder: ['Yes', 'No', 'Yes,No'],
  ErrorRecoveryLevel: ['0', '1', '2', '3'],
  TaskReporting: ['RFC3720', 'ResponseFence', 'FastAbort', 'RFC3720,FastAbort', 'x'],
  iSCSIProtocolLevel: ['0', '1', '2', '31', '32'],
  IFMarker: ['No', 'Yes'],
  OFMarker: ['No', 'Yes'],
  IFMarkInt: ['2048', '1~65535'],
  OFMarkInt: ['2048~8192', 'Reject'],
  'X-com.example.key': ['1', ''],
  'X#Digest': ['NotUnderstood', 'x'],
  SendTargets: ['All'],
  TargetAlias: ['alias'],
  TargetAddress: ['10.0.0.1:3260,1'],
  TargetPortalGroupTag: ['1', '65535'],
};
const operationalNames = Object.keys(operationalKeys);

const oddValues = ['', '=', 'Reject', 'Irrelevant', 'NotUnderstood', 'é\u0301', '\u0001\u007f', '@target'];

/** What a key is sent with that does not have to be understood. */
function anyValue(random: SeededRandom, name: string): string {
  if (random.chance(0.1)) return random.pick(oddValues);
  if (random.chance(0.03)) return 'v'.repeat(random.pick([255, 256, 4096, 8000]));
  return random.pick(operationalKeys[name] ?? oddValues);
}

export interface Shape {
  chap: boolean;
  discovery: boolean;
  headerDigest: boolean;
  dataDigest: boolean;
}

/** What a proper login says; the first values of the table are legal. */
function legalOperational(random: SeededRandom, shape: Shape): LoginKey[] {
  const keys: LoginKey[] = [
    ['HeaderDigest', shape.headerDigest ? 'CRC32C' : 'None'],
    ['DataDigest', shape.dataDigest ? 'CRC32C,None' : 'None'],
    ['MaxRecvDataSegmentLength', random.pick(['512', '8192', '65536', '262144', '16777215'])],
  ];
  if (shape.discovery) return keys;
  const more: LoginKey[] = [
    ['InitialR2T', random.pick(['Yes', 'No', 'No'])],
    ['ImmediateData', random.pick(['Yes', 'Yes', 'No'])],
    ['MaxBurstLength', random.pick(['512', '65536', '262144', '16776192'])],
    ['FirstBurstLength', random.pick(['512', '4096', '65536', '262144'])],
    ['MaxOutstandingR2T', random.pick(['1', '2', '8'])],
    ['DefaultTime2Wait', '2'],
    ['DefaultTime2Retain', random.pick(['0', '20'])],
    ['ErrorRecoveryLevel', random.pick(['0', '0', '2'])],
    ['MaxConnections', '1'],
    ['DataPDUInOrder', 'Yes'],
    ['DataSequenceInOrder', random.pick(['Yes', 'No'])],
  ];
  for (const key of more) if (random.chance(0.6)) keys.push(key);
  return keys;
}

function identity(random: SeededRandom, shape: Shape, number: number): LoginKey[] {
  // A few initiators come again and again with one name: that is how sessions are reinstated.
  const name = random.chance(0.05) ? `shared-${random.below(3)}` : String(number);
  const keys: LoginKey[] = [
    ['InitiatorName', `iqn.2026-11.test:fuzz-${name}`],
    shape.discovery ? ['SessionType', 'Discovery'] : ['TargetName', '@target'],
  ];
  if (!shape.discovery && random.chance(0.5)) keys.push(['SessionType', 'Normal']);
  if (random.chance(0.2)) keys.push(['InitiatorAlias', 'fuzz']);
  return keys;
}

function request(random: SeededRandom, isid: string, fields: Partial<LoginStep>): LoginStep {
  return {
    kind: 'login',
    transit: true,
    continued: false,
    stage: 0,
    nextStage: 1,
    reserved: 0,
    versionMax: 0,
    versionMin: 0,
    isid,
    tsih: 0,
    cid: 0,
    itt: 1,
    cmdSn: random.chance(0.1) ? 0xffffffff - random.below(8) : 1 + random.below(1000),
    immediate: true,
    keys: [],
    damage: [],
    waits: true,
    ...fields,
  };
}

/** Splits the text of a request over several (C bit), at any byte. */
function split(random: SeededRandom, step: LoginStep): LoginStep[] {
  if (!Array.isArray(step.keys) || step.keys.some(([, value]) => value.startsWith('@'))) return [step];
  const text = Buffer.from(step.keys.map(([key, value]) => `${key}=${value}\0`).join(''));
  const at = random.below(text.length + 1);
  const part = (from: number, to: number): Content => ({ hex: text.toString('hex', from, to) });
  return [
    { ...step, keys: part(0, at), transit: false, continued: true, nextStage: 0 },
    { ...step, keys: part(at, text.length) },
  ];
}

/** A login that a target has to take. */
export function properLogin(random: SeededRandom, shape: Shape, number: number): LoginStep[] {
  const isid = `80000000${random.below(4).toString(16).padStart(4, '0')}`;
  const who = identity(random, shape, number);
  const operational = legalOperational(random, shape);
  const first = request(random, isid, {});
  const same = { cmdSn: first.cmdSn };
  const toFull = { ...same, stage: 1, nextStage: 3 };
  if (shape.chap) {
    const algorithm = random.pick(['5', '7', '7,5', '5,6,7,8']);
    return [
      request(random, isid, {
        ...same,
        transit: false,
        nextStage: 0,
        keys: [...who, ['AuthMethod', 'CHAP,None']],
      }),
      request(random, isid, { ...same, transit: false, nextStage: 0, keys: [['CHAP_A', algorithm]] }),
      request(random, isid, {
        ...same,
        keys: [
          ['CHAP_N', '@user'],
          ['CHAP_R', '@response'],
        ],
      }),
      request(random, isid, { ...toFull, keys: operational }),
    ];
  }
  if (random.chance(0.3)) return [request(random, isid, { ...toFull, keys: [...who, ...operational] })];
  const second = request(random, isid, { ...toFull, keys: operational });
  return [
    request(random, isid, { ...same, keys: [...who, ['AuthMethod', 'None']] }),
    ...(random.chance(0.2) ? split(random, second) : [second]),
  ];
}

/** A proper login, made wrong in one to four places. */
export function wrongLogin(random: SeededRandom, shape: Shape, number: number): LoginStep[] {
  const steps = properLogin(random, shape, number);
  for (let count = random.between(1, 4); count > 0; count--) {
    const index = random.below(steps.length);
    const step = steps[index]!;
    random.pick(faults)(random, steps, index, step);
    if (steps.length === 0) return [request(random, step.isid, {})];
  }
  return steps;
}

type Fault = (random: SeededRandom, steps: LoginStep[], index: number, step: LoginStep) => void;

function keysOf(step: LoginStep): LoginKey[] {
  if (!Array.isArray(step.keys)) step.keys = [];
  return step.keys;
}

const faults: readonly Fault[] = [
  (random, _steps, _index, step) => {
    for (let count = random.between(1, 12); count > 0; count--) {
      const name = random.pick(operationalNames);
      keysOf(step).push([name, anyValue(random, name)]);
    }
  },
  (random, _steps, _index, step) => {
    const keys = keysOf(step);
    if (keys.length > 0) keys.splice(random.below(keys.length), 1);
  },
  (random, _steps, _index, step) => {
    const keys = keysOf(step);
    if (keys.length > 0) keys.push(random.pick(keys));
  },
  (random, _steps, _index, step) => {
    const names = ['InitiatorName', 'TargetName', 'SessionType', 'AuthMethod', 'CHAP_A', 'CHAP_I', 'CHAP_C'];
    const values = [
      '',
      'iqn.',
      '@other',
      'Discovery',
      'Copy',
      'CHAP',
      'SRP,KRB5',
      '0x',
      '0b!!',
      '256',
      '@challenge',
    ];
    const long = random.pick(['a'.repeat(300), `0x${'ab'.repeat(1025)}`, `0b${'A'.repeat(2000)}`]);
    keysOf(step).push([random.pick([...names, 'CHAP_N', 'CHAP_R']), random.pick([...values, long])]);
  },
  (random, _steps, _index, step) => {
    for (let count = random.pick([40, 127, 128, 129, 300]); count > 0; count--) {
      keysOf(step).push([`X-${count}`, 'y']);
    }
  },
  (random, _steps, _index, step) => {
    step.keys = { hex: random.bytes(random.pick([1, 7, 64, 1000, 8192])).toString('hex') };
  },
  (random, _steps, _index, step) => {
    step.keys = { lengthBytes: random.pick([8191, 8192, 8193, 65_536, 2 ** 20]), fill: random.below(100) };
  },
  (_random, _steps, _index, step) => keysOf(step).push(['', 'x'], ['k'.repeat(64), 'x']),
  (random, _steps, _index, step) => {
    step.stage = random.below(4);
  },
  (random, _steps, _index, step) => {
    step.nextStage = random.below(4);
  },
  (_random, _steps, _index, step) => {
    step.transit = !step.transit;
  },
  (_random, _steps, _index, step) => {
    step.continued = !step.continued;
  },
  (random, _steps, _index, step) => {
    step.reserved = random.below(4) << 4;
    step.versionMax = random.below(256);
    step.versionMin = random.pick([0, 0, 1, 255]);
  },
  (random, _steps, _index, step) => {
    step.isid = random.bytes(6).toString('hex');
  },
  (random, _steps, _index, step) => {
    step.tsih = random.pick([1, 2, 0xffff, random.below(65_536)]);
  },
  (random, _steps, _index, step) => {
    step.cid = random.below(65_536);
    step.itt = random.word();
  },
  (random, _steps, _index, step) => {
    step.cmdSn = random.word();
    step.immediate = random.chance(0.5);
  },
  (_random, steps, index) => steps.splice(index, 1),
  (_random, steps, index, step) => steps.splice(index, 0, structuredClone(step)),
  (_random, steps, index, step) => {
    const other = steps[index + 1];
    if (other !== undefined) steps.splice(index, 2, other, step);
  },
  (random, steps, index, step) => {
    for (let count = random.pick([5, 31, 40]); count > 0; count--) {
      steps.splice(index, 0, {
        ...step,
        keys: [],
        transit: false,
        continued: random.chance(0.5),
        waits: false,
      });
    }
  },
  (random, steps, index, step) => steps.splice(index, 1, ...split(random, step)),
  (_random, steps) => {
    for (const step of steps) step.waits = false;
  },
  (random, _steps, _index, step) => {
    step.damage.push({ how: 'flip', at: random.below(random.chance(0.7) ? 48 : 400), bit: random.below(8) });
  },
  (random, _steps, _index, step) => {
    step.damage.push({ how: 'cut', at: random.below(200) });
  },
  (_random, _steps, _index, step) => {
    step.damage.push({ how: 'twice' });
  },
];
