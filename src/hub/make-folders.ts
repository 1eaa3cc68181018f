import { lstat, mkdir, stat } from 'node:fs/promises';
import path from 'node:path';

/**
 * Makes a folder and those above it that are missing, one by one: Node's recursive mkdir never ends below a folder
 * that takes none, like /proc.
 * @param dir absolute
 * @param mode of those that are made
 */
export async function makeFolders(dir: string, mode?: number): Promise<void> {
  for (const each of await findMissingFolders(dir)) {
    await mkdir(each, mode).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    });
  }
  // Fails where a file is in its place, or a link that leads nowhere.
  await stat(`${dir}${path.sep}`);
}

/** Of a folder and those above it, the ones that do not exist; the outermost first. */
export async function findMissingFolders(dir: string): Promise<string[]> {
  const missing: string[] = [];
  for (let at = dir; !(await isThere(at)); at = path.dirname(at)) missing.unshift(at);
  return missing;
}

async function isThere(file: string): Promise<boolean> {
  try {
    await lstat(file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
