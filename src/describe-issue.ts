import type { z } from 'zod';

/** What a value is wrong about, in the words of fdq. */
export interface Mismatch {
  /** `messages[0].role`; '' for the value itself. */
  readonly path: string;
  /** `to be a number but received "x"` */
  readonly text: string;
}

const TYPES: Readonly<Record<string, string>> = {
  number: 'a number',
  int: 'a whole number',
  bigint: 'a whole number',
  string: 'a string',
  boolean: 'true or false',
  array: 'an array',
  object: 'an object',
  record: 'an object',
};
const OTHER_FORM = 'of another form';

/**
 * The error map to parse with: `safeParse(value, { error: nameExpected })`. A schema's own messages are of the same kind,
 * words that follow "Expected x to be".
 */
export function nameExpected(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return isWholeNumber(issue.inst) ? 'a whole number' : (TYPES[issue.expected] ?? issue.expected);
    case 'too_small':
      return sizeText(issue.origin, issue.inclusive === false ? 'above' : 'at least', issue.minimum);
    case 'too_big':
      return sizeText(issue.origin, issue.inclusive === false ? 'below' : 'at most', issue.maximum);
    case 'invalid_value':
      return choiceText(issue.values);
    case 'not_multiple_of':
      return `a multiple of ${String(issue.divisor)}`;
    case 'invalid_format':
      return `a string that matches ${issue.pattern ?? issue.format}`;
    case 'unrecognized_keys':
      return `an object without ${issue.keys.map((key) => JSON.stringify(key)).join(', ')}`;
    default:
      return OTHER_FORM;
  }
}

/** zod asks for a number first, whatever kind of number it wants. */
function isWholeNumber(schema: z.core.$ZodRawIssue['inst']): boolean {
  const definition = schema?._zod.def as { readonly format?: unknown } | undefined;
  return definition?.format === 'safeint';
}

function sizeText(origin: string, comparison: string, limit: number | bigint): string {
  const units: Readonly<Record<string, string>> = { array: 'item', string: 'character' };
  const unit = units[origin];
  if (unit === undefined) return `${comparison} ${limit}`;
  return `${TYPES[origin] ?? origin} of ${comparison} ${limit} ${unit}${Number(limit) === 1 ? '' : 's'}`;
}

function choiceText(values: readonly unknown[]): string {
  const texts = values.map((value) => showValue(value));
  return texts.length === 1 ? texts.join('') : `one of ${texts.join(', ')}`;
}

/** The first thing that is wrong with a value that was parsed with `nameExpected`. */
export function describeMismatch({ issues }: z.ZodError, value: unknown): Mismatch {
  const [issue] = issues;
  if (issue === undefined) return { path: '', text: 'to be of another form' };
  return describeIssue(issue, { value, base: [] });
}

interface Place {
  readonly value: unknown;
  readonly base: readonly PropertyKey[];
}

function describeIssue(issue: z.core.$ZodIssue, { value, base }: Place): Mismatch {
  const path = [...base, ...issue.path];
  const deeper =
    issue.code === 'invalid_union' && issue.message === OTHER_FORM ? deepest(issue.errors) : undefined;
  if (deeper !== undefined) return describeIssue(deeper, { value, base: path });
  if (issue.code === 'invalid_key') {
    const what = issue.issues[0]?.message ?? issue.message;
    return { path: pathText(path), text: `to have ${what} as its key` };
  }
  const received = path.reduce<unknown>(
    (at, key) => (at as Readonly<Record<PropertyKey, unknown>> | null | undefined)?.[key],
    value,
  );
  return { path: pathText(path), text: `to be ${issue.message} but received ${showValue(received)}` };
}

/** Of a union, what is wrong in the branch that got furthest. */
function deepest(branches: readonly (readonly z.core.$ZodIssue[])[]): z.core.$ZodIssue | undefined {
  const first = branches.map(([issue]) => issue).filter((issue) => issue !== undefined);
  return first.find(({ path }) => path.length > 0) ?? (first.length === 1 ? first[0] : undefined);
}

function pathText(path: readonly PropertyKey[]): string {
  return path
    .map((part, i) => (typeof part === 'number' ? `[${part}]` : `${i === 0 ? '' : '.'}${String(part)}`))
    .join('');
}

const MAX_SHOWN = 64;

/** Short enough for a message: what is larger is named by its kind. */
function showValue(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty array' : `an array of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value === 'bigint') return `${value}`;
  if (typeof value !== 'string') return JSON.stringify(value);
  return JSON.stringify(value.length > MAX_SHOWN ? `${value.slice(0, MAX_SHOWN)}...` : value);
}
