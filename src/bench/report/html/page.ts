import { HTML_STYLE } from '../../../inspect/html-assets.js';
import { escapeHtml } from '../../../inspect/html-escape.js';
import { FILTER_BOX, renderPage, renderWarnings } from '../../../inspect/html-page.js';
import type { BenchReport, GateResult, Metric, Scenario } from '../../report.js';
import {
  DASH,
  describeRun,
  findFigure,
  formatCheckChange,
  formatCheckValue,
  formatInterval,
  formatMetric,
  metricIds,
  metricInfo,
  reportTitle,
  summarizeGate,
  unitLabel,
} from '../format.js';
import { renderChart } from './chart.js';
import { drawPictures } from './pictures.js';

const STYLE = `${HTML_STYLE}
.charts { display: grid; gap: 1.5rem; margin: 1.5rem 0; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); }
figure { margin: 0; max-width: 46rem; } figcaption { font-weight: 600; margin-bottom: .3rem; }
svg text { font-size: 12px; } svg .line { fill: none; stroke-width: 2; }
svg .front { fill: none; stroke: var(--soft); stroke-dasharray: 4 3; } 
svg text.label { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
.legend svg { width: 24px; height: 12px; }
.gate { font-weight: 600; border-left: 4px solid var(--soft); padding-left: .6rem; }
.gate.pass { border-color: #1a7f37; } .gate.fail { border-color: #cf222e; } .gate.inconclusive { border-color: #d29922; }
td.fail { color: #cf222e; font-weight: 600; } td.inconclusive { color: #9a6700; font-weight: 600; }
@media (prefers-color-scheme: dark) { td.fail { color: #ff7b72; } td.inconclusive { color: #d29922; } }
td.why { white-space: normal; min-width: 18rem; }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--paper); }
tbody tr:nth-child(even) td:first-child { background: var(--band); }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; max-width: 22rem; }
`;

/** The report as one page that needs nothing else: verdict, pictures, and tables that sort and filter. */
export function renderHtml(report: BenchReport): string {
  const { scenarios, warnings, gate, partial } = report;
  const pictures = drawPictures(report);
  return renderPage(reportTitle(report), STYLE, [
    gate === null
      ? ''
      : `<p class="gate ${gate.verdict}">Gate: ${gate.verdict}. ${escapeHtml(summarizeGate(report) ?? '')}.</p>`,
    partial ? '<p>The run ended early: not everything was measured.</p>' : '',
    `<dl>${describeRun(report)
      .map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`)
      .join('')}</dl>`,
    renderWarnings(warnings),
    pictures.length === 0 ? '' : `<div class="charts">${pictures.map(renderChart).join('\n')}</div>`,
    FILTER_BOX,
    gate === null ? '' : `<h2>Checks (${gate.checks.length})</h2>${renderGate(gate)}`,
    `<h2>Figures (${scenarios.length} ${scenarios.length === 1 ? 'scenario' : 'scenarios'})</h2>`,
    renderFigures(scenarios),
  ]);
}

interface Cell {
  readonly text: string;
  /** What is sorted by; null where there is nothing. */
  readonly value: string | number | null;
  readonly kind?: string;
}

interface Heading {
  readonly text: string;
  readonly isNumber: boolean;
}

function renderTable(headings: readonly Heading[], rows: readonly (readonly Cell[])[]): string {
  const head = headings.map(
    ({ text, isNumber }) =>
      `<th scope="col"${isNumber ? ' class="number"' : ''}><button type="button">${escapeHtml(text)}</button></th>`,
  );
  const body = rows.map((cells) => {
    const columns = cells.map(({ text, value, kind }, index) => {
      const style = kind ?? (headings[index]?.isNumber === true ? 'number' : 'text');
      return `<td class="${style}" data-value="${escapeHtml(String(value ?? ''))}">${escapeHtml(text)}</td>`;
    });
    return `<tr>${columns.join('')}</tr>`;
  });
  return `<div class="scroll"><table><thead><tr>${head.join('')}</tr></thead><tbody>\n${body.join('\n')}\n</tbody></table></div>`;
}

const text = (value: string): Heading => ({ text: value, isNumber: false });
const number = (value: string): Heading => ({ text: value, isNumber: true });

function renderGate({ checks }: GateResult): string {
  return renderTable(
    [
      text('Verdict'),
      text('Condition'),
      text('Scenario'),
      number('Value'),
      number('Baseline'),
      number('Change (95 % interval)'),
      text('Why'),
    ],
    checks.map((check) => [
      { text: check.verdict, value: check.verdict, kind: check.verdict },
      { text: check.condition, value: check.condition },
      { text: check.scenario, value: check.scenario, kind: 'name' },
      { text: formatCheckValue(check, check.value), value: check.value },
      { text: formatCheckValue(check, check.baselineValue), value: check.baselineValue },
      { text: formatCheckChange(check), value: check.change },
      { text: check.reason, value: check.reason, kind: 'why' },
    ]),
  );
}

/** One scenario is a list of its figures; several are a row each. */
function renderFigures(scenarios: readonly Scenario[]): string {
  const [first] = scenarios;
  if (first === undefined) return '<p>Nothing was measured.</p>';
  const ids = metricIds(scenarios);
  if (scenarios.length === 1) return renderList(first, ids);
  const headings = ids.map((id) => number(withUnit(id)));
  return renderTable(
    [text('Scenario'), ...headings],
    scenarios.map((scenario) => [
      { text: scenario.name, value: scenario.name, kind: 'name' },
      ...ids.map((id): Cell => {
        const metric = findFigure(scenario, id);
        return metric === undefined
          ? { text: DASH, value: null }
          : { text: formatMetric(metric), value: metric.value };
      }),
    ]),
  );
}

function renderList(scenario: Scenario, ids: readonly string[]): string {
  const metrics = ids.flatMap((id): readonly Metric[] => {
    const metric = findFigure(scenario, id);
    return metric === undefined ? [] : [metric];
  });
  return `<p>${escapeHtml(scenario.name)}</p>${renderTable(
    [text('Metric'), text('What it is'), number('Value'), number('95 % interval'), number('n')],
    metrics.map((metric) => [
      { text: withUnit(metric.id), value: metric.id, kind: 'name' },
      { text: metricInfo(metric.id).title, value: metricInfo(metric.id).title },
      { text: formatMetric(metric), value: metric.value },
      { text: formatInterval(metric), value: metric.interval?.[0] ?? null },
      { text: String(metric.samples.length), value: metric.samples.length },
    ]),
  )}`;
}

function withUnit(id: string): string {
  const label = unitLabel(metricInfo(id).unit);
  return label === '' ? id : `${id} (${label})`;
}
