/**
 * One writer: who may use a volume now.
 *
 * A claim is held by one host for one initiator and lapses when it is not renewed. Then, and only then, another
 * holder may take it over: the volume's epoch rises and the old initiator's sessions are dropped before the new
 * holder has its answer. A volume without a live claim takes any initiator, such as an administrator's tool.
 *
 * When a claim lapses is counted on the monotonic clock from when this process first saw it in its present form: a
 * jump of the wall clock lapses none, and after a restart each gets a whole TTL to be renewed in.
 */
import { WeftError } from '../base/errors.ts';
import { isListed } from './access.ts';
import type { CatalogCore } from './catalog.ts';
import type { ClaimRecord, VolumeRecord } from './documents.ts';
import { unitFault } from './unit-states.ts';
import { readOnline } from './volumes.ts';

export interface WantedClaim {
  holder: string;
  initiator: string;
  ttlMs: number;
}

interface Deadline {
  epoch: number;
  expiresAtMs: number;
  lapsesAtMonotonicMs: number;
}

export class Claims {
  readonly #core: CatalogCore;
  /** By volume id; volumes without a claim have none. */
  readonly #deadlines = new Map<string, Deadline>();

  constructor(core: CatalogCore) {
    this.#core = core;
  }

  /** The TTLs of all claims that are recorded begin. */
  start(): void {
    for (const volume of this.#core.volumes.values()) this.live(volume);
  }

  /** The claim while it holds, with the time it lapses at unless renewed; null otherwise. */
  live(volume: VolumeRecord): (ClaimRecord & { lapsesAtMs: number }) | null {
    const { claim } = volume;
    if (claim === null) {
      this.#deadlines.delete(volume.id);
      return null;
    }
    const now = this.#core.clock.monotonicMs();
    let deadline = this.#deadlines.get(volume.id);
    if (
      deadline === undefined ||
      deadline.epoch !== claim.epoch ||
      deadline.expiresAtMs !== claim.expiresAtMs
    ) {
      const { epoch, expiresAtMs, ttlMs } = claim;
      deadline = { epoch, expiresAtMs, lapsesAtMonotonicMs: now + ttlMs };
      this.#deadlines.set(volume.id, deadline);
    }
    const leftMs = deadline.lapsesAtMonotonicMs - now;
    return leftMs <= 0 ? null : { ...claim, lapsesAtMs: Math.round(this.#core.clock.nowMs() + leftMs) };
  }

  /** Why this initiator may not log in; null when it may. */
  refusal(volume: VolumeRecord, initiator: string): string | null {
    const claim = this.live(volume);
    if (claim === null || sameInitiator(claim.initiator, initiator)) return null;
    return `volume ${volume.name} is claimed by ${claim.holder} for ${claim.initiator}`;
  }

  /**
   * Takes the claim or renews it.
   * @throws WeftError NOT_FOUND; CORRUPT when the volume is not served; FORBIDDEN when the volume does not list the initiator; IN_USE naming the holder, or the initiators that are logged in without a claim.
   */
  async take(
    volumeId: string,
    name: string,
    wanted: WantedClaim,
  ): Promise<ClaimRecord & { lapsesAtMs: number }> {
    return this.#core.turns.take(volumeId, async () => {
      const { before, after, renewed } = await this.#core.change((change) => {
        const before = readOnline(this.#core, change, volumeId, name);
        refuseUnlisted(before, wanted.initiator);
        const fault = unitFault(this.#core, before);
        if (fault !== null) throw fault;
        const renewed = before.claim !== null && isSame(before.claim, wanted);
        if (!renewed) this.#refuseUsed(before, wanted);
        const epoch = renewed ? before.epoch : before.epoch + 1;
        const expiresAtMs = Math.round(this.#core.clock.nowMs() + wanted.ttlMs);
        const { holder, initiator, ttlMs } = wanted;
        const after: VolumeRecord = {
          ...before,
          epoch,
          claim: { holder, initiator, ttlMs, epoch, expiresAtMs },
        };
        change.put(this.#core.volumes, volumeId, after);
        return { before, after, renewed };
      });
      await this.#fence(renewed ? null : before.claim, after);
      this.#deadlines.delete(volumeId);
      const claim = this.live(after);
      if (claim === null) throw new WeftError('TIMEOUT', `the claim of ${name} lapsed while it was taken`);
      return claim;
    });
  }

  /**
   * Gives the claim back and drops what is left of its sessions. Nothing happens when there is none.
   * @param holder null: whoever has it.
   * @throws WeftError NOT_FOUND; IN_USE when another holder has it.
   */
  async release(volumeId: string, name: string, holder: string | null): Promise<void> {
    await this.#core.turns.take(volumeId, async () => {
      const before = await this.#core.change((change) => {
        const before = readOnline(this.#core, change, volumeId, name);
        if (before.claim === null) return before;
        if (holder !== null && before.claim.holder !== holder) {
          throw inUse(before, `it is claimed by ${before.claim.holder}, not by ${holder}`, [before.claim]);
        }
        change.put(this.#core.volumes, volumeId, { ...before, claim: null });
        return before;
      });
      if (before.claim !== null) await this.#core.host.dropSessions(before, before.claim.initiator);
    });
  }

  /** @throws WeftError IN_USE while anybody is logged in or holds a claim. */
  refuseInUse(volume: VolumeRecord): void {
    const claim = this.live(volume);
    const initiators = this.#core.host.sessions(volume).map((session) => session.initiator);
    if (claim !== null) throw inUse(volume, claimedBy(claim), [claim], initiators);
    if (initiators.length > 0) throw inUse(volume, loggedIn(initiators), [], initiators);
  }

  #refuseUsed(volume: VolumeRecord, wanted: WantedClaim): void {
    const claim = this.live(volume);
    // Not even under the same name: two hosts may have one, and only the initiator's name tells them apart.
    if (claim !== null) throw inUse(volume, claimedBy(claim), [claim]);
    // The last holder's sessions may still stand: they are fenced out. Anybody else's are somebody's work.
    const others = this.#core.host
      .sessions(volume)
      .map((session) => session.initiator)
      .filter((initiator) => !sameInitiator(initiator, wanted.initiator))
      .filter((initiator) => volume.claim === null || !sameInitiator(initiator, volume.claim.initiator));
    if (others.length > 0) throw inUse(volume, loggedIn(others), [], others);
  }

