import Table from 'cli-table3';
import stringWidth from 'string-width';
import { printable } from '../cli/render.js';
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
const GAP = 2;
const ELLIPSIS = '…';
const GRAPHEMES = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** Borderless: two blanks between columns, nothing else. */
const CHARS = Object.fromEntries(
  [
    ...['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'],
    ...['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'],
  ].map((part) => [part, '']),
);

/**
 * The rows as lines of at most `width` columns: texts are cut where that is enough, then columns are left out.
 * Control characters of names are escaped. A width of Infinity shows everything.
 */
export function renderTable(rows: readonly LayerRow[], columns: readonly Column[], width: number): string {
  let shown = columns.map((column) => ({
    column,
    cells: rows.map((row) => oneLine(formatCell(column, row))),
  }));
  const dropped = [...DROP];
  for (;;) {
    const widths = fitWidths(shown, width);
    if (widths !== undefined) return print(shown, widths);
    const next = dropped.shift();
    if (next === undefined) return print(shown, naturalWidths(shown));
    shown = shown.filter(({ column }) => column.id !== next);
  }
}

interface ShownColumn {
  readonly column: Column;
  readonly cells: readonly string[];
}

function oneLine(text: string): string {
  return printable(text).replaceAll('\n', '\\n');
}

function naturalWidths(shown: readonly ShownColumn[]): number[] {
  return shown.map(({ column, cells }) =>
    cells.reduce((widest, cell) => Math.max(widest, stringWidth(cell)), stringWidth(column.header)),
  );
}

/** Widths that fit, or undefined when cutting texts is not enough. */
function fitWidths(shown: readonly ShownColumn[], width: number): readonly number[] | undefined {
  const widths = naturalWidths(shown);
  const total = (): number => widths.reduce((sum, each) => sum + each, GAP * (widths.length - 1));
  for (const [id, least] of SHRINK) {
    const index = shown.findIndex(({ column }) => column.id === id);
    const current = widths[index];
    if (current === undefined) continue;
    const excess = total() - width;
    if (excess > 0) widths[index] = Math.max(Math.min(current, least), current - excess);
  }
  return total() <= width ? widths : undefined;
}

function print(shown: readonly ShownColumn[], widths: readonly number[]): string {
  const table = new Table({
    chars: { ...CHARS, middle: ' '.repeat(GAP) },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [], compact: true },
    head: shown.map(({ column }, index) => cut(column, column.header, widths[index] ?? 0)),
    colWidths: [...widths],
    colAligns: shown.map(({ column }) => (column.quantity === 'text' ? 'left' : 'right')),
  });
  const rows = shown[0]?.cells.length ?? 0;
  for (let row = 0; row < rows; row++) {
    table.push(shown.map(({ column, cells }, index) => cut(column, cells[row] ?? '', widths[index] ?? 0)));
  }
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** Names lose their middle, for their ends tell them apart; other texts lose their end. */
function cut({ id }: Column, text: string, width: number): string {
  if (stringWidth(text) <= width) return text;
  const characters = [...GRAPHEMES.segment(text)].map(({ segment }) => segment);
  const keep = Math.max(1, width - 1);
  const head = id === 'name' ? Math.floor(keep / 3) : keep;
  const tail = keep - head;
  return `${takeStart(characters, head)}${ELLIPSIS}${takeEnd(characters, tail)}`;
}

function takeStart(characters: readonly string[], width: number): string {
  let text = '';
  for (const character of characters) {
    if (stringWidth(text + character) > width) break;
    text += character;
  }
  return text;
}

function takeEnd(characters: readonly string[], width: number): string {
  let text = '';
  for (let at = characters.length - 1; at >= 0; at--) {
    const longer = (characters[at] ?? '') + text;
    if (stringWidth(longer) > width) break;
    text = longer;
  }
  return text;
}
