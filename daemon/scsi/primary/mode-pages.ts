/**
 * Mode pages (SPC-4 7.5, SBC-3 6.5): what each looks like, and what of it MODE SELECT may change.
 * A page is its bytes from the page code on; lengths are those of the standard.
 */
import type { LogicalUnit } from '../logical-unit.ts';

export interface ModePage {
  readonly code: number;
  readonly current: (unit: LogicalUnit) => Buffer;
  readonly defaults: (unit: LogicalUnit) => Buffer;
  /** Ones where MODE SELECT may change a bit; page code and length as in the page. */
  readonly changeable: Buffer;
  /** Takes the changeable bits of a page that differs from `current` in nothing else. */
  readonly apply: (unit: LogicalUnit, page: Buffer) => void;
}

const descriptorSenseBit = 0x04;
const softwareWriteProtectBit = 0x08;

/** 08h (SBC-3 6.5.6): WCE is the volume's durability, so it is not the initiator's to change. */
function cachingPage(unit: LogicalUnit): Buffer {
  const page = pageOf(0x08, 18);
  page[2] = unit.device.durability === 'flush' ? 0x04 : 0x00;
  return page;
}

/** 0Ah (SPC-4 7.5.8): QUEUE ALGORITHM MODIFIER 1, unrestricted reordering; QERR 0; TAS 0. */
function controlPage(descriptorSense: boolean, softwareWriteProtect: boolean): Buffer {
  const page = pageOf(0x0a, 10);
  page[2] = descriptorSense ? descriptorSenseBit : 0;
  page[3] = 0x10;
  page[4] = softwareWriteProtect ? softwareWriteProtectBit : 0;
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

const nothing = (): void => {};

/** In ascending order, as page 3Fh returns them. */
export const modePages: readonly ModePage[] = [
  {
    code: 0x08,
    current: cachingPage,
    defaults: cachingPage,
    changeable: pageOf(0x08, 18),
    apply: nothing,
  },
  {
    code: 0x0a,
    current: ({ control }) => controlPage(control.descriptorSense, control.softwareWriteProtect),
    defaults: () => controlPage(false, false),
    changeable: controlChangeable(),
    apply: ({ control }, page) => {
      control.descriptorSense = (page[2]! & descriptorSenseBit) !== 0;
      control.softwareWriteProtect = (page[4]! & softwareWriteProtectBit) !== 0;
    },
  },
  {
    code: 0x1c,
    current: informationalExceptionsPage,
    defaults: informationalExceptionsPage,
    changeable: pageOf(0x1c, 10),
    apply: nothing,
  },
];
