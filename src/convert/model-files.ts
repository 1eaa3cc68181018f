import { access, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { resolveModelFile, listFolder } from '../hub/weight-files.js';
import { readSmallFile } from '../hub/weight-file.js';
import { writeFailure } from '../load/folder/write-problems.js';

/** Files that go with the weights: configuration, tokenizer, chat templates and licences. */
const SMALL_FILE =
  /^(?:config|generation_config|tokenizer[\w.-]*|special_tokens_map|added_tokens|vocab|chat_template[\w.-]*)\.json$|^(?:merges\.txt|tokenizer\.model|chat_template[\w.-]*\.jinja|LICEN[CS]E[\w.-]*|NOTICE[\w.-]*)$/;
const TEMPLATES = 'additional_chat_templates';
const MAX_BYTES = 256 * 1024 * 1024;

/**
 * Copies the small files of a model folder that `to` does not have yet. Links are followed as far as a model folder may
 * have them, and copied as files.
 * @param extra names of more such files
 * @throws UserError `invalid_checkpoint`, `write_failed`
 */
export async function copyModelFiles(from: string, to: string, extra: readonly string[] = []): Promise<void> {
  const names = await listFolder(from);
  const isWanted = (name: string): boolean => SMALL_FILE.test(name) || extra.includes(name);
  for (const name of names.filter(isWanted)) await copyFile(from, to, name);
  if (!names.includes(TEMPLATES)) return;
  const templates = path.join(from, TEMPLATES);
  await mkdir(path.join(to, TEMPLATES));
  for (const name of (await listFolder(templates)).filter((each) => each.endsWith('.jinja'))) {
    await copyFile(templates, path.join(to, TEMPLATES), name);
  }
}

async function copyFile(from: string, to: string, name: string): Promise<void> {
  const target = path.join(to, name);
  if (await exists(target)) return;
  const bytes = await readSmallFile(await resolveModelFile(from, name), MAX_BYTES);
  try {
    await writeFile(target, bytes, { flag: 'wx' });
  } catch (error) {
    throw writeFailure(target, error);
  }
}

function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
