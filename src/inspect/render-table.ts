import { printableLine } from '../cli/render.js';
import { naturalWidth, printColumns, totalWidth, type TextColumn } from '../cli/text-table.js';
import { formatCell, type Column } from './columns.js';
import type { LayerRow } from './report.js';

/** Columns that may get narrower, in that order, and how narrow. */
const SHRINK: readonly (readonly [id: string, least: number])[] = [
  ['rule', 16],
  ['kernel', 14],
  ['name', 24],
  ['rule', 8],
  ['name', 12],
];
/** Columns that are left out when shrinking is not enough, first to go first. */
const DROP = [
  'kernel',
  'precision',
  'kind',
  'max_abs',
  'cosine',
  'stored',
  'shape',
  'bits',
  'rule',
  'bytes_before',
  'zero_scales',
  'saturated',
  'frobenius',
];

/**
 * The rows as lines of at most `width` columns: texts are cut where that is enough, then columns are left out.
 * Control characters of names are escaped. A width of Infinity shows everything.
 */
export function renderTable(rows: readonly LayerRow[], columns: readonly Column[], width: number): string {
  let shown = columns.map((column) => toShown(column, rows));
  const dropped = [...DROP];
  for (;;) {
    const widths = fitWidths(shown, width);
    if (widths !== undefined) return printColumns(shown, widths);
    const next = dropped.shift();
    if (next === undefined) return printColumns(shown, shown.map(naturalWidth));
    shown = shown.filter(({ id }) => id !== next);
  }
}

interface ShownColumn extends TextColumn {
  readonly id: string;
}

function toShown(column: Column, rows: readonly LayerRow[]): ShownColumn {
  return {
    id: column.id,
    header: column.header,
    cells: rows.map((row) => printableLine(formatCell(column, row))),
    align: column.quantity === 'text' ? 'left' : 'right',
    loses: column.id === 'name' ? 'middle' : 'end',
  };
}

/** Widths that fit, or undefined when cutting texts is not enough. */
function fitWidths(shown: readonly ShownColumn[], width: number): readonly number[] | undefined {
  const widths = shown.map(naturalWidth);
  for (const [id, least] of SHRINK) {
    const index = shown.findIndex((column) => column.id === id);
    const current = widths[index];
    if (current === undefined) continue;
    const excess = totalWidth(widths) - width;
    if (excess > 0) widths[index] = Math.max(Math.min(current, least), current - excess);
  }
  return totalWidth(widths) <= width ? widths : undefined;
}
