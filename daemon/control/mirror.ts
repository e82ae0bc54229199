import type { z } from 'zod';
import { WeftError } from '../base/errors.ts';
import type { ControlChange, ControlStore } from './control-store.ts';

interface Held<Document> {
  document: Readonly<Document>;
  revision: number;
}

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

  #listed = false;

  /** `version`: the newest that the schema reads. */
  constructor(prefix: string, schema: z.ZodType<Document>, version = 1) {
    this.prefix = prefix;
    this.#schema = schema;
    this.#version = version;
  }

  /** @throws WeftError CORRUPT, FORMAT_TOO_NEW: a document is not what this Weft writes. */
  async open(store: ControlStore): Promise<void> {
    store.watch(this.prefix, (changes) => {
      for (const change of changes) this.#apply(change);
    });
    for (const document of await store.list(this.prefix)) this.#apply(document);
    this.#deletedAt.clear();
    this.#listed = true;
  }

  get(name: string): Readonly<Document> | undefined {
    return this.#held.get(name)?.document;
  }

  /** 0: there is none. */
  revision(name: string): number {
    return this.#held.get(name)?.revision ?? 0;
  }

  values(): Readonly<Document>[] {
    return Array.from(this.#held.values(), (held) => held.document);
  }

  get size(): number {
    return this.#held.size;
  }

  #apply({ key, value, revision }: ControlChange): void {
    const name = key.slice(this.prefix.length);
    if (Math.max(this.revision(name), this.#deletedAt.get(name) ?? 0) >= revision) return;
    if (value === undefined) {
      this.#held.delete(name);
      if (!this.#listed) this.#deletedAt.set(name, revision);
    } else {
      const document = decodeDocument(key, value, this.#schema, this.#version);
      this.#held.set(name, { document, revision });
    }
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
