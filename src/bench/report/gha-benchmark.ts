import { toJson } from '../../cli/json.js';
import { printableLine } from '../../cli/render.js';
import type { BenchReport } from '../report.js';
import { formatInterval, metricInfo } from './format.js';

/**
 * The custom JSON of benchmark-action/github-action-benchmark, which takes one direction a file: `bigger` for its tool
 * customBiggerIsBetter, `smaller` for customSmallerIsBetter. Figures that are no improvement either way are left out.
 */
export function renderGhaBenchmark(report: BenchReport, direction: 'bigger' | 'smaller'): string {
  const better = direction === 'bigger' ? 'higher' : 'lower';
  const entries = report.scenarios.flatMap(({ name, metrics }) =>
    metrics
      .filter(({ id, value }) => metricInfo(id).better === better && Number.isFinite(value))
      .map((metric) => ({
        name: printableLine(`${metric.id} (${name})`),
        unit: metricInfo(metric.id).unit,
        value: metric.value,
        ...(metric.samples.length < 2
          ? {}
          : {
              range: `± ${metric.std}`,
              extra: `n = ${metric.samples.length}\n95 %: ${formatInterval(metric)}`,
            }),
      })),
  );
  return `${toJson(entries)}\n`;
}
