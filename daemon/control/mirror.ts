import type { z } from 'zod';
import { WeftError } from '../base/errors.ts';
import type { ControlChange, ControlStore, DamagedDocument } from './control-store.ts';

/** Null: it cannot be read, for the reason in `fault`. */
type Held<Document> = { revision: number } & (
  | { document: Readonly<Document>; fault: null }
  | { document: null; fault: WeftError }
);

/**
 * One kind of document in memory, always as the control store has it: reads need no waiting, and a compare-and-set
 * against the revisions here fails when the mirror is behind. Holds what the store holds: `maxVolumes` bounds it.
 */
export class Mirror<Document> {
  readonly prefix: string;
  readonly #schema: z.ZodType<Document>;
  readonly #version: number;
  readonly #held = new Map<string, Held<Document>>();
  /** Of deleted documents while the first listing is under way, which may still have them. */
  readonly #deletedAt = new Map<string, number>();

  readonly #keepsDamaged: boolean;
  #listed = false;

  /**
   * `version`: the newest that the schema reads. `keepsDamaged`: a damaged document is no document, and has a `fault`;
   * else it fails whoever meets it.
   */
  constructor(prefix: string, schema: z.ZodType<Document>, version = 1, keepsDamaged = false) {
    this.prefix = prefix;
    this.#schema = schema;
    this.#version = version;
    this.#keepsDamaged = keepsDamaged;
  }

  /** @throws WeftError CORRUPT (unless it keeps those), FORMAT_TOO_NEW: a document is not what this Weft writes. */
  async open(store: ControlStore): Promise<void> {
    store.watch(this.prefix, (changes) => {
      for (const change of changes) this.#apply(change);
    });
    const damaged: DamagedDocument = (key, revision, fault) => {
      this.#held.set(this.#nameOf(key), { document: null, fault, revision });
    };
    const documents = await store.list(this.prefix, this.#keepsDamaged ? damaged : undefined);
    for (const document of documents) this.#apply(document);
    this.#deletedAt.clear();
    this.#listed = true;
  }

  /**
   * Looks again at one document. A transaction that failed may have been committed all the same, and nobody was told.
   * @throws WeftError what the store fails with.
   */
  async reread(store: ControlStore, name: string): Promise<void> {
    const before = this.revision(name);
    const document = await store.get(this.prefix + name);
    if (document !== null) this.#apply(document);
    else if (this.revision(name) === before) this.#held.delete(name);
  }

  get(name: string): Readonly<Document> | undefined {
    return this.#held.get(name)?.document ?? undefined;
  }

  /** Why a document that is there cannot be read; null when it can, or is not there. */
  fault(name: string): WeftError | null {
    return this.#held.get(name)?.fault ?? null;
  }

  /** Names of those that cannot be read. */
  damaged(): string[] {
    return [...this.#held].filter(([, held]) => held.fault !== null).map(([name]) => name);
  }

  /** 0: there is none. */
  revision(name: string): number {
    return this.#held.get(name)?.revision ?? 0;
  }

  values(): Readonly<Document>[] {
    return [...this.#held.values()].flatMap(({ document }) => (document === null ? [] : [document]));
  }

  get size(): number {
    return this.#held.size;
  }

  #apply({ key, value, revision }: ControlChange): void {
    const name = this.#nameOf(key);
    if (Math.max(this.revision(name), this.#deletedAt.get(name) ?? 0) >= revision) return;
    if (value === undefined) {
      this.#held.delete(name);
      if (!this.#listed) this.#deletedAt.set(name, revision);
    } else {
      this.#held.set(name, { ...this.#decode(key, value), revision });
    }
  }

  #decode(
    key: string,
    value: unknown,
  ): { document: Document; fault: null } | { document: null; fault: WeftError } {
    try {
      return { document: decodeDocument(key, value, this.#schema, this.#version), fault: null };
    } catch (error) {
      if (!this.#keepsDamaged || !(error instanceof WeftError) || error.code !== 'CORRUPT') throw error;
      return { document: null, fault: error };
    }
  }

  #nameOf(key: string): string {
    return key.slice(this.prefix.length);
  }
}

/**
 * @param newest the newest version that the schema reads.
 * @throws WeftError CORRUPT, FORMAT_TOO_NEW, naming the document.
 */
export function decodeDocument<Document>(
  key: string,
  value: unknown,
  schema: z.ZodType<Document>,
  newest: number,
): Document {
  const version = (value as { schemaVersion?: unknown } | null)?.schemaVersion;
  if (typeof version === 'number' && version > newest) {
    throw new WeftError(
      'FORMAT_TOO_NEW',
      `the control store's document ${key} has version ${version}: run the newer Weft that wrote it`,
    );
  }
  const decoded = schema.safeParse(value);
  if (decoded.success) return decoded.data;
  const [issue] = decoded.error.issues;
  const reason = [issue?.path.join('.'), issue?.message ?? 'unreadable'].filter(Boolean).join(': ');
  throw new WeftError(
    'CORRUPT',
    `the control store's document ${key} is damaged: ${reason}; restore the data directory from a backup`,
  );
}
