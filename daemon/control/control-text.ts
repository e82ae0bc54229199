/** A transaction as engines store it: documents as JSON text, checked before anything is sent anywhere. */
import { assert } from '../base/assert.ts';
import {
  type ControlCondition,
  type ControlTransaction,
  maxDocumentLength,
  maxKeyBytes,
} from './control-store.ts';

export interface TextTransaction {
  conditions: readonly ControlCondition[];
  puts: readonly { key: string; json: string }[];
  deletes: readonly string[];
}

/** Keys and documents come from our own code: a bad one is a programmer's fault. */
export function asText(transaction: ControlTransaction): TextTransaction {
  const touched = new Set<string>();
  for (const key of [...transaction.puts.map((put) => put.key), ...transaction.deletes]) {
    assertKey(key);
    assert(!touched.has(key), `a transaction changes ${key} once`);
    touched.add(key);
  }
  for (const condition of transaction.conditions) assertKey(condition.key);
  const puts = transaction.puts.map(({ key, value }) => {
    const json = JSON.stringify(value);
    assert(json !== undefined && json.length <= maxDocumentLength, `the document ${key} can be stored`);
    return { key, json };
  });
  return { conditions: transaction.conditions, puts, deletes: transaction.deletes };
}

export function assertKey(key: string): void {
  assert(key.length > 0 && Buffer.byteLength(key) <= maxKeyBytes, `"${key}" is a key`);
}
