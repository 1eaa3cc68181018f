import path from 'node:path';
import { nearest } from '../../cli/nearest.js';
import { UserError } from '../../errors.js';
import type { BenchReport } from '../report.js';
import { renderGhaBenchmark } from './gha-benchmark.js';
import { renderJunit } from './junit.js';
import { renderMarkdown } from './markdown.js';
import { renderOpenMetrics } from './openmetrics.js';
import { renderCsv, renderJson, renderJsonLines } from './records.js';
import { renderTable } from './table.js';

/** Text of a report; a table is at most `width` columns wide. */
type Render = (report: BenchReport, width: number) => string | Promise<string>;

/** Reporters of one text each, for stdout or a file. */
const REPORTERS: Readonly<Record<string, Render>> = {
  table: renderTable,
  markdown: renderMarkdown,
  json: renderJson,
  jsonl: renderJsonLines,
  csv: renderCsv,
  junit: renderJunit,
  openmetrics: renderOpenMetrics,
};

const NAMES = [...Object.keys(REPORTERS), 'github', 'gha-benchmark'];

/** A text and where it goes. */
export interface ReportTarget {
  readonly render: Render;
  readonly file: string;
}

export interface ReportPlan {
  /** Null where --json owns stdout. */
  readonly stdout: Render | null;
  readonly files: readonly ReportTarget[];
  /** Annotations, step summary and outputs. */
  readonly github: boolean;
}

/**
 * What `--reporter NAME` and `--reporter NAME:FILE` ask for. A table goes to stdout unless another reporter does.
 * @throws UserError `usage` for unknown names, two reporters on stdout or in one file
 */
export function planReporters(
  texts: readonly string[],
  { isJson, isActions }: { readonly isJson: boolean; readonly isActions: boolean },
): ReportPlan {
  const wanted = texts.map(parseReporter);
  const onStdout = wanted.filter(({ name, file }) => file === undefined && name !== 'github');
  const [stdout, second] = onStdout;
  if (second !== undefined && stdout !== undefined) {
    throw wrong(
      `Expected at most one --reporter on stdout but received ${stdout.name} and ${second.name}.`,
      `Give a file to all but one: --reporter ${second.name}:FILE.`,
    );
  }
  if (isJson && stdout !== undefined) {
    throw wrong(
      `Expected --reporter ${stdout.name} to name a file, for --json prints to stdout.`,
      `--reporter ${stdout.name}:FILE, or leave out --json.`,
    );
  }
  const files = wanted.flatMap(toTargets);
  checkFilesDiffer(files);
  return {
    stdout: isJson ? null : (REPORTERS[stdout?.name ?? 'table'] ?? renderTable),
    files,
    github: isActions || wanted.some(({ name }) => name === 'github'),
  };
}

interface WantedReporter {
  readonly name: string;
  readonly file: string | undefined;
}

function parseReporter(text: string): WantedReporter {
  const [name = '', ...rest] = text.split(':');
  const file = rest.length === 0 ? undefined : rest.join(':');
  if (!NAMES.includes(name)) {
    const guess = nearest(name, NAMES);
    throw wrong(
      `Expected --reporter to be one of ${NAMES.join(', ')} but received ${JSON.stringify(name)}.`,
      guess === undefined ? 'Choose one of them.' : `Did you mean ${guess}?`,
    );
  }
  if (file === '') throw wrong(`Expected a file after --reporter ${name}:.`, `--reporter ${name}:FILE`);
  if (name === 'github' && file !== undefined) {
    throw wrong(
      `--reporter github takes no file: it writes where GitHub Actions says.`,
      `For Markdown in a file: --reporter markdown:${file}.`,
    );
  }
  if (name === 'gha-benchmark' && file === undefined) {
    throw wrong(
      'Expected --reporter gha-benchmark to name a file: it writes one for each direction.',
      '--reporter gha-benchmark:bench.json writes bench.bigger.json and bench.smaller.json.',
    );
  }
  return { name, file };
}

function toTargets({ name, file }: WantedReporter): readonly ReportTarget[] {
  if (file === undefined) return [];
  if (name === 'gha-benchmark') {
    return (['bigger', 'smaller'] as const).map((direction) => ({
      render: (report) => renderGhaBenchmark(report, direction),
      file: withSuffix(file, direction),
    }));
  }
  const render = REPORTERS[name] ?? renderTable;
  return [{ render: (report) => render(report, Infinity), file }];
}

/** `out/bench.json` → `out/bench.bigger.json` */
function withSuffix(file: string, suffix: string): string {
  const { dir, name, ext } = path.parse(file);
  return path.join(dir, `${name}.${suffix}${ext}`);
}

function checkFilesDiffer(files: readonly ReportTarget[]): void {
  const seen = new Set<string>();
  for (const { file } of files) {
    const resolved = path.resolve(file);
    if (seen.has(resolved)) {
      throw wrong(
        `Expected every --reporter to write a file of its own but ${file} is named twice.`,
        'Give another file.',
      );
    }
    seen.add(resolved);
  }
}

function wrong(message: string, suggestion: string): UserError {
  return new UserError('usage', message, { param: 'reporter', suggestions: [suggestion] });
}
