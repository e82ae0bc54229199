/** What passes between a transport (iSCSI) and a SCSI device server. */

/** Status codes of SAM-5 5.3.1. */
export const ScsiStatus = {
  good: 0x00,
  checkCondition: 0x02,
  conditionMet: 0x04,
  busy: 0x08,
  reservationConflict: 0x18,
  taskSetFull: 0x28,
  taskAborted: 0x40,
} as const;
export type ScsiStatus = (typeof ScsiStatus)[keyof typeof ScsiStatus];

export interface ScsiCommand {
  /** The eight bytes of the LUN as they came (SAM-5 4.7). */
  lun: Buffer;
  /** 16 bytes. */
  cdb: Buffer;
  /** What the initiator sent with the command; empty when it sent nothing. */
  dataOut: Buffer;
  /** How many bytes the initiator takes at most. */
  expectedInBytes: number;
  /** The I_T nexus: initiator name, ISID and target portal group in one string. */
  nexus: string;
  /** RELATIVE TARGET PORT IDENTIFIER (SPC-4 7.8.6.2.4) of the port it came in at, from 1. */
  port: number;
  /** The transport's side of it; nobody aborts it when not given. */
  request?: {
    /** The answer is not wanted any more: a command that works in steps ends after the one in hand. */
    readonly isAborted: boolean;
  };
}

export interface ScsiReply {
  status: ScsiStatus;
  /** Sense data, fixed or descriptor format; null with good status. */
  sense: Buffer | null;
  /**
   * What the command returns, in order; the transport cuts it at what the initiator takes.
   * The buffers belong to the transport until it calls `release`.
   */
  dataIn: readonly Buffer[];
  /**
   * How many bytes of data-out, data-in the CDB asked for. The transport compares them with the transfer length the
   * initiator announced and reports the residual (RFC 7143 11.4.5).
   */
  wantedOutBytes: number;
  wantedInBytes: number;
  /** Gives pooled buffers of `dataIn` back; the transport calls it once when they are sent or dropped. */
  release?: () => void;
}
