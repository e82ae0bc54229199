/**
 * What the transport asks of those behind it: which targets there are, who may log in, and the SCSI device of each.
 * The composition root joins it to the volumes and their device servers.
 */
import type { ScsiCommand, ScsiReply } from '../scsi/command.ts';

/** The SCSI device of one target. Calls back once per command, at once or later. */
export interface ScsiDevice {
  execute(command: ScsiCommand, done: (reply: ScsiReply) => void): void;
  /** The I_T nexus is gone (SAM-5 6.3.4): its unit attentions and SPC-2 reservations go. Nothing of it is in flight. */
  nexusLost(nexus: string): void;
  /** LOGICAL UNIT RESET asked for by `nexus` (SAM-5 6.3.3): everybody, it too, gets a unit attention. */
  resetUnit(lun: Buffer, nexus: string): void;
  /** The same for every logical unit of the target. */
  resetTarget(nexus: string): void;
  /** Whether the logical unit is there for this nexus. */
  lunExists(lun: Buffer, nexus: string): boolean;
  /** Whether the nexus may use every logical unit of the target, and so end what others do with it. */
  mayResetTarget(nexus: string): boolean;
}

export interface ChapCredentials {
  user: string;
  secret: string;
}

/** What an initiator must know to log in, null: nothing; and what it is shown when it asks for a proof too. */
export interface RequiredProof {
  readonly chap: ChapCredentials | null;
  /** Must differ from `chap` in its secret. */
  readonly mutualChap?: ChapCredentials | null;
}

export interface TargetEntry extends RequiredProof {
  readonly iqn: string;
  readonly alias?: string;
  readonly device: ScsiDevice;
  /** Whether the target is there for the initiator at all. To others it answers like one that does not exist. */
  lists(initiatorName: string): boolean;
  /** Null when the initiator may log in now, or the reason why not (the volume is claimed by another host). */
  admit(initiatorName: string): string | null;
}

/** An address initiators reach targets at, and the portal group it belongs to (RFC 7143 §4.2.7.2, §13.9). */
export interface TargetPortal {
  /** HOST:PORT, IPv6 addresses in brackets. */
  readonly address: string;
  readonly groupTag: number;
}

/** The target is reached elsewhere (RFC 7143 §11.13.5, status class 1). */
export interface MovedTarget {
  /** Temporarily: the initiator asks here again next time. */
  readonly moved: 'temporarily' | 'permanently';
  /** As of a target that is here. */
  lists(initiatorName: string): boolean;
  /** HOST:PORT, IPv6 addresses in brackets. */
  readonly address: string;
}

export interface TargetDirectory {
  /** What discovery sessions take; absent: nothing. */
  readonly discovery?: RequiredProof;
  /** As it is now; what was found before may have changed. */
  find(iqn: string): TargetEntry | MovedTarget | null;
  /** What discovery shows the initiator. No portals: only the one it asked at. */
  list(initiatorName: string): readonly { iqn: string; portals: readonly TargetPortal[] }[];
}
