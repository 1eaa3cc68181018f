import { formatBytes, printable } from '../cli/render.js';
import { formatQuantity } from './columns.js';
import { escapeHtml } from './html-escape.js';
import type { LayerRow } from './report.js';

const WIDTH = 1200;
const LEFT = 70;
const TOP = 14;
const BYTES_HEIGHT = 200;
const ERROR_HEIGHT = 120;
const GAP = 34;
const TICKS = 4;

/** Told apart by people who confuse red and green (Okabe and Ito). */
export const CHART_COLORS = [
  '#0072b2',
  '#e69f00',
  '#009e73',
  '#cc79a7',
  '#56b4e9',
  '#d55e00',
  '#f0e442',
  '#999999',
];

/** The schemes of the rows, each with its colour. */
export function schemeColors(rows: readonly LayerRow[]): ReadonlyMap<string, string> {
  const schemes = [...new Set(rows.map(({ scheme }) => scheme))];
  return new Map(
    schemes.map((scheme, index) => [scheme, CHART_COLORS[index % CHART_COLORS.length] as string]),
  );
}

/**
 * Bytes of every layer before and after as bars, in the order of the graph, and its relative error below them where
 * it was measured: one inline SVG.
 */
export function renderChart(rows: readonly LayerRow[]): string {
  const isMeasured = rows.some(({ error }) => error !== null);
  const height = TOP + BYTES_HEIGHT + (isMeasured ? GAP + ERROR_HEIGHT : 0) + GAP;
  const colors = schemeColors(rows);
  const largestBytes = rows.reduce(
    (largest, { bytesBefore, bytesAfter }) => Math.max(largest, bytesBefore ?? 0, bytesAfter),
    1,
  );
  const largestError = rows.reduce(
    (largest, { error }) => Math.max(largest, error === null ? 0 : finite(error.frobenius)),
    0,
  );
  const bytes: Panel = { top: TOP, height: BYTES_HEIGHT, largest: largestBytes };
  const errors: Panel = { top: TOP + BYTES_HEIGHT + GAP, height: ERROR_HEIGHT, largest: largestError || 1 };
  const step = (WIDTH - LEFT) / Math.max(1, rows.length);
  const bars = rows.map((row, index) =>
    renderLayer(row, { x: LEFT + index * step, step, bytes, errors, color: colors.get(row.scheme) ?? '' }),
  );
  return [
    `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="Bytes and error of every layer">`,
    renderAxis(bytes, formatBytes, 'bytes before (grey) and after'),
    ...(isMeasured
      ? [renderAxis(errors, (value) => formatQuantity('share', value), 'relative error, ‖w − r‖ / ‖w‖')]
      : []),
    ...bars,
    '</svg>',
  ].join('\n');
}

interface Panel {
  readonly top: number;
  readonly height: number;
  readonly largest: number;
}

interface Bar {
  readonly x: number;
  readonly step: number;
  readonly bytes: Panel;
  readonly errors: Panel;
  readonly color: string;
}

function renderAxis(
  { top, height, largest }: Panel,
  format: (value: number) => string,
  title: string,
): string {
  const lines = Array.from({ length: TICKS + 1 }, (_, tick) => {
    const y = round(top + height - (height * tick) / TICKS);
    const label = format((largest * tick) / TICKS);
    return (
      `<line class="axis" x1="${LEFT}" x2="${WIDTH}" y1="${y}" y2="${y}"/>` +
      `<text x="${LEFT - 6}" y="${y + 4}" text-anchor="end">${escapeHtml(label)}</text>`
    );
  });
  return `${lines.join('')}<text x="${LEFT}" y="${top + height + 16}">${escapeHtml(title)}</text>`;
}

function renderLayer(row: LayerRow, { x, step, bytes, errors, color }: Bar): string {
  const width = Math.max(0.4, step * 0.8);
  const tip = [
    row.name,
    `${row.storedType} → ${row.scheme}`,
    `${row.bytesBefore === null ? '?' : formatBytes(row.bytesBefore)} → ${formatBytes(row.bytesAfter)}`,
    ...(row.error === null ? [] : [`error ${formatQuantity('share', row.error.frobenius)}`]),
  ].join('\n');
  const rect = (panel: Panel, value: number, attributes: string): string => {
    const height = (panel.height * value) / panel.largest;
    return `<rect x="${round(x)}" y="${round(panel.top + panel.height - height)}" width="${round(width)}" height="${round(height)}" ${attributes}/>`;
  };
  return [
    `<g class="layer"><title>${escapeHtml(printable(tip))}</title>`,
    row.bytesBefore === null ? '' : rect(bytes, row.bytesBefore, 'class="before"'),
    rect(bytes, row.bytesAfter, `fill="${color}"`),
    row.error === null ? '' : rect(errors, finite(row.error.frobenius), `fill="${color}"`),
    '</g>',
  ].join('');
}

/** An infinite error is drawn as the whole of the weight. */
function finite(value: number): number {
  return Number.isFinite(value) ? value : 1;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
