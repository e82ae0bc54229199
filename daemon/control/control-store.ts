/**
 * Where the small state of the fabric lives: containers, volumes, tokens, later nodes and slice configurations.
 *
 * Documents under keys ("volume/<id>"), changed only by compare-and-set transactions. Every engine keeps these
 * promises (`test/control/control-store-conformance.ts` holds them to it):
 *  - a transaction happens whole or not at all, and survives power loss once it has resolved;
 *  - each committed transaction takes the next revision of the store; a document carries that of its last change;
 *  - watchers are told of a transaction, in order of revisions, before its promise resolves.
 *
 * Session leases with keep-alive come here with the second node: a fabric of one has nobody to lease from.
 */
import type { WeftError } from '../base/errors.ts';

export interface ControlStore {
  get(key: string): Promise<ControlDocument | null>;
  /**
   * Documents whose key starts with `prefix`, in order of their keys (by UTF-8 bytes). One that is no JSON fails it with
   * CORRUPT; with `damaged`, it is left out and told of.
   */
  list(prefix: string, damaged?: DamagedDocument): Promise<ControlDocument[]>;
  /** The revision it was committed at, or null when a condition did not hold and nothing was changed. */
  transact(transaction: ControlTransaction): Promise<number | null>;
  /** Calls `notify` with every later change below `prefix`, until the returned function is called. */
  watch(prefix: string, notify: (changes: readonly ControlChange[]) => void): () => void;
  /** When it resolves, the store's files hold nothing any more of documents that were overwritten or deleted. */
  purgeHistory(): Promise<void>;
  /** Finishes what was asked for; everything later fails with SHUTTING_DOWN. */
  close(): Promise<void>;
}

export interface ControlDocument {
  key: string;
  /** Whatever JSON can hold. The reader's own copy. */
  value: unknown;
  /** Of the transaction that wrote it. At least 1. */
  revision: number;
}

export type DamagedDocument = (key: string, revision: number, error: WeftError) => void;

export interface ControlTransaction {
  conditions: readonly ControlCondition[];
  puts: readonly { key: string; value: unknown }[];
  /** No error when there is no such document. */
  deletes: readonly string[];
}

/** The document is still as it was at this revision; 0: there is none. */
export interface ControlCondition {
  key: string;
  revision: number;
}

export interface ControlChange {
  key: string;
  /** Undefined: deleted. */
  value: unknown;
  revision: number;
}

/** The longest key, in UTF-8 bytes. */
export const maxKeyBytes = 512;
/**
 * The longest document as JSON text, in UTF-16 units. A volume takes about 1 KiB, its labels at most 64 KiB; the 512
 * registrations of a logical unit 268 KiB, where every character of the names is one that JSON escapes.
 */
export const maxDocumentLength = 320 * 1024;
