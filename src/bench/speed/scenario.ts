import type { Metric, Scenario } from '../report.js';
import { createHistogram, percentileMs, recordMs, toDistribution, toMetric } from '../summarize.js';
import type { LatencyHistogram } from '../summarize.js';
import { caseName } from './cases.js';
import type { RoundSample } from './measure-round.js';
import type { MeasuredRound, ModelProcess } from './model-process.js';
import type { SpeedCase } from './options.js';
import type { SpeedModel } from './plan.js';
import { stepBytes } from './streamed-bytes.js';

/** One repetition, and the machine around it. */
export interface CountedRound extends MeasuredRound {
  /** Of the machine, bytes a second: the better of before and after. */
  readonly readBandwidth: number;
}

const ITL_PERCENTILES = { itl_p50: 50, itl_p90: 90, itl_p99: 99 } as const;

export function scenarioName(model: Pick<SpeedModel, 'name'>, what: SpeedCase): string {
  return `${model.name} ${caseName(what)}`;
}

export function scenarioParameters(
  model: Pick<SpeedModel, 'parameters'>,
  { promptTokens, steps, depth, sequences }: SpeedCase,
): Scenario['parameters'] {
  return {
    ...model.parameters,
    n_prompt: promptTokens,
    n_gen: steps,
    n_depth: depth,
    batch_size: sequences,
  };
}

/** @param rounds at least one */
export function toScenario(
  model: SpeedModel,
  what: SpeedCase,
  rounds: readonly CountedRound[],
  load: ModelProcess['seconds'],
): Scenario {
  const figures = rounds.map((round) => ({
    ...roundMetrics(round.sample),
    ...(round.sample.decode === undefined ? {} : bandwidthMetrics(model, what, round)),
  }));
  const ids = Object.keys(figures[0] ?? {});
  return {
    name: scenarioName(model, what),
    parameters: scenarioParameters(model, what),
    metrics: [
      ...ids.map((id) => toMetric(id, figures.map((figure) => figure[id] as number))), // prettier-ignore
      ...loadMetrics(load),
      toMetric('peak_rss', [Math.max(...rounds.map(({ peakRssBytes }) => peakRssBytes))]),
      toMetric('weight_bytes', [model.weightBytes]),
      toMetric('kv_bytes_per_token', [model.kvBytesPerToken]),
    ],
    distributions: [
      ...(what.promptTokens === 0
        ? []
        : [toDistribution('ttft', record(rounds.map(({ sample }) => sample.prefill?.ttftMs ?? 0)))]),
      ...(what.steps === 0
        ? []
        : [toDistribution('itl', record(rounds.flatMap(({ sample }) => sample.decode?.gapsMs ?? [])))]),
    ],
  };
}

/** Figures of one repetition by metric. */
export function roundMetrics({ prefill, decode }: RoundSample): Readonly<Record<string, number>> {
  const metrics: Record<string, number> = {};
  if (prefill !== undefined) {
    metrics['prefill'] = prefill.tokensPerSecond;
    metrics['ttft'] = prefill.ttftMs;
  }
  if (decode !== undefined) {
    metrics['decode'] = decode.tokensPerSecond;
    metrics['itl_min'] = decode.gapsMs.reduce((least, gap) => Math.min(least, gap), Infinity);
    const gaps = record(decode.gapsMs);
    for (const [id, percentile] of Object.entries(ITL_PERCENTILES))
      metrics[id] = percentileMs(gaps, percentile);
  }
  return metrics;
}

function bandwidthMetrics(
  model: SpeedModel,
  what: SpeedCase,
  { sample, readBandwidth }: CountedRound,
): Readonly<Record<string, number>> {
  const stepsPerSecond = (sample.decode?.tokensPerSecond ?? 0) / what.sequences;
  return {
    bandwidth_share: (stepsPerSecond * stepBytes(model, what)) / readBandwidth,
    read_bandwidth: readBandwidth,
  };
}

function loadMetrics(seconds: ModelProcess['seconds']): readonly Metric[] {
  const phases = Object.entries(seconds);
  const total = phases.reduce((sum, [, value]) => sum + value, 0);
  return [toMetric('load', [total]), ...phases.map(([phase, value]) => toMetric(`load_${phase}`, [value]))];
}

function record(values: readonly number[]): LatencyHistogram {
  const histogram = createHistogram();
  for (const value of values) recordMs(histogram, value);
  return histogram;
}
