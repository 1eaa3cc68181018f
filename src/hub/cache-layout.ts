import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { GENAI_FILE, hasNoModel } from './layout.js';
import { isCommit } from './reference.js';
import type { RepoReference } from './reference.js';

/** Folders in folders of a repository that are looked into. */
const MAX_FOLDERS = 8;

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

/** Folders of a snapshot that hold a model of onnxruntime-genai, when there is no model at its top level. */
export async function findCachedFolders(dir: string): Promise<readonly string[]> {
  const entries = await readdir(dir, { withFileTypes: true });
  if (!hasNoModel(entries.map(({ name }) => name))) return [];
  const folders: string[] = [];
  const walk = async (path: string, depth: number): Promise<void> => {
    const found = await readdir(join(dir, path), { withFileTypes: true });
    if (path !== '' && found.some(({ name }) => name === GENAI_FILE)) folders.push(path);
    if (depth === MAX_FOLDERS) return;
    for (const entry of found)
      if (entry.isDirectory()) await walk(path === '' ? entry.name : `${path}/${entry.name}`, depth + 1);
  };
  await walk('', 0);
  return folders.sort();
}

/** The snapshot a revision names, complete or not, or the folder of it; undefined when the cache has none. */
export async function findSnapshot(
  cacheDir: string,
  { id, revision, folder = '' }: RepoReference,
): Promise<Snapshot | undefined> {
  const cache = getRepoCache(cacheDir, id);
  const commit = await readRef(cache.refs, revision);
  if (commit === undefined) return undefined;
  const dir = join(cache.snapshots, commit, folder);
  return (await isDirectory(dir)) ? { dir, commit } : undefined;
}
