import type { ControlChange } from './control-store.ts';

/** Who wants to be told of changes. Shared by the engines that run in one process. */
export class Watchers {
  readonly #watchers = new Set<{ prefix: string; notify: (changes: readonly ControlChange[]) => void }>();

  add(prefix: string, notify: (changes: readonly ControlChange[]) => void): () => void {
    const watcher = { prefix, notify };
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** `json` is undefined for a deletion. Each watcher gets its own copy of the documents. */
  tell(revision: number, changes: readonly { key: string; json: string | undefined }[]): void {
    for (const { prefix, notify } of this.#watchers) {
      const wanted = changes.filter((change) => change.key.startsWith(prefix));
      if (wanted.length === 0) continue;
      notify(
        wanted.map(({ key, json }) => ({
          key,
          value: json === undefined ? undefined : JSON.parse(json),
          revision,
        })),
      );
    }
  }
}
