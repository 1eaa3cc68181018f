import { printableLine } from '../cli/render.js';
import { formatCell, type Column } from './columns.js';
import type { InspectReport, LayerRow } from './report.js';
import { summarize } from './summary.js';

/** The report as GitHub Markdown. Names are escaped: they come from the model. */
export function renderMarkdown(
  report: InspectReport,
  rows: readonly LayerRow[],
  columns: readonly Column[],
): string {
  const lines = [
    `# ${escapeMarkdown(report.model.reference)}`,
    '',
    ...summarize(report).map(([name, value]) => `- **${name}**: ${escapeMarkdown(value)}`),
    '',
    tableRow(columns.map(({ header }) => header)),
    tableRow(columns.map(({ quantity }) => (quantity === 'text' ? '---' : '---:'))),
    ...rows.map((row) => tableRow(columns.map((column) => escapeMarkdown(formatCell(column, row))))),
  ];
  if (report.warnings.length > 0) {
    lines.push('', '## Warnings', '', ...report.warnings.map((line) => `- ${escapeMarkdown(line)}`));
  }
  return `${lines.join('\n')}\n`;
}

export function tableRow(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}

/** Text that Markdown shows as it is, on one line. */
export function escapeMarkdown(text: string): string {
  return printableLine(text).replace(/[\\`*_[\]<>|~#]/g, (character) => `\\${character}`);
}
