import { readFileSync, statSync } from 'node:fs';
import { UserError } from '../errors.js';
import { loadYaml } from './yaml.js';

export type JsonObject = Readonly<Record<string, unknown>>;

/** A config file of a few pages; a model by mistake is none. */
const MAX_FILE_BYTES = 1024 * 1024;
/** References to one YAML anchor: enough for a person, too few to fill memory. */
const MAX_ALIASES = 100;

/**
 * Inline JSON, or `@file` with JSON or YAML. A key that stands twice in one object is an error.
 * @param setting how messages name it, see describeSetting
 * @throws UserError `usage`
 */
export function parseJsonObject(text: string, setting: string): JsonObject {
  const value = text.startsWith('@')
    ? parseFile(text.slice(1), setting)
    : parseText(text, { setting, isYaml: false, where: '' });
  if (isObject(value)) return value;
  throw new UserError('usage', `Expected ${setting} to be a JSON object but received ${shorten(text)}.`, {
    param: setting,
    suggestions: [`Give ${setting} an object: '{"key": "value"}'.`],
  });
}

/**
 * Objects that were given one after the other as one: lists are joined, objects are merged, and anything else that is
 * said twice has to be the same.
 * @throws UserError `usage` naming the key
 */
export function mergeJsonObjects(objects: readonly JsonObject[], setting: string): JsonObject {
  return objects.reduce((merged, object) => mergeTwo(merged, object, { setting, path: [] }), {});
}

interface Place {
  readonly setting: string;
  readonly path: readonly string[];
}

function mergeTwo(a: JsonObject, b: JsonObject, { setting, path }: Place): JsonObject {
  const merged = new Map(Object.entries(a));
  for (const [key, value] of Object.entries(b)) {
    const place = { setting, path: [...path, key] };
    merged.set(key, merged.has(key) ? mergeValues(merged.get(key), value, place) : value);
  }
  return Object.fromEntries(merged);
}

function mergeValues(a: unknown, b: unknown, place: Place): unknown {
  if (isObject(a) && isObject(b)) return mergeTwo(a, b, place);
  if (Array.isArray(a) && Array.isArray(b)) return [...(a as unknown[]), ...(b as unknown[])];
  if (JSON.stringify(a) === JSON.stringify(b)) return a;
  const key = place.path.join('.');
  throw new UserError(
    'usage',
    `Expected one value for "${key}" of ${place.setting} but received ${JSON.stringify(a)} and ${JSON.stringify(b)}.`,
    {
      param: place.setting,
      suggestions: [`Give "${key}" once; a list grows with ${place.setting}.${key}+ <value>.`],
    },
  );
}

function parseFile(path: string, setting: string): unknown {
  const text = readText(path, setting);
  return parseText(text, { setting, isYaml: !path.toLowerCase().endsWith('.json'), where: ` in ${path}` });
}

function readText(path: string, setting: string): string {
  const refuse = (advice: string, cause?: unknown): UserError =>
    new UserError('usage', `Expected ${setting} to name a readable file but received @${path}.`, {
      param: setting,
      suggestions: [advice],
      ...(cause === undefined ? {} : { cause }),
    });
  try {
    const stats = statSync(path);
    // Reading a pipe or a device would wait for ever.
    if (!stats.isFile()) throw refuse('Name a regular file behind the @; a pipe or a folder is none.');
    if (stats.size > MAX_FILE_BYTES) {
      throw refuse(`Name a file of at most ${MAX_FILE_BYTES} bytes; this one has ${stats.size}.`);
    }
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw error instanceof UserError
      ? error
      : refuse(adviseFile((error as NodeJS.ErrnoException).code), error);
  }
}

function adviseFile(code: string | undefined): string {
  if (code === 'ENOENT' || code === 'ENOTDIR') return 'There is no such file: check the path behind the @.';
  if (code === 'EACCES') return 'Give this user read access to the file.';
  return `Check the file and the disk it is on (${code ?? 'unreadable'}).`;
}

interface Source {
  readonly setting: string;
  readonly isYaml: boolean;
  /** ` in file` */
  readonly where: string;
}

function parseText(text: string, { setting, isYaml, where }: Source): unknown {
  try {
    const value: unknown = isYaml ? undefined : JSON.parse(text);
    // JSON is YAML, and its parser says which key stands twice.
    const document = loadYaml().parseDocument(text, { uniqueKeys: true, logLevel: 'error' });
    const problem = document.errors.find(({ code }) => isYaml || code === 'DUPLICATE_KEY');
    if (problem !== undefined) throw problem;
    return isYaml ? document.toJS({ maxAliasCount: MAX_ALIASES }) : value;
  } catch (cause) {
    throw new UserError(
      'usage',
      `Expected ${setting} to be a JSON object but it does not parse${where}: ${messageOf(cause)}.`,
      {
        param: setting,
        cause,
        suggestions: [
          'Quote the object for the shell: \'{"key": "value"}\', or name a file: @settings.json.',
        ],
      },
    );
  }
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const MAX_SHOWN = 80;

function shorten(text: string): string {
  return JSON.stringify(text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}...` : text);
}

function messageOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return (message.split('\n', 1)[0] ?? message).replace(/[.:]$/, '');
}
