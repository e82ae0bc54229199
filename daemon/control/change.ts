import { WeftError } from '../base/errors.ts';
import type { ControlStore } from './control-store.ts';
import type { Mirror } from './mirror.ts';

/** So many times in a row somebody else was faster: something is wrong. */
const maxAttempts = 100;

/**
 * What one transaction has read and wants to write. Everything read through it is a condition: when any of it is
 * no longer so at the commit, the plan is made again from what is there then.
 */
export class Change {
  readonly #conditions = new Map<string, number>();
  readonly #rereads = new Map<string, (store: ControlStore) => Promise<void>>();
  readonly #puts = new Map<string, unknown>();
  readonly #deletes = new Set<string>();

  read<Document>(mirror: Mirror<Document>, name: string): Readonly<Document> | undefined {
    this.#conditions.set(mirror.prefix + name, mirror.revision(name));
    this.#rereads.set(mirror.prefix + name, (store) => mirror.reread(store, name));
    return mirror.get(name);
  }

  put<Document>(mirror: Mirror<Document>, name: string, document: Document): void {
    this.read(mirror, name);
    this.#puts.set(mirror.prefix + name, document);
  }

  remove<Document>(mirror: Mirror<Document>, name: string): void {
    this.read(mirror, name);
    this.#deletes.add(mirror.prefix + name);
  }

  async commit(store: ControlStore): Promise<boolean> {
    if (this.#puts.size === 0 && this.#deletes.size === 0) return true;
    const revision = await store.transact({
      conditions: Array.from(this.#conditions, ([key, revision]) => ({ key, revision })),
      puts: Array.from(this.#puts, ([key, value]) => ({ key, value })),
      deletes: [...this.#deletes],
    });
    return revision !== null;
  }

  /** Brings what was read up to date with the store. */
  async reread(store: ControlStore): Promise<void> {
    for (const reread of this.#rereads.values()) await reread(store);
  }
}

/**
 * Plans and commits until nobody interfered. `plan` may run several times: it only reads, decides and fills the
 * change. It refuses by throwing.
 * @throws WeftError CONFLICT when others always came first, and what `plan` throws.
 */
export async function commitChange<Result>(
  store: ControlStore,
  plan: (change: Change) => Result,
): Promise<Result> {
  for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
    const change = new Change();
    const result = plan(change);
    if (await change.commit(store)) return result;
    // Watchers have told of what came between. Where that was not all, a commit failed and had happened nevertheless.
    if (attempt > 0) await change.reread(store);
  }
  throw new WeftError('CONFLICT', 'the catalog changes too fast; try again');
}
