import { formatBytes } from '../cli/render.js';
import { UserError } from '../errors.js';
import { nearestNames } from '../quant/nearest.js';
import type { LayerError } from '../load/weight-meter.js';
import type { LayerRow } from './report.js';

type Value = string | number | null;

/** What the numbers of a column are, which decides how they are written and which units they may have. */
export type Quantity = 'text' | 'bytes' | 'count' | 'decibel' | 'share' | 'number';

/** A column of the layer table: what `--sort`, `--filter` and `--fail-if` name. */
export interface Column {
  readonly id: string;
  readonly header: string;
  readonly quantity: Quantity;
  /** Only there after `--measure`. */
  readonly measured: boolean;
  readonly value: (row: LayerRow) => Value;
}

/** In the order they are shown. */
export const COLUMNS: readonly Column[] = [
  text('name', 'Layer', (row) => row.name),
  text('kind', 'Kind', (row) => row.kind),
  text('shape', 'Shape', (row) => row.shape.join(' × ')),
  text('stored', 'Stored', (row) => row.storedType),
  text('scheme', 'Scheme', (row) => row.scheme),
  text('precision', 'Precision', (row) => row.precision),
  number('bytes_before', 'Before', 'bytes', (row) => row.bytesBefore),
  number('bytes_after', 'After', 'bytes', (row) => row.bytesAfter),
  number('bits', 'Bits', 'number', (row) => bitsPerWeight(row)),
  measured('frobenius', 'Rel. error', 'share', 'frobenius'),
  measured('sqnr', 'SQNR', 'decibel', 'sqnrDb'),
  measured('cosine', 'Cosine', 'number', 'cosine'),
  measured('max_abs', 'Max abs', 'number', 'maxAbs'),
  measured('saturated', 'Saturated', 'count', 'saturated'),
  measured('zero_scales', 'Zero scales', 'count', 'zeroScales'),
  text('kernel', 'Kernel', (row) => row.kernel),
  text('rule', 'Rule', (row) => row.rule),
];

/** `bytes` is what a layer takes in memory. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ['bytes', 'bytes_after'],
  ['layer', 'name'],
  ['type', 'stored'],
]);

const DASH = '–';

/**
 * The column of that name; case and `-` for `_` do not matter.
 * @param flag that names it, for messages
 * @throws UserError `usage` with the nearest name
 */
export function findColumn(name: string, flag: string): Column {
  const wanted = name.trim().toLowerCase().replaceAll('-', '_');
  const id = ALIASES.get(wanted) ?? wanted;
  const found = COLUMNS.find((column) => column.id === id);
  if (found !== undefined) return found;
  const ids = COLUMNS.map((column) => column.id);
  throw new UserError(
    'usage',
    `Expected ${flag} to name a column (${ids.join(', ')}) but received ${JSON.stringify(name)}.`,
    { param: flag, suggestions: [`Did you mean ${nearestNames(wanted, ids, 1).join()}?`] },
  );
}

/** A cell as people read it; may hold control characters of names. */
export function formatCell({ quantity, value }: Column, row: LayerRow): string {
  const content = value(row);
  if (content === null) return DASH;
  return typeof content === 'string' ? content : formatQuantity(quantity, content);
}

export function formatQuantity(quantity: Quantity, value: number): string {
  if (value === Infinity) return '∞';
  switch (quantity) {
    case 'bytes':
      return formatBytes(value);
    case 'decibel':
      return `${value.toFixed(1)} dB`;
    case 'share':
      return `${(100 * value).toPrecision(3)} %`;
    case 'count':
      return String(value);
    default:
      return value === 0 ? '0' : value.toPrecision(4);
  }
}

/** Elements of a matrix. */
export function countWeights(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function bitsPerWeight({ shape, bytesAfter }: LayerRow): number {
  const weights = countWeights(shape);
  return weights === 0 ? 0 : (8 * bytesAfter) / weights;
}

function text(id: string, header: string, value: (row: LayerRow) => string | null): Column {
  return { id, header, quantity: 'text', measured: false, value };
}

function number(id: string, header: string, quantity: Quantity, value: Column['value']): Column {
  return { id, header, quantity, measured: false, value };
}

function measured(id: string, header: string, quantity: Quantity, key: keyof LayerError): Column {
  return { id, header, quantity, measured: true, value: ({ error }) => error?.[key] ?? null };
}
