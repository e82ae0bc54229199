/** How a volume of the fabric becomes a block device of this host: one interface, two engines. */
import type { Credentials } from '../daemon/api/schema.ts';

export interface AttachTarget {
  /** Of the volume; what is attached is found again by it. */
  volumeId: string;
  iqn: string;
  lun: number;
  /** HOST:PORT, each tried in turn. */
  portals: readonly string[];
  chap: Credentials | null;
  /** What the target must prove itself with; an engine that cannot ask for that refuses. */
  mutualChap: Credentials | null;
}

export interface AttachedDevice {
  /** /dev/... */
  path: string;
  /** The same device until it is detached, whatever else takes its path later. */
  key: string;
}

/**
 * An engine keeps no memory of its own: what is attached is read from the system, so nothing can be forgotten by a
 * process that was killed.
 */
export interface AttachEngine {
  readonly name: string;
  /** @throws WeftError UNSUPPORTED saying why this host cannot attach this way. */
  probe(): Promise<void>;
  /** The iSCSI name this host logs in with. */
  initiator(): Promise<string>;
  /** The volume's device, when it is attached as a whole and alive; null otherwise. */
  find(volume: { volumeId: string; iqn: string }): Promise<AttachedDevice | null>;
  /** Attaches what is not attached, by even a part. */
  attach(target: AttachTarget): Promise<AttachedDevice>;
  /**
   * Takes away everything of the volume, half-made and dead parts too. Nothing attached is success.
   * @throws WeftError when something of it is still there.
   */
  detach(volume: { volumeId: string; iqn: string }): Promise<void>;
  /** Every device that leads or led to the volume and still exists, dead ones too: somebody may still hold one. */
  devices(volume: { volumeId: string; iqn: string }): Promise<string[]>;
  /** Volumes of which anything is attached without regard to any record. Engines that cannot know answer none. */
  leftovers(): Promise<{ volumeId: string; iqn: string }[]>;
  /** Tells the device that its volume grew; false when it takes a new attach to see that. */
  grow(volume: { volumeId: string; iqn: string }, sizeBytes: number): Promise<boolean>;
}
