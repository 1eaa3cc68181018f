import { access, constants, lstat, readdir, realpath, statfs } from 'node:fs/promises';
import path from 'node:path';
import { UserError } from '../errors.js';
import { writeFailure } from '../load/folder/write-problems.js';

/** Entries that only an earlier conversion, or a copy of a model, has. */
const MODEL_FILES = /^(?:fdq\.json|config\.json|genai_config\.json|.*\.onnx|.*\.safetensors)$/;

/**
 * The output folder as an absolute path that may be written.
 * @throws UserError `output_exists` when something is there and `force` is not set, or when replacing it would destroy
 *   more than an earlier conversion; `write_failed` when the parent does not exist or may not be written to
 * @param source folder of the model; absent: not known yet
 */
export async function checkTarget(
  output: string,
  { force, source }: { readonly force: boolean; readonly source?: string },
): Promise<string> {
  const target = path.resolve(output);
  await checkParent(target);
  const found = await lstat(target).catch(() => undefined);
  if (found === undefined) return target;
  if (!found.isDirectory()) throw occupied(target, 'it is not a folder', 'Choose another output folder.');
  const names = await readdir(target);
  if (names.length === 0) return target;
  if (!force) {
    throw occupied(target, 'it exists already', 'Choose another folder, or replace this one: --force.');
  }
  const [real, ...inner] = await Promise.all(
    [target, process.cwd(), ...(source === undefined ? [] : [source])].map((folder) => realpath(folder)),
  );
  if (inner.some((folder) => isInside(folder, real as string))) {
    throw occupied(
      target,
      'replacing it would remove the model or the current folder',
      'Choose another folder.',
    );
  }
  const foreign = await findForeign(target, names);
  if (foreign === undefined) return target;
  throw occupied(
    target,
    `it holds ${foreign}, so --force does not replace it`,
    'Choose another folder, or remove this one by hand.',
  );
}

/** The output is written beside its place. */
async function checkParent(target: string): Promise<void> {
  try {
    await access(path.dirname(target), constants.W_OK | constants.X_OK);
  } catch (error) {
    throw writeFailure(target, error);
  }
}

/** What makes a folder something else than a model: nothing of a model in it, or folders. */
async function findForeign(target: string, names: readonly string[]): Promise<string | undefined> {
  if (!names.some((name) => MODEL_FILES.test(name))) return 'no model';
  for (const name of names) {
    if (name === 'additional_chat_templates') continue;
    if (!(await lstat(path.join(target, name))).isFile()) return `${JSON.stringify(name)}, which is no file`;
  }
  return undefined;
}

function isInside(inner: string, outer: string): boolean {
  const relative = path.relative(outer, inner);
  return relative === '' || (!relative.startsWith('..') && !path.isAbsolute(relative));
}

function occupied(target: string, why: string, suggestion: string): UserError {
  return new UserError('output_exists', `Cannot write to ${JSON.stringify(target)}: ${why}.`, {
    param: 'output',
    suggestions: [suggestion],
  });
}

/**
 * Compares what will be written with the free space of the disk.
 * @throws UserError `write_failed` with both figures
 */
export async function checkFreeSpace(target: string, bytes: number): Promise<void> {
  const free = await statfs(path.dirname(target)).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => Infinity,
  );
  if (bytes <= free) return;
  const mib = (value: number): string => `${Math.ceil(value / 1024 ** 2)} MiB`;
  throw new UserError(
    'write_failed',
    `The output takes up to ${mib(bytes)}, but the disk of ${JSON.stringify(target)} has ${mib(free)} left.`,
    { param: 'output', suggestions: ['Free some space, or write to another disk.'] },
  );
}
