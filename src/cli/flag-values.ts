import { UnsupportedError, UserError } from '../errors.js';
import type { FlagRow } from './flag-row.js';
import { parseJsonObject } from './json-values.js';
import { nearest } from './nearest.js';

/** Where a setting came from, strongest first. */
export type Origin =
  | { readonly kind: 'flag' }
  | { readonly kind: 'environment'; readonly variable: string }
  | { readonly kind: 'file'; readonly path: string; readonly line: number }
  | { readonly kind: 'default' };

/** `--port`, or `port (line 3 of fdq.yaml)`, or `FDQ_PORT`. */
export function describeSetting(flag: string, origin: Origin): string {
  if (origin.kind === 'environment') return `${origin.variable} (--${flag})`;
  if (origin.kind === 'file') return `${flag} (line ${origin.line} of ${origin.path})`;
  return `--${flag}`;
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1024,
  kib: 1024,
  kb: 1000,
  m: 1024 ** 2,
  mib: 1024 ** 2,
  mb: 1000 ** 2,
  g: 1024 ** 3,
  gib: 1024 ** 3,
  gb: 1000 ** 3,
  t: 1024 ** 4,
  tib: 1024 ** 4,
  tb: 1000 ** 4,
};

/** `32k` of a context length means 32768 tokens. */
const LENGTH_UNITS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2 };

/**
 * Text of a flag as the value its row asks for.
 * @param setting how messages name it, see describeSetting
 * @throws UserError `usage`: "Expected X to be Y but received Z."
 */
export function convertValue(row: FlagRow, setting: string, text: string): unknown {
  switch (row.kind) {
    case 'text':
      return text;
    case 'choice':
      return parseChoice(row, setting, text);
    case 'boolean':
      return parseBoolean(setting, text);
    case 'integer':
      return parseNumber({ row, setting, text }, /^-?\d+$/, 'a whole number');
    case 'number':
      return parseNumber({ row, setting, text }, /^-?\d+(\.\d+)?([eE]-?\d+)?$/, 'a number');
    case 'port':
      return parsePort(setting, text);
    case 'size':
      return parseUnits({ row, setting, text }, SIZE_UNITS, 'a size like 8GiB');
    case 'length':
      return parseUnits({ row, setting, text }, LENGTH_UNITS, 'a number of tokens like 4096 or 32k');
    case 'json':
      return parseJsonObject(text, setting);
    case 'list':
      return [text];
  }
}

interface Input {
  readonly row: FlagRow;
  readonly setting: string;
  readonly text: string;
}

function expected(setting: string, what: string, received: string, suggestion?: string): UserError {
  return new UserError(
    'usage',
    `Expected ${setting} to be ${what} but received ${JSON.stringify(received)}.`,
    {
      param: setting,
      suggestions: [suggestion ?? `Give ${setting} ${what}.`],
    },
  );
}

function parseChoice(row: FlagRow, setting: string, text: string): string {
  const options = row.options ?? [];
  if (options.includes(text)) return text;
  const lower = text.toLowerCase();
  if (row.spellings !== undefined && options.includes(lower)) return lower;
  const spelled = ownValue(row.spellings, lower);
  if (spelled !== undefined) return spelled;
  const reason = ownValue(row.refused, text);
  if (reason !== undefined) {
    throw new UnsupportedError('usage', `${setting} ${text} is not supported: ${reason}.`, {
      param: setting,
      suggestions: [`Supported: ${options.join(', ')}.`],
    });
  }
  const list =
    options.length === 1
      ? `${options[0] ?? ''} (the only value of this version)`
      : `one of ${options.join(', ')}`;
  const guess = nearest(text, options);
  throw expected(setting, list, text, guess === undefined ? undefined : `Did you mean ${guess}?`);
}

function ownValue(table: Readonly<Record<string, string>> | undefined, key: string): string | undefined {
  return table !== undefined && Object.hasOwn(table, key) ? table[key] : undefined;
}

function parseBoolean(setting: string, text: string): boolean {
  const lower = text.toLowerCase();
  if (['true', '1', 'yes', 'on'].includes(lower)) return true;
  if (['false', '0', 'no', 'off', ''].includes(lower)) return false;
  throw expected(setting, 'true or false', text);
}

function parseNumber({ row, setting, text }: Input, form: RegExp, what: string): number {
  const value = Number(text);
  const { min = -Infinity, max = Number.MAX_SAFE_INTEGER } = row;
  if (form.test(text.trim()) && value >= min && value <= max) return value;
  throw expected(setting, `${what}${rangeText(row)}`, text);
}

function rangeText({ min, max }: FlagRow): string {
  if (min !== undefined && max !== undefined) return ` from ${min} to ${max}`;
  if (min !== undefined) return ` of at least ${min}`;
  return max === undefined ? '' : ` of at most ${max}`;
}

const KUBERNETES_PORT = /^[a-z]+:\/\//;

function parsePort(setting: string, text: string): number {
  const value = Number(text);
  if (/^\d{1,5}$/.test(text) && value <= 65_535) return value;
  // A Kubernetes Service called `fdq` sets FDQ_PORT=tcp://10.0.0.1:8000 in every pod beside it.
  const suggestion = KUBERNETES_PORT.test(text)
    ? 'Kubernetes sets this for a Service named fdq: rename it, or set enableServiceLinks: false in the pod.'
    : undefined;
  throw expected(setting, 'a port from 0 to 65535', text, suggestion);
}

function parseUnits(
  { row, setting, text }: Input,
  units: Readonly<Record<string, number>>,
  what: string,
): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-zA-Z]*)$/.exec(text.trim());
  const unit = match === null ? undefined : units[(match[2] ?? '').toLowerCase()];
  const value = match === null || unit === undefined ? Number.NaN : Math.round(Number(match[1]) * unit);
  if (value >= (row.min ?? 0) && value <= Number.MAX_SAFE_INTEGER) return value;
  throw expected(setting, what, text);
}
