/**
 * Files that were adopted from the journal were written past the page cache. What was written last is likely to be read
 * next: while nothing else is to be done they are read once, newest first, so that the system has them in its cache.
 */
import { MiB } from '../base/limits.ts';
import type { Segment, Segments } from './segments.ts';

/** Read at once, in bytes: short enough to stop soon, long enough for the disk's full speed. */
const pieceBytes = MiB;

export class WarmUp {
  private readonly segments: Segments;
  private readonly limitBytes: number;
  private readonly giveWay: (bytes: number) => Promise<void>;
  /** Not read yet, or not wholly, oldest first; at most `limitBytes` of them. */
  private waiting: Segment[] = [];
  private running: Promise<void> | null = null;

  /** @param limitBytes what is read of the newest files; older ones are left to those who read them. */
  constructor(segments: Segments, limitBytes: number, giveWay: (bytes: number) => Promise<void>) {
    this.segments = segments;
    this.limitBytes = limitBytes;
    this.giveWay = giveWay;
  }

  add(segment: Segment): void {
    this.waiting.push(segment);
    let bytes = this.waiting.reduce((sum, each) => sum + each.sizeBytes, 0);
    while (bytes > this.limitBytes && this.waiting.length > 0) bytes -= this.waiting.shift()!.sizeBytes;
  }

  /** Reads until nothing is left or `isWanted` says no. One run at a time: a call during one is for nothing. */
  start(isWanted: () => boolean): void {
    if (this.running !== null) return;
    this.running = this.run(isWanted).finally(() => {
      this.running = null;
    });
  }

  async ended(): Promise<void> {
    await this.running;
  }

  private async run(isWanted: () => boolean): Promise<void> {
    const piece = Buffer.allocUnsafeSlow(pieceBytes);
    while (this.waiting.length > 0 && isWanted()) {
      const segment = this.waiting.at(-1)!;
      const isRead = segment.retired || (await this.readThrough(segment, piece, isWanted));
      if (isRead) this.waiting = this.waiting.filter((each) => each !== segment);
    }
  }

  /** False when it was stopped. Errors are for those to report who need what is in the file. */
  private async readThrough(segment: Segment, piece: Buffer, isWanted: () => boolean): Promise<boolean> {
    const isOpen = await new Promise<boolean>((resolve) => {
      this.segments.use(segment, (error) => resolve(error === null));
    });
    if (!isOpen) return true;
    let bytesRead = pieceBytes;
    for (let at = 0; at < segment.sizeBytes && bytesRead > 0 && isWanted(); at += pieceBytes) {
      await this.giveWay(pieceBytes);
      bytesRead = await new Promise<number>((resolve) => {
        segment.file!.read(piece, at, (error, count) => resolve(error === null ? count : 0));
      });
    }
    this.segments.release(segment);
    return isWanted();
  }
}
