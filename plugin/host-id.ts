/**
 * A name of this host that no other has: eight random hex digits, made once and kept beside the records. Cloned
 * machines and careless settings give hosts the same name, and two initiators of one name would share a claim.
 */
import { randomBytes } from 'node:crypto';
import { open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';

const pattern = /^[0-9a-f]{8}$/;

/** A file that holds none (cut off by a crash, damaged) is replaced: a claim made under the old id lapses by itself. */
export async function ensureHostId(stateDirectory: string): Promise<string> {
  const path = join(stateDirectory, 'host-id');
  const known = await readFile(path, 'utf8').then(
    (text) => text.trim(),
    () => '',
  );
  if (pattern.test(known)) return known;
  const id = randomBytes(4).toString('hex');
  const fresh = `${path}.${id}`;
  const file = await open(fresh, 'w', 0o600);
  try {
    await file.writeFile(`${id}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(fresh, path);
  return id;
}
