import { formatCell, type Column } from './columns.js';
import { HTML_STYLE } from './html-assets.js';
import { renderChart, schemeColors } from './html-chart.js';
import { escapeHtml } from './html-escape.js';
import { FILTER_BOX, renderPage, renderWarnings } from './html-page.js';
import type { InspectReport, LayerRow } from './report.js';
import { summarize } from './summary.js';

/**
 * The report as one page that needs nothing else: facts, a picture of bytes and error of every layer, and a table
 * that sorts and filters.
 */
export function renderHtml(
  report: InspectReport,
  rows: readonly LayerRow[],
  columns: readonly Column[],
): string {
  return renderPage(`${report.model.reference} – ${report.scheme}`, HTML_STYLE, [
    `<dl>${summarize(report)
      .map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`)
      .join('')}</dl>`,
    renderWarnings(report.warnings),
    '<h2>Bytes and error</h2>',
    renderLegend(rows),
    renderChart(rows),
    `<h2>Layers (${rows.length})</h2>`,
    FILTER_BOX,
    renderLayers(rows, columns),
  ]);
}

function renderLegend(rows: readonly LayerRow[]): string {
  const entries = [...schemeColors(rows)].map(
    ([scheme, color]) =>
      `<span><svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true"><rect width="12" height="12" rx="2" fill="${color}"/></svg>${escapeHtml(scheme)}</span>`,
  );
  return `<div class="legend">${entries.join('')}</div>`;
}

function renderLayers(rows: readonly LayerRow[], columns: readonly Column[]): string {
  const head = columns.map(
    ({ header, quantity }) =>
      `<th scope="col"${quantity === 'text' ? '' : ' class="number"'}><button type="button">${escapeHtml(header)}</button></th>`,
  );
  const body = rows.map((row) => `<tr>${columns.map((column) => renderCell(column, row)).join('')}</tr>`);
  return `<div class="scroll"><table><thead><tr>${head.join('')}</tr></thead><tbody>\n${body.join('\n')}\n</tbody></table></div>`;
}

function renderCell(column: Column, row: LayerRow): string {
  const value = column.value(row);
  const kind = column.quantity === 'text' ? column.id : 'number';
  return `<td class="${kind}" data-value="${escapeHtml(value === null ? '' : String(value))}">${escapeHtml(formatCell(column, row))}</td>`;
}
