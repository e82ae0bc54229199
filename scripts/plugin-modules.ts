/**
 * Writes what a built program needs of dist/ and node_modules, one path a line, relative to the repository: the
 * modules reached from ENTRY through imports, and the packages they name with all their dependencies.
 *
 *   node scripts/plugin-modules.ts dist/plugin/main.js
 */
import { existsSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { dirname, join, normalize } from 'node:path';

const importPattern = /(?:\bfrom|\bimport)\s*\(?\s*['"]([^'"]+)['"]/g;

const files = new Set<string>();
const packages = new Set<string>();

function addFile(file: string): void {
  if (files.has(file)) return;
  files.add(file);
  for (const [, specifier] of readFileSync(file, 'utf8').matchAll(importPattern)) {
    if (specifier === undefined || isBuiltin(specifier)) continue;
    if (specifier.startsWith('.')) addFile(normalize(join(dirname(file), specifier)));
    else addPackage(packageName(specifier), '.');
  }
}

function packageName(specifier: string): string {
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}

/** As Node looks for it: in the node_modules of every directory from `from` upwards. */
function addPackage(name: string, from: string, isOptional = false): void {
  for (let directory = from; ; directory = dirname(directory)) {
    const place = join(directory, 'node_modules', name);
    if (existsSync(join(place, 'package.json'))) {
      addDependencies(place);
      return;
    }
    if (directory === '.') break;
  }
  if (!isOptional) throw new Error(`package ${name}, which ${from} needs, is not installed; run npm ci`);
}

function addDependencies(place: string): void {
  if (packages.has(place)) return;
  packages.add(place);
  const { dependencies = {}, optionalDependencies = {} } = JSON.parse(
    readFileSync(join(place, 'package.json'), 'utf8'),
  );
  for (const name of Object.keys(dependencies)) addPackage(name, place, name in optionalDependencies);
  for (const name of Object.keys(optionalDependencies)) addPackage(name, place, true);
}

const entry = process.argv[2];
if (entry === undefined) throw new Error('usage: node scripts/plugin-modules.ts ENTRY');
addFile(normalize(entry));
for (const path of [...files, ...packages].sort()) console.log(path);
