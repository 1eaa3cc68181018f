import { Gauge, Registry, type OpenMetricsContentType } from 'prom-client';
import { printableLine } from '../../cli/render.js';
import { METRICS } from '../metrics.js';
import type { BenchReport } from '../report.js';
import { findFigure, metricIds, metricInfo } from './format.js';

/**
 * OpenMetrics text: a gauge `fdq_bench_<id>` for each figure, one line a scenario. GitLab's metrics reports and
 * node_exporter's textfile collector read it.
 */
export async function renderOpenMetrics({ scenarios }: BenchReport): Promise<string> {
  const registry = new Registry<OpenMetricsContentType>();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  for (const id of metricIds(scenarios).filter(isKnown)) {
    const { title, unit } = metricInfo(id);
    const help = unit === 'none' ? title : `${title} (${unit})`;
    const gauge = new Gauge({
      name: `fdq_bench_${id}`,
      help,
      labelNames: ['scenario'],
      registers: [registry],
    });
    for (const scenario of scenarios) {
      const metric = findFigure(scenario, id);
      if (metric !== undefined) gauge.set({ scenario: printableLine(scenario.name) }, metric.value);
    }
  }
  return registry.metrics();
}

/** Names of other figures may be none that OpenMetrics allows. */
function isKnown(id: string): boolean {
  return METRICS.some((metric) => metric.id === id);
}
