/**
 * One copy of volumes' data, as the volume sees it. On a fabric of one node there is one, the local one; a remote one
 * speaks the same interface over RPC. Offsets and lengths are multiples of the block (4 KiB).
 */
/** The error is a WeftError. */
export type Done = (error: Error | null) => void;

export interface VolumeIdentity {
  volumeKey: number;
  chunkSizeBytes: number;
}

/**
 * Who orders an operation and in which order: the owner's epoch, and a sequence that rises by one with every change
 * of the slice within the epoch. An operation lies within one slice. A replica refuses an epoch older than the newest it has seen (FENCED).
 */
export interface WriteOrder {
  epoch: number;
  sequence: number;
}

export interface Replica {
  /** `durable`: calls back only once the data survives power loss. Otherwise once it survives the process. */
  write(
    volume: VolumeIdentity,
    offsetBytes: number,
    data: Buffer,
    order: WriteOrder,
    durable: boolean,
    done: Done,
  ): void;
  /** The range reads as zeros and takes no space any more. */
  zero(
    volume: VolumeIdentity,
    offsetBytes: number,
    lengthBytes: number,
    order: WriteOrder,
    durable: boolean,
    done: Done,
  ): void;
  /**
   * Reads all that a copy of the range would take, and stores what of it is in the journal only: CORRUPT is told before
   * a copy has changed anything, and the copy itself takes little time.
   */
  prepareCopy(source: VolumeIdentity, offsetBytes: number, lengthBytes: number, done: Done): void;
  /**
   * The range of `volume` becomes that of `source`, by sharing chunks: both ranges are whole chunks of the same size, and
   * do not overlap. Each block is copied as it was when this was called, or as a later change made it. Changes of
   * the range that are in flight together with it may be carried out before or after. After an error, each chunk is
   * as before or copied.
   */
  copy(
    volume: VolumeIdentity,
    offsetBytes: number,
    lengthBytes: number,
    source: VolumeIdentity,
    sourceOffsetBytes: number,
    order: WriteOrder,
    durable: boolean,
    done: Done,
  ): void;
  /** Never garbage: CORRUPT when a checksum fails. Unwritten space reads as zeros. */
  read(volume: VolumeIdentity, offsetBytes: number, target: Buffer, done: Done): void;
  /** Whatever called back before is durable when this calls back. */
  flush(done: Done): void;
  /** Whether the blocks from `offsetBytes` hold data, and for how many bytes (at most `limitBytes`) that stays so. */
  allocation(
    volume: VolumeIdentity,
    offsetBytes: number,
    limitBytes: number,
    done: (error: Error | null, mapped: boolean, lengthBytes: number) => void,
  ): void;
}
