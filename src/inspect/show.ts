import { printableLine } from '../cli/render.js';
import { writeFileWhole } from '../cli/write-file.js';
import { UserError } from '../errors.js';
import type { LayerExplanation } from '../quant/explain.js';
import { COLUMNS, type Column } from './columns.js';
import { filterRows, findFailures, sortRows } from './conditions.js';
import { diffReports, renderDiff } from './diff.js';
import { inspectModel, type Inspection, type InspectOptions } from './inspect.js';
import { renderHtml } from './render-html.js';
import { renderMarkdown } from './render-markdown.js';
import { renderTable } from './render-table.js';
import type { InspectReport, LayerRow } from './report.js';
import { saveQuantizationConfig } from './save-config.js';
import { summarize } from './summary.js';
import type { View } from './view.js';

export interface Shown {
  /** For stdout. */
  readonly text: string;
  /** The same as data. */
  readonly result: object;
  /** Layers for which `--fail-if` holds, one line each. */
  readonly failures: readonly string[];
}

/** Renders what was asked for, and writes the files that were named. */
export async function showInspection(
  { report, explain, auto }: Inspection,
  view: View,
  { options, width }: { readonly options: InspectOptions; readonly width: number },
): Promise<Shown> {
  if (view.saveConfig !== undefined && auto !== undefined)
    saveQuantizationConfig(view.saveConfig, auto.config);
  if (view.explain !== undefined) return showExplanation(requireExplain(explain, options)(view.explain));
  if (view.diff !== undefined) {
    const before = await inspectBase(view.diff, options);
    const diff = diffReports(before, report);
    return { text: `${renderDiff(diff)}\n`, result: diff, failures: [] };
  }
  const filtered = filterRows(report.layers, view.filters);
  const rows = view.sorting === undefined ? filtered : sortRows(filtered, view.sorting);
  const columns = shownColumns(report);
  if (view.html !== undefined) writeFileWhole(view.html, renderHtml(report, rows, columns));
  return {
    text: view.markdown
      ? renderMarkdown(report, rows, columns)
      : renderText(report, rows, { columns, width }),
    result: { ...report, layers: rows },
    failures: findFailures(report.layers, view.failIf).map(printableLine),
  };
}

/** The other side is planned with the same flags; a converted folder, an ONNX file or a report is what it is. */
async function inspectBase(model: string, options: InspectOptions): Promise<InspectReport> {
  const { auto: _, quantization, ...rest } = options;
  const flags = model.endsWith('.onnx') ? {} : quantization;
  const { report } = await inspectModel({ ...rest, quantization: flags, model, measure: false });
  return report;
}

function requireExplain(
  explain: Inspection['explain'],
  { model }: InspectOptions,
): NonNullable<Inspection['explain']> {
  if (explain !== undefined) return explain;
  throw new UserError('usage', `--explain needs a checkpoint, and ${JSON.stringify(model)} is none.`, {
    param: 'explain',
    suggestions: ['The column "rule" of the table says how its layers came to be.'],
  });
}

/** Error columns only where something was measured. */
function shownColumns({ layers }: InspectReport): readonly Column[] {
  const isMeasured = layers.some(({ error }) => error !== null);
  return COLUMNS.filter(({ measured }) => isMeasured || !measured);
}

function renderText(
  report: InspectReport,
  rows: readonly LayerRow[],
  { columns, width }: { readonly columns: readonly Column[]; readonly width: number },
): string {
  const facts = summarize(report);
  const indent = Math.max(...facts.map(([name]) => name.length)) + 2;
  const lines = facts.map(([name, value]) => `${name.padEnd(indent)}${printableLine(value)}`);
  const hidden = report.layers.length - rows.length;
  const note = hidden === 0 ? '' : `${rows.length} of ${report.layers.length} layers shown.\n`;
  return `${renderTable(rows, columns, width)}\n${note}\n${lines.join('\n')}\n`;
}

function showExplanation(explanations: readonly LayerExplanation[]): Shown {
  const text = explanations
    .map(({ name, kind, rules }) =>
      [
        `${name} (${kind})`,
        ...rules.map(({ rule, scheme, reason, isDecisive }) => {
          const verdict = scheme === undefined ? 'says nothing' : `${scheme}: ${reason ?? ''}`;
          return `  ${isDecisive ? '→' : ' '} ${rule}: ${verdict}`;
        }),
      ]
        .map(printableLine)
        .join('\n'),
    )
    .join('\n\n');
  return { text: `${text}\n`, result: { layers: explanations }, failures: [] };
}
