import { BENCH_SCHEMA, type BenchReport, type Environment, type Metric } from '../../src/bench/report.js';
import { toMetric } from '../../src/bench/summarize.js';

export const ENVIRONMENT: Environment = {
  date: '2026-01-01T00:00:00.000Z',
  platform: 'linux-x64',
  cpu: 'Test CPU',
  cores: 2,
  memoryBytes: 2 ** 34,
  isa: 'avx2',
  node: 'v20.20.0',
  fdq: '0.1.0',
  onnxruntime: '1.30.0',
  commit: null,
};

/** Scenarios by name, each with the samples of its metrics. */
export type Samples = Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>;

export function reportOf(samples: Samples, changes: Partial<BenchReport> = {}): BenchReport {
  return {
    schema: BENCH_SCHEMA,
    kind: 'speed',
    environment: ENVIRONMENT,
    scenarios: Object.entries(samples).map(([name, metrics]) => ({
      name,
      parameters: { scheme: name },
      metrics: Object.entries(metrics).map(([id, values]): Metric => toMetric(id, values)),
    })),
    warnings: [],
    partial: false,
    gate: null,
    ...changes,
  };
}
