import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isCommit } from './reference.js';
import type { RepoReference } from './reference.js';

/** The folders of one repository in the Hugging Face cache: `models--<org>--<name>/{blobs,refs,snapshots}`. */
export interface RepoCache {
  readonly blobs: string;
  readonly snapshots: string;
  readonly refs: string;
}

export interface Snapshot {
  readonly dir: string;
  readonly commit: string;
}

export function getRepoCache(cacheDir: string, repoId: string): RepoCache {
  const root = join(cacheDir, `models--${repoId.replaceAll('/', '--')}`);
  return { blobs: join(root, 'blobs'), snapshots: join(root, 'snapshots'), refs: join(root, 'refs') };
}

async function readRef(refs: string, revision: string): Promise<string | undefined> {
  if (isCommit(revision)) return revision;
  try {
    const commit = (await readFile(join(refs, revision), 'utf8')).trim();
    return isCommit(commit) ? commit : undefined;
  } catch {
    return undefined;
  }
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}

/** The snapshot a revision names, complete or not; undefined when the cache has none. */
export async function findSnapshot(
  cacheDir: string,
  { id, revision }: RepoReference,
): Promise<Snapshot | undefined> {
  const cache = getRepoCache(cacheDir, id);
  const commit = await readRef(cache.refs, revision);
  if (commit === undefined) return undefined;
  const dir = join(cache.snapshots, commit);
  return (await isDirectory(dir)) ? { dir, commit } : undefined;
}
