import type { Distribution, Metric, Scenario } from '../report.js';
import { createHistogram, percentileMs, recordMs, toDistribution, toMetric } from '../summarize.js';
import type { LoadFigures } from './figures.js';
import { poolFigures } from './pool-figures.js';
import { describeSpread, type Spread } from './statistics.js';

type Rows = readonly (readonly [id: string, value: number | undefined])[];

/** Every figure of one run by the id of its metric; latencies of which there are none are left out. */
export function metricValues(run: LoadFigures): ReadonlyMap<string, number> {
  const { latencies, completed, failed } = run;
  const seconds = run.durationMs / 1000;
  const perSecond = (count: number | null): number | undefined =>
    count === null || seconds === 0 ? undefined : count / seconds;
  const spread = (values: readonly number[]): Spread | undefined =>
    values.length === 0 ? undefined : describeSpread(values);
  const [ttft, tpot, itl] = [spread(latencies.ttft), spread(latencies.tpot), spread(latencies.itl)];
  const [e2el, queue, queued] = [
    spread(latencies.e2el),
    spread(latencies.queue),
    spread(latencies.e2elQueued),
  ];
  const rows: Rows = [
    ['ttft', ttft?.mean],
    ['ttft_p50', ttft?.median],
    ['ttft_p99', ttft?.percentile(99)],
    ['tpot', tpot?.mean],
    ['tpot_p99', tpot?.percentile(99)],
    ['itl_p50', itl?.median],
    ['itl_p90', itl?.percentile(90)],
    ['itl_p99', itl?.percentile(99)],
    ['e2el', e2el?.mean],
    ['e2el_p99', e2el?.percentile(99)],
    ['e2el_queued', queued?.mean],
    ['e2el_queued_p99', queued?.percentile(99)],
    ['queue', queue?.mean],
    ['queue_p99', queue?.percentile(99)],
    ['client_lag_p99', run.lagMs],
    ['request_throughput', perSecond(completed)],
    ['output_throughput', perSecond(run.outputTokens)],
    ['total_token_throughput', perSecond(run.inputTokens + run.outputTokens)],
    ['request_goodput', perSecond(run.good)],
    ['error_rate', completed + failed === 0 ? undefined : failed / (completed + failed)],
    ['retries', run.retries],
  ];
  return new Map(rows.filter((row): row is readonly [string, number] => row[1] !== undefined));
}

/** A scenario of its runs, at least one: a sample of every metric for each run, distributions over all. */
export function toScenario(
  name: string,
  parameters: Scenario['parameters'],
  { runs, percentiles }: { readonly runs: readonly LoadFigures[]; readonly percentiles: readonly number[] },
): Scenario {
  const values = runs.map(metricValues);
  const ids = [...new Set(values.flatMap((one) => [...one.keys()]))];
  const metrics = ids.map((id): Metric => {
    const samples = values.map((one) => one.get(id)).filter((value) => value !== undefined);
    return toMetric(id, samples);
  });
  const { latencies } = poolFigures(runs);
  const distributions = [
    describe('ttft', latencies.ttft, percentiles),
    describe('tpot', latencies.tpot, percentiles),
    describe('itl', latencies.itl, percentiles),
    describe('e2el', latencies.e2el, percentiles),
    describe('queue', latencies.queue, percentiles),
    describe('e2el_queued', latencies.e2elQueued, percentiles),
  ].filter((distribution) => distribution.count > 0);
  return { name, parameters, metrics, distributions };
}

function describe(id: string, values: readonly number[], wanted: readonly number[]): Distribution {
  const histogram = createHistogram();
  for (const value of values) recordMs(histogram, value);
  const standard = toDistribution(id, histogram);
  const known = standard.percentiles.map(({ percentile }) => percentile);
  const asked = wanted
    .filter((percentile) => !known.includes(percentile))
    .map((percentile) => ({ percentile, value: percentileMs(histogram, percentile) }));
  const percentiles = [...standard.percentiles, ...asked].sort((a, b) => a.percentile - b.percentile);
  return { ...standard, percentiles };
}
