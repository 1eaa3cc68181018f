import { printableLine } from '../../cli/render.js';
import { naturalWidth, printColumns, totalWidth, type TextColumn } from '../../cli/text-table.js';
import type { BenchReport, GateResult, Scenario } from '../report.js';
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
} from './format.js';

/** Names of scenarios are cut before the table is split, but not shorter than this. */
const LEAST_NAME_WIDTH = 16;

/**
 * The report for a terminal of `width` columns. One scenario is a list of its figures; several are a table with a
 * row for each, split into tables below each other where it is too wide: no figure is left out.
 */
export function renderTable(report: BenchReport, width: number): string {
  const { scenarios, gate, partial } = report;
  const [first] = scenarios;
  const figures =
    first === undefined
      ? ['Nothing was measured.']
      : scenarios.length === 1
        ? [printableLine(first.name), printFitting(listColumns(first), width)]
        : matrixBlocks(scenarios, width);
  const facts = describeRun(report);
  const indent = Math.max(...facts.map(([name]) => name.length)) + 2;
  return [
    `${reportTitle(report)}${partial ? ' (incomplete: it ended early)' : ''}`,
    ...figures,
    ...(gate === null
      ? []
      : [`Gate: ${gate.verdict}. ${summarizeGate(report) ?? ''}.`, printGate(gate, width)]),
    facts.map(([name, value]) => `${printableLine(name).padEnd(indent)}${printableLine(value)}`).join('\n'),
    '',
  ]
    .join('\n\n')
    .replace(/\n+$/, '\n');
}

function listColumns(scenario: Scenario): readonly TextColumn[] {
  const { metrics } = scenario;
  const ordered = metricIds([scenario]).flatMap((id) => metrics.filter((metric) => metric.id === id));
  const text = (header: string, cells: readonly string[]): TextColumn => ({
    header,
    cells,
    align: 'left',
    loses: 'end',
  });
  const number = (header: string, cells: readonly string[]): TextColumn => ({
    header,
    cells,
    align: 'right',
    loses: 'end',
  });
  const repeats = ordered.some(({ samples }) => samples.length > 1);
  return [
    text(
      'Metric',
      ordered.map(({ id }) => printableLine(id)),
    ),
    number('Value', ordered.map(formatMetric)),
    text(
      'Unit',
      ordered.map(({ id }) => unitLabel(metricInfo(id).unit)),
    ),
    ...(repeats
      ? [
          number('95 % interval', ordered.map(formatInterval)),
          number(
            'n',
            ordered.map(({ samples }) => String(samples.length)),
          ),
        ]
      : []),
    text(
      'What it is',
      ordered.map(({ id }) => printableLine(printableLine(metricInfo(id).title))),
    ),
  ];
}

/** Leaves out what does not fit, from the right: only explanations and repetitions stand there. */
function printFitting(columns: readonly TextColumn[], width: number): string {
  let shown = columns;
  while (shown.length > 3 && totalWidth(shown.map(naturalWidth)) > width) shown = shown.slice(0, -1);
  return printColumns(shown, shown.map(naturalWidth));
}

function matrixBlocks(scenarios: readonly Scenario[], width: number): readonly string[] {
  const columns = metricIds(scenarios).map((id): TextColumn => {
    const label = unitLabel(metricInfo(id).unit);
    return {
      header: `${printableLine(id)}\n${label}`,
      cells: scenarios.map((scenario) => {
        const metric = findFigure(scenario, id);
        return metric === undefined ? DASH : formatMetric(metric);
      }),
      align: 'right',
      loses: 'end',
    };
  });
  const names: TextColumn = {
    header: 'Scenario',
    cells: scenarios.map(({ name }) => printableLine(name)),
    align: 'left',
    loses: 'middle',
  };
  const widest = Math.max(0, ...columns.map(naturalWidth));
  const room = width - totalWidth([0, widest]);
  const nameWidth = Math.min(naturalWidth(names), Math.max(LEAST_NAME_WIDTH, room));
  return splitToFit(columns, nameWidth, width).map((block) =>
    printColumns([names, ...block], [nameWidth, ...block.map(naturalWidth)]),
  );
}

/** The columns in groups that fit beside the names; one that fits nowhere stands alone. */
function splitToFit(
  columns: readonly TextColumn[],
  nameWidth: number,
  width: number,
): readonly TextColumn[][] {
  const blocks: TextColumn[][] = [];
  for (const column of columns) {
    const last = blocks.at(-1);
    const widths = [nameWidth, ...(last ?? []).map(naturalWidth), naturalWidth(column)];
    if (last === undefined || totalWidth(widths) > width) blocks.push([column]);
    else last.push(column);
  }
  return blocks;
}

function printGate({ checks }: GateResult, width: number): string {
  const column = (
    header: string,
    cells: readonly string[],
    loses: TextColumn['loses'] = 'end',
  ): TextColumn => ({
    header,
    cells,
    align: 'left',
    loses,
  });
  const hasBaseline = checks.some(({ baselineValue }) => baselineValue !== null);
  const columns = [
    column(
      'Verdict',
      checks.map(({ verdict }) => verdict),
    ),
    column(
      'Condition',
      checks.map(({ condition }) => printableLine(condition)),
    ),
    column(
      'Scenario',
      checks.map(({ scenario }) => printableLine(scenario)),
      'middle',
    ),
    column(
      'Value',
      checks.map((check) => formatCheckValue(check, check.value)),
    ),
    ...(hasBaseline
      ? [
          column(
            'Baseline',
            checks.map((check) => formatCheckValue(check, check.baselineValue)),
          ),
          column('Change (95 % interval)', checks.map(formatCheckChange)),
        ]
      : []),
  ];
  const widths = columns.map(naturalWidth);
  const excess = totalWidth(widths) - width;
  const [, , name = 0] = widths;
  if (excess > 0) widths[2] = Math.max(Math.min(name, LEAST_NAME_WIDTH), name - excess);
  return printColumns(columns, widths);
}
