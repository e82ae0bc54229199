/**
 * The names of a simulated disk: what they are now, and which of the changes since the last `syncDirectory` power
 * loss may undo. In every directory the changes that survive are the first ones: no later one without the earlier.
 */
import { dirname } from 'node:path/posix';
import type { SeededRandom } from './seeded-random.ts';
import type { SimulatedFile } from './simulated-file.ts';

type NameChange =
  | { kind: 'create'; path: string; file: SimulatedFile }
  | { kind: 'remove'; path: string }
  | { kind: 'rename'; path: string; to: string };

export class SimulatedDirectory {
  #durable = new Map<string, SimulatedFile>();
  #names = new Map<string, SimulatedFile>();
  #changes: NameChange[] = [];
  /** Made durable at once: they are made rarely, at the first start. */
  readonly #directories = new Set(['.']);

  file(path: string): SimulatedFile | undefined {
    return this.#names.get(path);
  }

  files(): ReadonlyMap<string, SimulatedFile> {
    return this.#names;
  }

  hasDirectory(path: string): boolean {
    return this.#directories.has(path);
  }

  makeDirectory(path: string): void {
    for (let at = path; at !== '.'; at = dirname(at)) this.#directories.add(at);
  }

  list(directory: string): string[] {
    const inside = (path: string) => path !== '.' && dirname(path) === directory;
    const paths = [...this.#names.keys(), ...this.#directories].filter(inside);
    return paths.map((path) => path.slice(path.lastIndexOf('/') + 1)).sort();
  }

  change(change: NameChange): void {
    apply(this.#names, change);
    this.#changes.push(change);
  }

  /** Makes the directory's changes durable, and what the other side of a renaming needs for it. */
  sync(directory: string): void {
    const touched = new Set([directory]);
    const settled = new Set<NameChange>();
    for (const change of this.#changes.toReversed()) {
      const directories = directoriesOf(change);
      if (!directories.some((path) => touched.has(path))) continue;
      settled.add(change);
      for (const path of directories) touched.add(path);
    }
    for (const change of this.#changes) if (settled.has(change)) apply(this.#durable, change);
    this.#changes = this.#changes.filter((change) => !settled.has(change));
  }

  loseSome(random: SeededRandom): void {
    const cutOff = new Set<string>();
    for (const change of this.#changes) {
      const directories = directoriesOf(change);
      if (directories.every((path) => !cutOff.has(path)) && random.chance(0.6)) apply(this.#durable, change);
      else for (const path of directories) cutOff.add(path);
    }
    this.#changes = [];
    this.#names = new Map(this.#durable);
  }
}

function apply(names: Map<string, SimulatedFile>, change: NameChange): void {
  if (change.kind === 'create') {
    names.set(change.path, change.file);
    return;
  }
  const file = names.get(change.path);
  names.delete(change.path);
  if (change.kind === 'rename' && file !== undefined) names.set(change.to, file);
}

function directoriesOf(change: NameChange): string[] {
  return change.kind === 'rename' ? [dirname(change.path), dirname(change.to)] : [dirname(change.path)];
}
