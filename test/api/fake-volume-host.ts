import { isListed } from '../../daemon/control/access.ts';
import type { VolumeRecord } from '../../daemon/control/documents.ts';
import type { LoginRecords, VolumeHost, VolumeSession } from '../../daemon/control/volume-host.ts';

/** A data path that keeps no data and remembers what it was told, in order. */
export class FakeVolumeHost implements VolumeHost {
  readonly calls: string[] = [];
  /** Volume keys whose data exists. */
  readonly data = new Set<number>();
  /** Volume ids that can be logged in to. */
  readonly served = new Set<string>();
  readonly #sessions = new Map<string, VolumeSession[]>();
  /** Errors that the next calls of `destroy` fail with. */
  readonly destroyFaults: Error[] = [];
  /** Errors that the next calls of `dropSessions` fail with. */
  readonly dropFaults: Error[] = [];
  /** When set, `destroy` waits for it. */
  destroyGate: Promise<void> | null = null;
  /** The same for `fence`. */
  fenceGate: Promise<void> | null = null;

  portals(): string[] {
    return ['127.0.0.1:3260'];
  }

  serve(volume: VolumeRecord): void {
    this.calls.push(`serve ${volume.name}`);
    this.served.add(volume.id);
    this.data.add(volume.volumeKey);
  }

  resize(volume: VolumeRecord): void {
    this.calls.push(`resize ${volume.name} ${volume.sizeBytes}`);
  }

  async withdraw(volume: VolumeRecord): Promise<void> {
    this.calls.push(`withdraw ${volume.name}`);
    this.served.delete(volume.id);
    this.#sessions.delete(volume.id);
  }

  async destroy(volumeKey: number): Promise<void> {
    this.calls.push(`destroy ${volumeKey}`);
    await this.destroyGate;
    const fault = this.destroyFaults.shift();
    if (fault !== undefined) throw fault;
    this.data.delete(volumeKey);
  }

  sessions(volume: VolumeRecord): VolumeSession[] {
    return this.#sessions.get(volume.id) ?? [];
  }

  async dropSessions(volume: VolumeRecord, initiator: string | null): Promise<void> {
    this.calls.push(`drop ${volume.name} ${initiator ?? 'everybody'}`);
    const fault = this.dropFaults.shift();
    if (fault !== undefined) throw fault;
    // Not at once: whoever does not wait for it finds the sessions still there.
    await new Promise(setImmediate);
    const left = this.sessions(volume).filter(
      (session) => initiator !== null && session.initiator !== initiator,
    );
    this.#sessions.set(volume.id, left);
  }

  async fence(): Promise<void> {
    await this.fenceGate;
  }

  /** Who may log in is asked of the record. */
  async expel(volume: VolumeRecord, everybody: boolean): Promise<number> {
    this.calls.push(`expel ${volume.name} ${everybody ? 'everybody' : 'the unlisted'}`);
    await new Promise(setImmediate);
    const before = this.sessions(volume);
    const left = before.filter(({ initiator }) => !everybody && isListed(volume, initiator));
    this.#sessions.set(volume.id, left);
    return before.length - left.length;
  }

  logins(): LoginRecords {
    const lastMs = Date.parse('2026-11-01T00:00:00.000Z');
    const failure = {
      address: '10.0.0.66',
      initiator: 'iqn.2026-11.example:x',
      target: 'iqn.2026-11.example:t',
    };
    return {
      counts: { succeeded: 5, failed: 3, throttled: 1 },
      failures: [{ ...failure, reason: 'CHAP failed', count: 2, lastMs }],
    };
  }

  usage(volumeKey: number): { usedBytes: number; allocatedBytes: number } {
    return this.data.has(volumeKey)
      ? { usedBytes: 16_384, allocatedBytes: 8_192 }
      : { usedBytes: 0, allocatedBytes: 0 };
  }

  capacity(): { totalBytes: number; freeBytes: number; usedBytes: number } {
    return { totalBytes: 1_000_000_000, freeBytes: 900_000_000, usedBytes: 100_000_000 };
  }

  journal(): { usedBytes: number; capacityBytes: number } {
    return { usedBytes: 4096, capacityBytes: 1_073_741_824 };
  }

  /** An initiator logs in, whether or not it may. */
  login(volumeId: string, initiator: string): void {
    const session = { initiator, address: '10.0.0.9:40000', since: '2026-11-01T00:00:00.000Z' };
    this.#sessions.set(volumeId, [...(this.#sessions.get(volumeId) ?? []), session]);
  }

  logout(volumeId: string): void {
    this.#sessions.delete(volumeId);
  }
}