  /**
   * The claim is durable, and refuses others' logins: whoever is still in goes before the holder has its answer.
   * A renewal too: the fencing of the takeover before it may have failed half way.
   */
  async #fence(superseded: ClaimRecord | null, after: VolumeRecord): Promise<void> {
    const { host } = this.#core;
    if (superseded !== null) await host.dropSessions(after, superseded.initiator);
    for (const { initiator } of host.sessions(after)) {
      if (after.claim !== null && !sameInitiator(initiator, after.claim.initiator)) {
        await host.dropSessions(after, initiator);
      }
    }
    await host.fence(after);
  }
}

/** @throws WeftError FORBIDDEN: a claim would be of no use to it. */
function refuseUnlisted(volume: VolumeRecord, initiator: string): void {
  if (isListed(volume, initiator)) return;
  throw new WeftError(
    'FORBIDDEN',
    `volume ${volume.name} does not let ${initiator} log in: an administrator can list it with ` +
      `"weft volume access ${volume.name} --allow NAMES"`,
    { details: { volume: volume.name, initiator } },
  );
}

function isSame(claim: ClaimRecord, wanted: WantedClaim): boolean {
  return claim.holder === wanted.holder && sameInitiator(claim.initiator, wanted.initiator);
}

/** iSCSI names compare in lower case (RFC 7143 §4.2.7.2). */
function sameInitiator(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase();
}

function claimedBy(claim: ClaimRecord & { lapsesAtMs: number }): string {
  const until = new Date(claim.lapsesAtMs).toISOString();
  return `it is claimed by ${claim.holder} (${claim.initiator}) until ${until} unless renewed`;
}

function loggedIn(initiators: string[]): string {
  return `${[...new Set(initiators)].join(', ')} logged in to it`;
}

function inUse(
  volume: VolumeRecord,
  reason: string,
  claims: ClaimRecord[],
  initiators: string[] = [],
): WeftError {
  const claim = claims[0];
  return new WeftError('IN_USE', `volume ${volume.name} is in use: ${reason}`, {
    details: {
      volume: volume.name,
      ...(claim === undefined ? {} : { holder: claim.holder, initiator: claim.initiator }),
      ...(initiators.length === 0 ? {} : { initiators: [...new Set(initiators)] }),
    },
  });
}
