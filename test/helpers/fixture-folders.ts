import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

const FIXTURES = fileURLToPath(new URL('../fixtures', import.meta.url));

/** Every fixture folder that has golden_tokenizer.json, by model name. */
export function tokenizerFolders(): ReadonlyMap<string, string> {
  const folders = new Map<string, string>();
  for (const place of ['models', 'tokenizers']) {
    for (const name of readdirSync(join(FIXTURES, place))) {
      const dir = join(FIXTURES, place, name);
      if (existsSync(join(dir, 'golden_tokenizer.json'))) folders.set(name, dir);
    }
  }
  return folders;
}

export function tokenizerFolder(name: string): string {
  const dir = tokenizerFolders().get(name);
  if (dir === undefined) throw new Error(`no fixture folder ${name}`);
  return dir;
}
