/** Images without a registry: one static program, and Debian with PostgreSQL, made once and kept in build/. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rename, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import type { PrivateDockerd } from './private-dockerd.ts';

const root = resolve(import.meta.dirname, '../..');
const postgresPackages = ['postgresql', 'util-linux'];
const buildLimitMs = 1_200_000;

export const busyboxImage = 'weft-test-busybox';
export const postgresImage = 'weft-test-postgres';
/** The command that runs the database: mounted into its Docker container, so that an edit needs no new image. */
export const postgresEntrypoint = join(import.meta.dirname, 'postgres-entrypoint');

/** Also with content at /content, which Docker copies into a new volume mounted there. */
export async function importBusybox(dockerd: PrivateDockerd): Promise<void> {
  const rootfs = await mkdtemp(join(tmpdir(), 'weft-busybox-'));
  try {
    for (const directory of ['bin', 'tmp', 'content/sub'])
      await mkdir(join(rootfs, directory), { recursive: true });
    await copyFile('/bin/busybox', join(rootfs, 'bin/busybox'));
    for (const name of [
      'sh',
      'cat',
      'echo',
      'ls',
      'md5sum',
      'dd',
      'sync',
      'sleep',
      'stat',
      'df',
      'id',
      'mount',
    ]) {
      await symlink('busybox', join(rootfs, 'bin', name));
    }
    await copyFile('/etc/debian_version', join(rootfs, 'content/sub/file'));
    const tar = join(rootfs, '../', `${rootfs.slice(rootfs.lastIndexOf('/') + 1)}.tar`);
    await execa('tar', ['-C', rootfs, '-cf', tar, '.']);
    await dockerd.docker('import', '--change', 'CMD ["sh"]', tar, busyboxImage);
    await rm(tar);
  } finally {
    await rm(rootfs, { recursive: true, force: true });
  }
}

export async function importPostgres(dockerd: PrivateDockerd): Promise<void> {
  await dockerd.docker('import', await postgresTar(), postgresImage);
}

async function postgresTar(): Promise<string> {
  const release = await readFile('/etc/os-release', 'utf8');
  const suite = /^VERSION_CODENAME=(\w+)$/m.exec(release)?.[1] ?? 'bookworm';
  const key = createHash('sha256').update(`1 ${suite} ${postgresPackages}`).digest('hex').slice(0, 16);
  const tar = join(root, `build/postgres-debian-${key}.tar`);
  if (existsSync(tar)) return tar;
  await mkdir(join(root, 'build'), { recursive: true });
  const fresh = `${tar}.${process.pid}`;
  const excluded = ['doc', 'man', 'info', 'locale'].map(
    (name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`,
  );
  const include = `--include=${postgresPackages.join(',')}`;
  const options = [
    '--quiet',
    '--format=tar',
    '--variant=minbase',
    '--aptopt=APT::Install-Recommends "false"',
    ...excluded,
  ];
  await execa('mmdebstrap', [...options, include, suite, fresh], { stdin: 'ignore', timeout: buildLimitMs });
  await rename(fresh, tar);
  return tar;
}
