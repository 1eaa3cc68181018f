import { escapeMarkdown, tableRow } from '../../inspect/render-markdown.js';
import type { BenchReport, Distribution, GateResult, Scenario, Verdict } from '../report.js';
import {
  DASH,
  describeRun,
  findFigure,
  formatCheckChange,
  formatCheckValue,
  formatFigure,
  formatMetric,
  metricIds,
  metricInfo,
  reportTitle,
  summarizeGate,
  unitLabel,
} from './format.js';

const MARKS: Readonly<Record<Verdict, string>> = {
  pass: '✅ pass',
  fail: '❌ fail',
  inconclusive: '⚠️ inconclusive',
};

/** The report as GitHub Markdown, details folded. Names are escaped: they come from models and flags. */
export function renderMarkdown(report: BenchReport): string {
  return `${markdownSections(report).join('\n\n')}\n`;
}

/** Its parts, the most important first. */
export function markdownSections(report: BenchReport): readonly string[] {
  const { scenarios, gate, warnings, partial } = report;
  const distributions = scenarios.flatMap((scenario) =>
    (scenario.distributions ?? []).map((distribution) => ({ scenario, distribution })),
  );
  return [
    `## ${reportTitle(report)}${gate === null ? '' : ` – ${MARKS[gate.verdict]}`}`,
    ...(partial ? ['The run ended early: not everything was measured.'] : []),
    ...(gate === null ? [] : [`${summarizeGate(report) ?? ''}.`, gateTable(gate)]),
    scenarios.length === 0 ? 'Nothing was measured.' : figureTable(scenarios),
    ...(warnings.length === 0 ? [] : [warnings.map((line) => `- ${escapeMarkdown(line)}`).join('\n')]),
    ...(distributions.length === 0 ? [] : [fold('Latencies', distributionTable(distributions))]),
    fold(
      'Where and what',
      describeRun(report)
        .map(([name, value]) => `- **${escapeMarkdown(name)}**: ${escapeMarkdown(value)}`)
        .join('\n'),
    ),
  ];
}

/** Only what did not pass is shown; the rest is folded. */
function gateTable({ checks, baseline }: GateResult): string {
  const against = baseline === null ? [] : [`Compared with ${escapeMarkdown(baseline)}.`];
  const rows = checks.map((check) => ({
    verdict: check.verdict,
    row: tableRow([
      MARKS[check.verdict],
      escapeMarkdown(check.condition),
      escapeMarkdown(check.scenario),
      formatCheckValue(check, check.value),
      formatCheckValue(check, check.baselineValue),
      formatCheckChange(check),
      escapeMarkdown(check.reason),
    ]),
  }));
  const table = (isShown: (verdict: Verdict) => boolean): string =>
    [
      tableRow(['Verdict', 'Condition', 'Scenario', 'Value', 'Baseline', 'Change (95 % interval)', 'Why']),
      tableRow(['---', '---', '---', '---:', '---:', '---:', '---']),
      ...rows.filter(({ verdict }) => isShown(verdict)).map(({ row }) => row),
    ].join('\n');
  const passed = checks.filter(({ verdict }) => verdict === 'pass').length;
  return [
    ...against,
    ...(passed === checks.length ? [] : [table((verdict) => verdict !== 'pass')]),
    ...(passed === 0
      ? []
      : [
          fold(
            `${passed} passed`,
            table((verdict) => verdict === 'pass'),
          ),
        ]),
  ].join('\n\n');
}

function figureTable(scenarios: readonly Scenario[]): string {
  const ids = metricIds(scenarios);
  const headers = ids.map((id) => {
    const label = unitLabel(metricInfo(id).unit);
    return escapeMarkdown(label === '' ? id : `${id} (${label})`);
  });
  const rows = scenarios.map((scenario) => {
    const cells = ids.map((id) => {
      const metric = findFigure(scenario, id);
      return metric === undefined ? DASH : formatMetric(metric);
    });
    return tableRow([escapeMarkdown(scenario.name), ...cells]);
  });
  return [tableRow(['Scenario', ...headers]), tableRow(['---', ...ids.map(() => '---:')]), ...rows].join(
    '\n',
  );
}

interface ScenarioDistribution {
  readonly scenario: Scenario;
  readonly distribution: Distribution;
}

function distributionTable(distributions: readonly ScenarioDistribution[]): string {
  const wanted = [50, 90, 99];
  const rows = distributions.map(({ scenario, distribution }) => {
    const { id, count, mean, max, percentiles } = distribution;
    const at = (percentile: number): string => {
      const found = percentiles.find((each) => each.percentile === percentile);
      return found === undefined ? DASH : formatFigure('ms', found.value);
    };
    return tableRow([
      escapeMarkdown(scenario.name),
      escapeMarkdown(id),
      String(count),
      formatFigure('ms', mean),
      ...wanted.map(at),
      formatFigure('ms', max),
    ]);
  });
  return [
    tableRow(['Scenario', 'Latency', 'n', 'mean (ms)', ...wanted.map((each) => `p${each}`), 'max']),
    tableRow(['---', '---', ...Array.from({ length: wanted.length + 3 }, () => '---:')]),
    ...rows,
  ].join('\n');
}

function fold(summary: string, body: string): string {
  return `<details><summary>${summary}</summary>\n\n${body}\n\n</details>`;
}
