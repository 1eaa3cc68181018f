import { UserError } from '../errors.js';
import { mergeJsonObjects, type JsonObject } from './json-values.js';
import type { FlagRow } from './flag-row.js';

/** `--quantization-config.ignore+`, taken apart. */
export interface DottedFlag {
  /** The flag, without dashes. */
  readonly name: string;
  /** The keys below it. */
  readonly path: string;
  /** Present for `--a.b=value`. */
  readonly value: string | undefined;
}

/** The parts of a word that sets one key of a flag, or undefined for any other word. */
export function splitDottedFlag(word: string): DottedFlag | undefined {
  const match = /^--([^.=]+)\.(.*)$/s.exec(word);
  if (match === null) return undefined;
  const [, name = '', rest = ''] = match;
  // `=` of a lookaround belongs to a pattern.
  const [path = '', ...values] = rest.split(/(?<!\(\?<?)=/);
  return {
    name: name.replaceAll('_', '-'),
    path,
    value: values.length === 0 ? undefined : values.join('='),
  };
}

/**
 * The object that one dotted flag stands for: `--a.b.c 1` is `{"b": {"c": 1}}`, `--a.b+ x,y` is
 * `{"b": ["x", "y"]}`. A value that is JSON is taken as such, everything else is text.
 * @throws UserError `usage` for a flag that has no keys, and for an empty key
 */
export function readDottedFlag({ name, path }: DottedFlag, value: string, row: FlagRow): JsonObject {
  if (row.kind !== 'json') {
    throw new UserError('usage', `--${name} takes one value and has no keys, but received .${path}.`, {
      param: name,
      suggestions: [`Write --${name} <value>.`],
    });
  }
  const keys = splitPath(path, row.nameKeys ?? []);
  const last = keys.at(-1) ?? '';
  const isAppended = last.endsWith('+') && !isLayerName(keys, row);
  const full = isAppended ? [...keys.slice(0, -1), last.slice(0, -1)] : keys;
  if (full.some((key) => key === '')) {
    throw new UserError('usage', `Expected keys between the dots of --${name}.${path}.`, {
      param: name,
      suggestions: [`Write --${name}.<key> <value>.`],
    });
  }
  const leaf = isAppended ? listOf(value) : valueOf(value);
  return full.reduceRight<unknown>((inner, key) => Object.fromEntries([[key, inner]]), leaf) as JsonObject;
}

/** One object for all dotted flags of one name, in order. */
export function mergeDottedFlags(name: string, objects: readonly JsonObject[]): JsonObject {
  return mergeJsonObjects(objects, `--${name}`);
}

/** Keys below a key of `nameKeys` are names that have dots themselves. */
function splitPath(path: string, nameKeys: readonly string[]): readonly string[] {
  const dot = path.indexOf('.');
  if (dot < 0) return [path];
  const [first, rest] = [path.slice(0, dot), path.slice(dot + 1)];
  return [first, ...(nameKeys.includes(first) ? [rest] : splitPath(rest, []))];
}

function isLayerName(keys: readonly string[], { nameKeys = [] }: FlagRow): boolean {
  return keys.length > 1 && nameKeys.includes(keys[0] ?? '');
}

function valueOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A JSON list, or texts between commas that no bracket encloses: `re:a{1,2}` is one. */
function listOf(text: string): readonly unknown[] {
  const value = valueOf(text);
  if (Array.isArray(value)) return value as readonly unknown[];
  const items: string[] = [''];
  let depth = 0;
  for (const letter of text) {
    if ('([{'.includes(letter)) depth++;
    if (')]}'.includes(letter)) depth--;
    if (letter === ',' && depth <= 0) items.push('');
    else items.push(`${items.pop() ?? ''}${letter}`);
  }
  return items.map((item) => valueOf(item.trim()));
}
