/** What tests of secrets look at: every file of weftd's, and the words it refuses to start with. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { WeftdProcess } from '../system/weftd-process.ts';

/** Files of the data directory that hold the text anywhere, free pages and logs included. */
export async function filesWith(weftd: WeftdProcess, text: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(weftd.data, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    if ((await readFile(path)).includes(text)) found.push(entry.name);
  }
  return found.sort();
}

/** Ends weftd and starts it again, which must fail; answers with what it says. */
export async function startAndFail(weftd: WeftdProcess): Promise<string> {
  await weftd.shutDown();
  const failure = await weftd.startAgain().catch((error: Error) => error);
  return failure instanceof Error ? failure.message : 'it started';
}
