import type { VolumeRecord } from './documents.ts';

/**
 * The data path as the catalog sees it. The catalog decides and records; the host carries out, always after the
 * record is durable, so that a crash in between is made up for at the next start.
 */
export interface VolumeHost {
  /** HOST:PORT of every address volumes are reached at. */
  portals(): string[];
  /** Brings it online as an iSCSI target: at start, after it was created, after it was restored. */
  serve(volume: VolumeRecord): void;
  /** It has grown. */
  resize(volume: VolumeRecord): void;
  /** No longer reachable when this resolves, its sessions dropped. */
  withdraw(volume: VolumeRecord): Promise<void>;
  /** Its data is gone and its space given back when this resolves. No error when there is none. */
  destroy(volumeKey: number): Promise<void>;
  sessions(volume: VolumeRecord): VolumeSession[];
  /** Fences the initiator out, everybody when null: nothing it sent takes effect after this has resolved. */
  dropSessions(volume: VolumeRecord, initiator: string | null): Promise<void>;
  /**
   * Nothing that initiators sent that may not use it takes effect after this has resolved, neither of sessions that
   * have ended already nor by way of other targets. Drops no session.
   */
  fence(volume: VolumeRecord): Promise<void>;
  /**
   * Ends the sessions with its target of initiators that may not be there (any more); with `everybody`, all of them.
   * Nothing they sent takes effect after this has resolved, with how many they were.
   */
  expel(volume: VolumeRecord, everybody: boolean): Promise<number>;
  usage(volumeKey: number, chunkSizeBytes: number): { usedBytes: number; allocatedBytes: number };
  logins(): LoginRecords;
  capacity(): { totalBytes: number; freeBytes: number; usedBytes: number };
  journal(): { usedBytes: number; capacityBytes: number };
}

/** Logins of initiators since the start. */
export interface LoginRecords {
  /** Of the failed, those `throttled` were refused for the many before them. */
  counts: { succeeded: number; failed: number; throttled: number };
  /** The last first, within a limit. */
  failures: readonly {
    /** Without its port. */
    address: string;
    initiator: string;
    target: string;
    reason: string;
    count: number;
    lastMs: number;
  }[];
}

/** An initiator logged in now. */
export interface VolumeSession {
  /** Its iSCSI name. */
  initiator: string;
  /** HOST:PORT it comes from. */
  address: string;
  /** ISO 8601, UTC. */
  since: string;
}
