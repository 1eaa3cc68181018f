import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  decoderFileOf,
  findLayout,
  GRAPH_FILE,
  listGenaiFiles,
  MANIFEST_FILE,
  readGenaiJson,
  WEIGHTS_FILE,
} from './layout.js';
import { createFolderSource } from './model-source.js';
import { INDEX_FILE, readWeightIndex, SINGLE_FILE } from './weight-files.js';

async function isFileThere(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

async function listMissing(dir: string, names: readonly string[]): Promise<readonly string[]> {
  const missing: string[] = [];
  for (const name of names) if (!(await isFileThere(join(dir, name)))) missing.push(name);
  return missing;
}

/** The files without which a snapshot cannot be served and that are not there; links must lead to a file. */
export async function listMissingFiles(dir: string): Promise<readonly string[]> {
  const names = await readdir(dir);
  const layout = findLayout(names);
  if (layout === 'fdq') return listMissing(dir, [MANIFEST_FILE, 'config.json', GRAPH_FILE, WEIGHTS_FILE]);
  if (layout === 'genai') {
    const source = createFolderSource(dir, names);
    const decoder = decoderFileOf(await readGenaiJson(source));
    if (!(await isFileThere(join(dir, decoder)))) return [decoder];
    return listMissing(dir, await listGenaiFiles(decoder, source));
  }
  const missing = await listMissing(dir, ['config.json']);
  if (await isFileThere(join(dir, SINGLE_FILE))) return missing;
  if (!(await isFileThere(join(dir, INDEX_FILE)))) return [...missing, SINGLE_FILE];
  const { shards } = await readWeightIndex(join(dir, INDEX_FILE));
  return [...missing, ...(await listMissing(dir, shards))];
}
