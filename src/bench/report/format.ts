import { counted } from '../../counted.js';
import { formatBytes } from '../../cli/render.js';
import { findMetric, METRICS, type MetricInfo, type MetricUnit } from '../metrics.js';
import type { BenchReport, GateCheck, Metric, Scenario } from '../report.js';

/** What people read where a figure is missing. */
export const DASH = '–';

/** What METRICS says of an id. A figure that it does not know is shown all the same. */
export function metricInfo(id: string): MetricInfo {
  return (
    findMetric(id) ?? { id, aliases: [], kinds: [], title: id, unit: 'none', better: 'neither', noisy: true }
  );
}

/** Ids of the metrics of some scenario, in the order of METRICS. */
export function metricIds(scenarios: readonly Scenario[]): readonly string[] {
  const present = new Set(scenarios.flatMap(({ metrics }) => metrics.map(({ id }) => id)));
  const known = METRICS.map(({ id }) => id).filter((id) => present.has(id));
  return [...known, ...[...present].filter((id) => !known.includes(id))];
}

export function findFigure(scenario: Scenario, id: string): Metric | undefined {
  return scenario.metrics.find((metric) => metric.id === id);
}

/** The unit as it stands in a heading; empty where the figure brings its own, or has none. */
export function unitLabel(unit: MetricUnit): string {
  if (unit === 'share') return '%';
  return unit === 'bytes' || unit === 'bytes/s' || unit === 'none' || unit === 'count' ? '' : unit;
}

/**
 * The figure without its unit but for bytes: `31.2`, `1.50 GiB`, `0.02113`; a share as a percentage.
 * @param like figure whose digits it gets
 */
export function formatFigure(unit: MetricUnit, value: number, like = value): string {
  if (!Number.isFinite(value)) return String(value);
  switch (unit) {
    case 'bytes':
      return formatBytes(value);
    case 'bytes/s':
      return `${formatBytes(value)}/s`;
    case 'share':
      return fixed(value * 100, 2);
    case 'tok/s':
    case 'dB':
      return value.toFixed(1);
    case 'ms':
      return fixed(value, Math.abs(like) < 1 ? 3 : 2);
    case 'req/s':
    case 's':
      return fixed(value, 2);
    case 'count':
      return String(Math.round(value * 100) / 100);
    case 'nats':
    case 'none':
      return value === 0 ? '0' : value.toPrecision(4);
  }
}

/** Small figures keep two digits instead of becoming zero. */
function fixed(value: number, digits: number): string {
  const isLost = value !== 0 && Math.abs(value) < 10 ** -digits;
  return isLost ? value.toPrecision(2) : value.toFixed(digits);
}

/** `31.2 tok/s`, `99.10 %`, `12.34`. */
export function formatWithUnit(unit: MetricUnit, value: number): string {
  const label = unitLabel(unit);
  return label === '' ? formatFigure(unit, value) : `${formatFigure(unit, value)} ${label}`;
}

/** `31.2 ± 0.4` where it was measured more than once. */
export function formatMetric(metric: Metric): string {
  const { unit } = metricInfo(metric.id);
  const value = formatFigure(unit, metric.value);
  return metric.samples.length < 2 ? value : `${value} ± ${formatFigure(unit, metric.std, metric.value)}`;
}

/** `31.0 … 31.6`, or a dash of one sample. */
export function formatInterval({ id, interval }: Metric): string {
  if (interval === null) return DASH;
  const { unit } = metricInfo(id);
  return `${formatFigure(unit, interval[0])} … ${formatFigure(unit, interval[1])}`;
}

/** `-10.2 %`, signed. */
export function formatChange(change: number): string {
  if (!Number.isFinite(change)) return String(change);
  const percent = (change * 100).toFixed(1);
  return `${change > 0 ? '+' : ''}${percent} %`;
}

/** `-10.2 % (-12.0 % … -8.4 %)`. */
export function formatCheckChange({ change, changeInterval }: GateCheck): string {
  if (change === null) return DASH;
  const [low, high] = changeInterval ?? [];
  if (low === undefined || high === undefined) return formatChange(change);
  return `${formatChange(change)} (${formatChange(low)} … ${formatChange(high)})`;
}

export function formatCheckValue({ metric }: GateCheck, value: number | null): string {
  return value === null ? DASH : formatWithUnit(metricInfo(metric).unit, value);
}

const KIND_TITLES: Readonly<Record<BenchReport['kind'], string>> = {
  speed: 'Speed',
  serve: 'Serving',
  quality: 'Quality',
};

/** `fdq bench: Speed`. */
export function reportTitle({ kind }: BenchReport): string {
  return `fdq bench: ${KIND_TITLES[kind]}`;
}

type Facts = readonly (readonly [name: string, value: string])[];

/** What all scenarios share, and where they were measured. */
export function describeRun({ scenarios, environment }: BenchReport): Facts {
  return [...describeParameters(sharedParameters(scenarios)), ...describeEnvironment(environment)];
}

/** Parameters but those without a value. */
export function describeParameters(parameters: Scenario['parameters']): Facts {
  return Object.entries(parameters).flatMap(([name, value]) =>
    value === null ? [] : [[name, String(value)]],
  );
}

/** Machine, versions and date. */
export function describeEnvironment(environment: BenchReport['environment']): Facts {
  const { date, platform, cpu, cores, memoryBytes, isa, node, fdq, onnxruntime, commit } = environment;
  const runtime = onnxruntime === null ? [] : [`ONNX Runtime ${onnxruntime}`];
  return [
    ['machine', `${cpu}, ${counted(cores, 'thread')}, ${formatBytes(memoryBytes)}, ${platform}`],
    ...(isa === null ? [] : [['kernels', isa] as const]),
    ['versions', [`fdq ${fdq}`, `Node.js ${node}`, ...runtime].join(', ')],
    ...(commit === null ? [] : [['commit', commit] as const]),
    ['measured', date],
  ];
}

/** Parameters that are the same in all scenarios. */
function sharedParameters(scenarios: readonly Scenario[]): Scenario['parameters'] {
  const [first, ...others] = scenarios;
  if (first === undefined) return {};
  const isShared = ([name, value]: readonly [string, unknown]): boolean =>
    others.every(({ parameters }) => parameters[name] === value);
  return Object.fromEntries(Object.entries(first.parameters).filter(isShared));
}

/** `3 of 6 checks failed, 1 is inconclusive`; undefined without a gate. */
export function summarizeGate({ gate }: BenchReport): string | undefined {
  if (gate === null) return undefined;
  const { checks } = gate;
  const failed = checks.filter(({ verdict }) => verdict === 'fail').length;
  const open = checks.filter(({ verdict }) => verdict === 'inconclusive').length;
  if (failed + open === 0) return `${checks.length} of ${checks.length} checks passed`;
  return [
    ...(failed === 0 ? [] : [`${failed} of ${checks.length} checks failed`]),
    ...(open === 0 ? [] : [`${open} of ${checks.length} inconclusive`]),
  ].join(', ');
}
