import type { Disk } from './disk.ts';

/**
 * One place a node keeps data: a directory of one file system, in a tier. A node has a list of them. The first is
 * the one the journal lives on, and hot; segments go to any.
 */
export interface Store {
  disk: Disk;
  /** 'hot': SSD. 'cold': HDD; takes no new data by itself. */
  tier: 'hot' | 'cold';
}

/** The room of all stores together, in bytes. */
export async function spaceOf(stores: readonly Store[]): Promise<{ totalBytes: number; freeBytes: number }> {
  const spaces = await Promise.all(stores.map(({ disk }) => disk.space()));
  return {
    totalBytes: spaces.reduce((sum, { totalBytes }) => sum + totalBytes, 0),
    freeBytes: spaces.reduce((sum, { freeBytes }) => sum + freeBytes, 0),
  };
}
