import { printable, printableLine } from '../../cli/render.js';
import type { BenchReport, GateCheck } from '../report.js';
import { findFigure, reportTitle, summarizeGate } from './format.js';
import { markdownSections } from './markdown.js';

/** Annotations of one kind that GitHub shows for a step. */
const SHOWN_ANNOTATIONS = 10;
/** The runner throws away the whole summary of a step that is larger than 1024 KiB. */
const SUMMARY_BYTES = 1024 * 1024;
/** All outputs of a job together may have 1 MB. */
const METRICS_OUTPUT_CHARACTERS = 128 * 1024;

/** Workflow commands: an error for each figure that failed, a warning for each that was not decided. */
export function renderAnnotations(report: BenchReport): readonly string[] {
  const figures = groupChecks(report.gate?.checks ?? []);
  const failed = figures.filter((checks) => checks.some(({ verdict }) => verdict === 'fail'));
  const open = figures.filter(
    (checks) => !failed.includes(checks) && checks.some(({ verdict }) => verdict === 'inconclusive'),
  );
  return [
    ...annotate('error', 'fail', failed),
    ...annotate('warning', 'inconclusive', open),
    ...(report.partial
      ? [command('warning', reportTitle(report), 'The run ended early: not everything was measured.')]
      : []),
  ];
}

function groupChecks(checks: readonly GateCheck[]): readonly (readonly GateCheck[])[] {
  const groups = new Map<string, GateCheck[]>();
  for (const check of checks) {
    const key = JSON.stringify([check.scenario, check.metric]);
    groups.set(key, [...(groups.get(key) ?? []), check]);
  }
  return [...groups.values()];
}

function annotate(
  kind: 'error' | 'warning',
  verdict: GateCheck['verdict'],
  figures: readonly (readonly GateCheck[])[],
): readonly string[] {
  const isTooMany = figures.length > SHOWN_ANNOTATIONS;
  const shown = isTooMany ? figures.slice(0, SHOWN_ANNOTATIONS - 1) : figures;
  const lines = shown.map((checks) => {
    const [{ metric, scenario } = { metric: '', scenario: '' }] = checks;
    const reasons = checks
      .filter((check) => check.verdict === verdict)
      .map(({ condition, reason }) => `${condition}: ${reason}`);
    return command(kind, printableLine(`${metric} of ${scenario}`), printable(reasons.join('\n')));
  });
  if (!isTooMany) return lines;
  const rest = `${figures.length - shown.length} more figures ${verdict === 'fail' ? 'failed' : 'are inconclusive'}: see the summary of this job.`;
  return [...lines, command(kind, 'fdq bench', rest)];
}

/** `::error title=…::…`, escaped as the toolkit of GitHub Actions does. */
function command(kind: 'error' | 'warning', title: string, message: string): string {
  const property = escapeData(title).replaceAll(':', '%3A').replaceAll(',', '%2C');
  return `::${kind} title=${property}::${escapeData(message)}`;
}

function escapeData(text: string): string {
  return text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
}

/**
 * Markdown for the summary of a step: what does not fit is left out, details first, and said so.
 * @param usedBytes what the step has written before
 */
export function renderStepSummary(report: BenchReport, usedBytes: number): string {
  const note = 'The rest is left out: GitHub shows 1 MiB of a summary.';
  let room = SUMMARY_BYTES - usedBytes - Buffer.byteLength(note) - 4;
  const sections: string[] = [];
  for (const section of markdownSections(report)) {
    const bytes = Buffer.byteLength(section) + 2;
    if (bytes > room) return room > 0 ? `${[...sections, note].join('\n\n')}\n\n` : '';
    sections.push(section);
    room -= bytes;
  }
  return `${sections.join('\n\n')}\n\n`;
}

/**
 * Lines for GITHUB_OUTPUT: `verdict` (`none` without a gate), `summary`, `tok_per_s` of the first scenario, and
 * `metrics`, JSON of every figure by scenario and id.
 */
export function renderOutputs(report: BenchReport): string {
  const { scenarios, gate } = report;
  const [first] = scenarios;
  const speed =
    first === undefined ? undefined : (findFigure(first, 'decode') ?? findFigure(first, 'output_throughput'));
  const metrics = JSON.stringify(
    Object.fromEntries(
      scenarios.map(({ name, metrics: figures }) => [
        name,
        Object.fromEntries(figures.map(({ id, value }) => [id, value])),
      ]),
    ),
  );
  const outputs: readonly (readonly [string, string])[] = [
    ['verdict', gate?.verdict ?? 'none'],
    ['summary', summarizeGate(report) ?? 'no gate'],
    ...(speed === undefined ? [] : [['tok_per_s', String(speed.value)] as const]),
    ...(metrics.length > METRICS_OUTPUT_CHARACTERS ? [] : [['metrics', metrics] as const]),
  ];
  return outputs.map(([name, value]) => `${name}=${value}\n`).join('');
}
