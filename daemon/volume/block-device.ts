/**
 * What a SCSI logical unit stands on: bytes at offsets, with the durability the LUN reports.
 *
 * Calls back exactly once, never synchronously. Offsets and lengths are multiples of the sector (512 bytes) and
 * inside the device; the caller checks (it answers LOGICAL BLOCK ADDRESS OUT OF RANGE), the device asserts.
 * Two changes that overlap and are in flight together are carried out in the order they were called in; a read in
 * flight together with a change shows each block as before it or as after.
 */
export interface BlockDevice {
  readonly sizeBytes: number;
  /** 'flush': a volatile write cache (WCE=1). 'sync': every write is durable when it calls back (WCE=0). */
  readonly durability: 'flush' | 'sync';
  /** Bytes of one unit of allocation: the granularity and alignment UNMAP works best with. */
  readonly allocationUnitBytes: number;
  read(offsetBytes: number, target: Buffer, done: BlockDone): void;
  /** `data` stays untouched until it calls back. `fua`: durable when it calls back, whatever the durability. */
  write(offsetBytes: number, data: Buffer, fua: boolean, done: BlockDone): void;
  /** The range reads as zeros afterwards, and whole allocation units in it take no space. */
  unmap(offsetBytes: number, lengthBytes: number, fua: boolean, done: BlockDone): void;
  /** Every write, unmap that called back before is durable when this calls back. */
  flush(done: BlockDone): void;
  /** Whether the range from `offsetBytes` is mapped, and for how many bytes that stays so (at least one sector). */
  allocation(
    offsetBytes: number,
    done: (error: Error | null, mapped: boolean, lengthBytes: number) => void,
  ): void;
}

/** A device that can have ranges of another without moving their data (`copy.ts`). */
export interface SharingDevice extends BlockDevice {
  /** Whether `shareFrom` may be called with this source, allocation units being aligned alike. */
  canShareFrom(source: BlockDevice): source is SharingDevice;
  /** To be called before others share the range: tells CORRUPT, and lets `shareFrom` take little time. */
  prepareShare(offsetBytes: number, lengthBytes: number, done: BlockDone): void;
  /**
   * The range becomes that of `source`; whole allocation units on both sides, not overlapping within one device. A change
   * like `write`. After an error, each allocation unit is as before or copied.
   */
  shareFrom(
    source: SharingDevice,
    sourceOffsetBytes: number,
    offsetBytes: number,
    lengthBytes: number,
    fua: boolean,
    done: BlockDone,
  ): void;
}

export function isSharingDevice(device: BlockDevice): device is SharingDevice {
  return 'shareFrom' in device;
}

/** The error is a WeftError (NO_SPACE, CORRUPT, IO_ERROR, FENCED, SHUTTING_DOWN, UNAVAILABLE). */
export type BlockDone = (error: Error | null) => void;
