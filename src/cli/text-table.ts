import Table from 'cli-table3';
import stringWidth from 'string-width';

/** A column of a table for people: one cell a row, none with a line break. */
export interface TextColumn {
  /** Its lines stand one above the other. */
  readonly header: string;
  readonly cells: readonly string[];
  readonly align: 'left' | 'right';
  /** What a cell that is too wide loses: names lose their middle, for their ends tell them apart. */
  readonly loses: 'middle' | 'end';
}

/** Blanks between columns. */
export const COLUMN_GAP = 2;

const ELLIPSIS = '…';
const GRAPHEMES = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** Borderless: blanks between columns, nothing else. */
const CHARS = Object.fromEntries(
  [
    ...['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'],
    ...['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'],
  ].map((part) => [part, '']),
);

/** Terminal columns that the widest cell takes. */
export function naturalWidth({ header, cells }: TextColumn): number {
  const widest = Math.max(...header.split('\n').map((line) => stringWidth(line)));
  return cells.reduce((width, cell) => Math.max(width, stringWidth(cell)), widest);
}

/** Terminal columns that columns of these widths take side by side. */
export function totalWidth(widths: readonly number[]): number {
  return widths.reduce((sum, each) => sum + each, COLUMN_GAP * Math.max(0, widths.length - 1));
}

/** The columns as lines; cells wider than their column are cut. */
export function printColumns(columns: readonly TextColumn[], widths: readonly number[]): string {
  const fit = (text: string, index: number): string => {
    const column = columns[index];
    return column === undefined ? text : cut(text, widths[index] ?? 0, column.loses);
  };
  const table = new Table({
    chars: { ...CHARS, middle: ' '.repeat(COLUMN_GAP) },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [], compact: true },
    head: columns.map(({ header }, index) =>
      header
        .split('\n')
        .map((line) => fit(line, index))
        .join('\n'),
    ),
    colWidths: [...widths],
    colAligns: columns.map(({ align }) => align),
  });
  const rows = columns[0]?.cells.length ?? 0;
  for (let row = 0; row < rows; row++) {
    table.push(columns.map(({ cells }, index) => fit(cells[row] ?? '', index)));
  }
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

function cut(text: string, width: number, loses: TextColumn['loses']): string {
  if (stringWidth(text) <= width) return text;
  const characters = [...GRAPHEMES.segment(text)].map(({ segment }) => segment);
  const keep = Math.max(1, width - 1);
  const head = loses === 'middle' ? Math.floor(keep / 3) : keep;
  return `${takeStart(characters, head)}${ELLIPSIS}${takeEnd(characters, keep - head)}`;
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
