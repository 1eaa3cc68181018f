import { UserError } from '../errors.js';
import { findColumn, formatQuantity, type Column, type Quantity } from './columns.js';
import { BYTE_UNITS, COMPARISONS, parseQuantity, type Units } from './quantities.js';
import type { LayerRow } from './report.js';

/** A comparison of one column with a value, e.g. `sqnr<15dB` or `name~q_proj$`. */
export interface Condition {
  /** As written. */
  readonly text: string;
  readonly column: Column;
  /** False where the row has no value in the column. */
  readonly holds: (row: LayerRow) => boolean;
}

/** `column operator value`. */
const FORM = /^\s*([A-Za-z_-]+)\s*(<=|>=|!=|==|<|>|=|~)\s*(.*?)\s*$/s;

/** Units of each quantity as factors; '' where none needs to be written. */
const UNITS: Readonly<Record<Exclude<Quantity, 'text'>, Units>> = {
  bytes: BYTE_UNITS,
  decibel: { '': 1, db: 1 },
  share: { '': 1, '%': 0.01 },
  count: { '': 1 },
  number: { '': 1 },
};

const UNIT_NAMES: Readonly<Record<keyof typeof UNITS, string>> = {
  bytes: 'a size like 400MiB',
  decibel: 'decibels like 15dB',
  share: 'a share like 0.05 or 5%',
  count: 'a whole number',
  number: 'a number',
};

/**
 * Reads `<column><operator><value>[unit]`. Numbers take < <= > >= = !=, texts = != and ~, a regular expression that
 * ignores case.
 * @param flag that holds it, for messages
 * @throws UserError `usage`
 */
export function parseCondition(text: string, flag: string): Condition {
  const [, name, operator, value] = FORM.exec(text) ?? [];
  if (name === undefined || operator === undefined || value === undefined || value === '') {
    throw invalid(flag, text, 'a comparison like sqnr<15dB', ["Quote it for the shell: 'sqnr<15dB'."]);
  }
  const column = findColumn(name, flag);
  const holds = column.quantity === 'text' ? textTest : numberTest;
  return { text: text.trim(), column, holds: holds({ text, flag, column, operator, value }) };
}

/** Rows for which all conditions hold. */
export function filterRows(rows: readonly LayerRow[], conditions: readonly Condition[]): readonly LayerRow[] {
  return rows.filter((row) => conditions.every(({ holds }) => holds(row)));
}

/** How `--sort` orders rows. */
export interface Sorting {
  readonly column: Column;
  readonly descending: boolean;
}

/**
 * Reads `column`, `column:asc` or `column:desc`. Numbers come largest first unless told otherwise.
 * @throws UserError `usage`
 */
export function parseSorting(text: string): Sorting {
  const [name = '', order] = text.split(':', 2);
  const column = findColumn(name, '--sort');
  if (order === undefined) return { column, descending: column.quantity !== 'text' };
  if (order !== 'asc' && order !== 'desc') {
    throw invalid('--sort', text, 'column, column:asc or column:desc', [`Write ${column.id}:desc.`]);
  }
  return { column, descending: order === 'desc' };
}

/** Rows in that order, equal ones as they were; rows without a value come last. */
export function sortRows(rows: readonly LayerRow[], { column, descending }: Sorting): readonly LayerRow[] {
  const direction = descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const x = column.value(a);
    const y = column.value(b);
    if (x === null || y === null) return Number(x === null) - Number(y === null);
    if (typeof x === 'number' && typeof y === 'number') return x === y ? 0 : direction * (x < y ? -1 : 1);
    return direction * String(x).localeCompare(String(y), 'en', { numeric: true });
  });
}

/** Layers for which some condition holds, with what they have in its column. */
export function findFailures(rows: readonly LayerRow[], conditions: readonly Condition[]): readonly string[] {
  return conditions.flatMap((condition) =>
    rows
      .filter((row) => condition.holds(row))
      .map((row) => {
        const value = condition.column.value(row);
        const shown =
          typeof value === 'number' ? formatQuantity(condition.column.quantity, value) : String(value);
        return `${row.name}: ${condition.column.id} ${shown} (${condition.text})`;
      }),
  );
}

interface Comparison {
  readonly text: string;
  readonly flag: string;
  readonly column: Column;
  readonly operator: string;
  readonly value: string;
}

function textTest({ text, flag, column, operator, value }: Comparison): Condition['holds'] {
  const wanted = value.toLowerCase();
  if (operator === '=' || operator === '==') return (row) => textOf(column, row)?.toLowerCase() === wanted;
  if (operator === '!=') return (row) => (textOf(column, row)?.toLowerCase() ?? wanted) !== wanted;
  if (operator !== '~') {
    throw invalid(flag, text, `${column.id} with =, != or ~, as it is a text`, [
      `Write ${column.id}=${value}.`,
    ]);
  }
  let pattern: RegExp;
  try {
    pattern = new RegExp(value, 'iu');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw invalid(flag, text, 'a regular expression after ~', [reason]);
  }
  return (row) => pattern.test(textOf(column, row) ?? '');
}

function textOf(column: Column, row: LayerRow): string | null {
  const value = column.value(row);
  return value === null ? null : String(value);
}

function numberTest({ text, flag, column, operator, value }: Comparison): Condition['holds'] {
  const quantity = column.quantity as keyof typeof UNITS;
  const limit = parseQuantity(value, UNITS[quantity]);
  const compare = COMPARISONS[operator];
  if (compare === undefined) {
    throw invalid(flag, text, `${column.id} with <, <=, >, >=, = or !=, as it is a number`, [
      `Write ${column.id}<${value}.`,
    ]);
  }
  if (limit === undefined) {
    throw invalid(flag, text, `${UNIT_NAMES[quantity]} after ${operator}`, [
      `Write ${column.id}${operator} and ${UNIT_NAMES[quantity]}.`,
    ]);
  }
  return (row) => {
    const actual = column.value(row);
    return typeof actual === 'number' && compare(actual, limit);
  };
}

function invalid(flag: string, text: string, what: string, suggestions: readonly string[]): UserError {
  return new UserError('usage', `Expected ${flag} to be ${what} but received ${JSON.stringify(text)}.`, {
    param: flag,
    suggestions,
  });
}
