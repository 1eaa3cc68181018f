import { UserError } from '../errors.js';
import { printable, quote } from './quote.js';

export interface StrictJsonOptions {
  /** What is parsed, for messages: a file name. */
  readonly what: string;
  readonly maxDepth: number;
  /** Refuse every number that is not written as a plain non-negative integer. */
  readonly integersOnly?: boolean;
}

/** Values and containers in one document: bounds the memory that parsing takes. */
const MAX_VALUES = 1 << 22;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const COMMA = 0x2c;
const PLUS = 0x2b;
const MINUS = 0x2d;
const POINT = 0x2e;
const UPPER_E = 0x45;
const LOWER_E = 0x65;
const ZERO = 0x30;
const NINE = 0x39;

function refuse(what: string, problem: string, cause?: unknown): UserError {
  return new UserError('invalid_checkpoint', `Expected strict JSON in ${what} but ${problem}.`, {
    param: what,
    suggestions: [`Fetch ${what} again from where the model was published.`],
    cause,
  });
}

/** Index of the quote that ends the string starting at `start`; the text's length when nothing ends it. */
function findStringEnd(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  while (end !== -1) {
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return end;
    end = text.indexOf('"', end + 1);
  }
  return text.length;
}

function decodeKey(raw: string): string {
  if (!raw.includes('\\')) return raw;
  try {
    return JSON.parse(`"${raw}"`) as string;
  } catch {
    // An invalid escape: the parse that follows reports it.
    return raw;
  }
}

function isFractionOrSign(text: string, index: number, code: number): boolean {
  if (code === MINUS || code === PLUS || code === POINT) return true;
  if (code !== LOWER_E && code !== UPPER_E) return false;
  const before = text.charCodeAt(index - 1);
  return before >= ZERO && before <= NINE;
}

/**
 * Finds what JSON.parse lets through: duplicate keys (it keeps the last one), nesting that overflows a later
 * recursive walk, `__proto__` keys, and numbers that are rounded silently. Linear, without recursion.
 */
function scan(text: string, { what, maxDepth, integersOnly = false }: StrictJsonOptions): void {
  // One entry per open container: the keys seen so far, or undefined for an array.
  const open: (Set<string> | undefined)[] = [];
  let isKeyNext = false;
  let values = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === QUOTE) {
      const end = findStringEnd(text, index);
      const keys = open.at(-1);
      if (isKeyNext && keys !== undefined) {
        const key = decodeKey(text.slice(index + 1, end));
        if (keys.has(key)) throw refuse(what, `the key ${quote(key)} appears twice`);
        if (key === '__proto__') throw refuse(what, 'a key is named "__proto__"');
        keys.add(key);
        isKeyNext = false;
      }
      index = end;
    } else if (code === OPEN_OBJECT || code === OPEN_ARRAY) {
      if (open.length >= maxDepth) throw refuse(what, `it is nested deeper than ${maxDepth} levels`);
      isKeyNext = code === OPEN_OBJECT;
      open.push(isKeyNext ? new Set() : undefined);
      values++;
    } else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) {
      open.pop();
      isKeyNext = false;
    } else if (code === COMMA) {
      isKeyNext = open.at(-1) !== undefined;
      values++;
    } else if (integersOnly && isFractionOrSign(text, index, code)) {
      throw refuse(what, `the number at character ${index} is not a plain non-negative integer`);
    }
    if (values > MAX_VALUES) throw refuse(what, `it holds more than ${MAX_VALUES} values`);
  }
}

/**
 * JSON from an untrusted file: UTF-8 and syntax are checked, duplicate keys, `__proto__` and deep nesting refused.
 *
 * @throws UserError `invalid_checkpoint` naming `what`.
 */
export function parseStrictJson(bytes: Uint8Array, options: StrictJsonOptions): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw refuse(options.what, 'it is not valid UTF-8', error);
  }
  scan(text, options);
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw refuse(options.what, `it does not parse: ${printable((error as Error).message)}`, error);
  }
}

/** @throws UserError `invalid_checkpoint` when the top level is not an object. */
export function parseStrictJsonObject(
  bytes: Uint8Array,
  options: StrictJsonOptions,
): Record<string, unknown> {
  const value = parseStrictJson(bytes, options);
  if (!isJsonObject(value))
    throw refuse(options.what, `the top level is ${describeJson(value)}, not an object`);
  return value;
}

export function isJsonObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A JSON value in a few words, for messages. */
export function describeJson(value: unknown): string {
  if (value === undefined) return 'missing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'string') return `the string ${quote(value)}`;
  return typeof value === 'number' || typeof value === 'boolean'
    ? `the ${typeof value} ${value}`
    : typeof value;
}
