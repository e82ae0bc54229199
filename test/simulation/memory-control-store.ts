import { WeftError } from '../../daemon/base/errors.ts';
import type {
  ControlChange,
  ControlDocument,
  ControlStore,
  ControlTransaction,
} from '../../daemon/control/control-store.ts';
import { assertKey, asText } from '../../daemon/control/control-text.ts';
import { Watchers } from '../../daemon/control/watchers.ts';

/** What a control store holds, kept apart so that a daemon can crash and a new one open the same. */
export class MemoryControlState {
  revision = 0;
  readonly documents = new Map<string, { json: string; revision: number }>();
}

/** A control store for simulated fabrics and fast tests. */
export class MemoryControlStore implements ControlStore {
  readonly state: MemoryControlState;
  readonly #watchers = new Watchers();
  #closed = false;

  constructor(state: MemoryControlState = new MemoryControlState()) {
    this.state = state;
  }

  async get(key: string): Promise<ControlDocument | null> {
    this.#refuseClosed();
    assertKey(key);
    const found = this.state.documents.get(key);
    return found === undefined ? null : { key, value: JSON.parse(found.json), revision: found.revision };
  }

  async list(prefix: string): Promise<ControlDocument[]> {
    this.#refuseClosed();
    return [...this.state.documents]
      .filter(([key]) => key.startsWith(prefix))
      .sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      .map(([key, { json, revision }]) => ({ key, value: JSON.parse(json), revision }));
  }

  async transact(transaction: ControlTransaction): Promise<number | null> {
    this.#refuseClosed();
    const { conditions, puts, deletes } = asText(transaction);
    const { documents } = this.state;
    if (conditions.some(({ key, revision }) => (documents.get(key)?.revision ?? 0) !== revision)) return null;
    this.state.revision += 1;
    const revision = this.state.revision;
    for (const key of deletes) documents.delete(key);
    for (const { key, json } of puts) documents.set(key, { json, revision });
    this.#watchers.tell(revision, [...puts, ...deletes.map((key) => ({ key, json: undefined }))]);
    return revision;
  }

  /** Has none. */
  async purgeHistory(): Promise<void> {
    this.#refuseClosed();
  }

  watch(prefix: string, notify: (changes: readonly ControlChange[]) => void): () => void {
    return this.#watchers.add(prefix, notify);
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #refuseClosed(): void {
    if (this.#closed) throw new WeftError('SHUTTING_DOWN', 'the control store is closed');
  }
}
