import { stringify } from 'csv-stringify/sync';
import { toJson } from '../../cli/json.js';
import type { BenchReport } from '../report.js';
import { metricInfo } from './format.js';

/** A figure with everything it depends on: one line of jsonl, one row of csv. */
interface FigureRecord {
  readonly kind: string;
  readonly scenario: string;
  readonly metric: string;
  readonly unit: string;
  readonly better: string;
  readonly value: number;
  readonly std: number;
  readonly low: number | null;
  readonly high: number | null;
  readonly samples: readonly number[];
  /** Worst verdict about it; null where no condition names it. */
  readonly verdict: string | null;
  readonly parameters: Readonly<Record<string, string | number | boolean | null>>;
  readonly environment: BenchReport['environment'];
}

const VERDICTS = ['fail', 'inconclusive', 'pass'];

function toRecords({ kind, scenarios, gate, environment }: BenchReport): readonly FigureRecord[] {
  return scenarios.flatMap(({ name, parameters, metrics }) =>
    metrics.map(({ id, value, std, interval, samples }) => {
      const { unit, better } = metricInfo(id);
      const checks = (gate?.checks ?? []).filter((each) => each.scenario === name && each.metric === id);
      const verdict = VERDICTS.find((each) => checks.some((check) => check.verdict === each)) ?? null;
      const [low, high] = interval ?? [null, null];
      return {
        kind,
        scenario: name,
        metric: id,
        unit,
        better,
        value,
        std,
        low,
        high,
        samples,
        verdict,
        parameters,
        environment,
      };
    }),
  );
}

/** The whole report. */
export function renderJson(report: BenchReport): string {
  return `${toJson(report)}\n`;
}

/** One object a figure: files of several runs can be joined. */
export function renderJsonLines(report: BenchReport): string {
  return toRecords(report)
    .map((record) => `${toJson(record, 0)}\n`)
    .join('');
}

const ENVIRONMENT_COLUMNS = [
  'date',
  'platform',
  'cpu',
  'cores',
  'memoryBytes',
  'isa',
  'node',
  'fdq',
  'onnxruntime',
  'commit',
] as const;

/** One row a figure (RFC 4180), with a column for each parameter. */
export function renderCsv(report: BenchReport): string {
  const records = toRecords(report);
  const parameters = [...new Set(report.scenarios.flatMap((scenario) => Object.keys(scenario.parameters)))];
  const header = [
    ...['kind', 'scenario', 'metric', 'unit', 'better', 'value', 'std', 'low', 'high', 'samples', 'verdict'],
    ...parameters.map((name) => `parameters.${name}`),
    ...ENVIRONMENT_COLUMNS.map((name) => `environment.${name}`),
  ];
  const rows = records.map((record) => [
    record.kind,
    record.scenario,
    record.metric,
    record.unit,
    record.better,
    record.value,
    record.std,
    record.low,
    record.high,
    record.samples.length,
    record.verdict,
    ...parameters.map((name) => record.parameters[name] ?? null),
    ...ENVIRONMENT_COLUMNS.map((name) => record.environment[name]),
  ]);
  return stringify([header, ...rows], {
    cast: { string: withoutFormula, boolean: String },
    record_delimiter: 'windows',
  });
}

/** Spreadsheets run texts that begin like a formula. */
function withoutFormula(text: string): string {
  return /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
}
