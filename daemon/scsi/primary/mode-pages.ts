/**
 * Mode pages (SPC-4 7.5, SBC-3 6.5): what each looks like, and what of it MODE SELECT may change.
 * A page is its bytes from the page code on; lengths are those of the standard.
 */
import type { LogicalUnit } from '../logical-unit.ts';
import type { ModeParameters } from '../unit-state-store.ts';

export interface ModePage {
  readonly code: number;
  /** The page with these values of the parameters; the rest of it is as the unit is. */
  readonly encode: (unit: LogicalUnit, parameters: Readonly<ModeParameters>) => Buffer;
  /** Ones where MODE SELECT may change a bit; page code and length as in the page. */
  readonly changeable: Buffer;
  /** The parameters after a MODE SELECT with this page, which differs from the current one in changeable bits only. */
  readonly decode: (page: Buffer, before: Readonly<ModeParameters>) => ModeParameters;
}

const descriptorSenseBit = 0x04;
const softwareWriteProtectBit = 0x08;

/**
 * 01h (SBC-3 6.5.7): AWRE, a block is never written in place; no ARRE, no retries and no recovered errors, because
 * what fails its checksum is an error.
 */
function errorRecoveryPage(): Buffer {
  const page = pageOf(0x01, 10);
  page[2] = 0x80;
  return page;
}

/**
 * 08h (SBC-3 6.5.6). WCE is the volume's durability: an initiator that cleared it would be promised what only the
 * volume can promise, so it cannot be changed.
 */
function cachingPage(unit: LogicalUnit): Buffer {
  const page = pageOf(0x08, 18);
  page[2] = unit.device.durability === 'flush' ? 0x04 : 0x00;
  return page;
}

/**
 * 0Ah (SPC-4 7.5.8): GLTSD, log parameters are not saved; QUEUE ALGORITHM MODIFIER 1, unrestricted reordering; QERR
 * 0, no task ends for another's error; TAS, who loses a task to another initiator is told (iscsi/task-management.ts).
 */
function controlPage({ descriptorSense, softwareWriteProtect }: Readonly<ModeParameters>): Buffer {
  const page = pageOf(0x0a, 10);
  page[2] = 0x02 | (descriptorSense ? descriptorSenseBit : 0);
  page[3] = 0x10;
  page[4] = softwareWriteProtect ? softwareWriteProtectBit : 0;
  page[5] = 0x40;
  page.writeUInt16BE(0xffff, 8); // BUSY TIMEOUT PERIOD: unlimited
  return page;
}

function controlChangeable(): Buffer {
  const page = pageOf(0x0a, 10);
  page[2] = descriptorSenseBit;
  page[4] = softwareWriteProtectBit;
  return page;
}

/** 1Ch (SBC-3 6.5.8): no informational exceptions are reported (DEXCPT). */
function informationalExceptionsPage(): Buffer {
  const page = pageOf(0x1c, 10);
  page[2] = 0x08;
  return page;
}

function pageOf(code: number, bodyBytes: number): Buffer {
  const page = Buffer.alloc(bodyBytes + 2);
  page[0] = code;
  page[1] = bodyBytes;
  return page;
}

/** A page of which nothing can be changed. */
function fixedPage(code: number, bodyBytes: number, encode: (unit: LogicalUnit) => Buffer): ModePage {
  return { code, encode, changeable: pageOf(code, bodyBytes), decode: (_page, before) => ({ ...before }) };
}

/** In ascending order, as page 3Fh returns them. */
export const modePages: readonly ModePage[] = [
  fixedPage(0x01, 10, errorRecoveryPage),
  fixedPage(0x08, 18, cachingPage),
  {
    code: 0x0a,
    encode: (_unit, parameters) => controlPage(parameters),
    changeable: controlChangeable(),
    decode: (page) => ({
      descriptorSense: (page[2]! & descriptorSenseBit) !== 0,
      softwareWriteProtect: (page[4]! & softwareWriteProtectBit) !== 0,
    }),
  },
  fixedPage(0x1c, 10, informationalExceptionsPage),
];
