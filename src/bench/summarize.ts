import { build, type Histogram } from 'hdr-histogram-js';
import { mean, sampleStandardDeviation } from 'simple-statistics';
import { BugError } from '../errors.js';
import { findMetric } from './metrics.js';
import type { Distribution, Metric } from './report.js';

/** Durations are recorded in whole microseconds, up to an hour, with three significant digits. */
const MICROSECONDS = 1000;
const MAX_MICROSECONDS = 3600 * 1_000_000;
const SIGNIFICANT_DIGITS = 3;
const CONFIDENCE = 0.95;
const PERCENTILES = [1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9] as const;

export type LatencyHistogram = Histogram;

export function createHistogram(): LatencyHistogram {
  return build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: MAX_MICROSECONDS,
    numberOfSignificantValueDigits: SIGNIFICANT_DIGITS,
  });
}

/** Longer than an hour counts as an hour. */
export function recordMs(histogram: LatencyHistogram, ms: number): void {
  histogram.recordValue(Math.min(MAX_MICROSECONDS, Math.max(0, Math.round(ms * MICROSECONDS))));
}

/** @param percentile 0 .. 100 */
export function percentileMs(histogram: LatencyHistogram, percentile: number): number {
  // The histogram says the upper end of a bucket, which may lie beyond all values.
  return Math.min(histogram.getValueAtPercentile(percentile), histogram.maxValue) / MICROSECONDS;
}

/** @param id what was recorded: `ttft`, `itl`, `tpot` or `e2el` */
export function toDistribution(id: string, histogram: LatencyHistogram): Distribution {
  return {
    id,
    unit: 'ms',
    count: histogram.totalCount,
    mean: histogram.mean / MICROSECONDS,
    std: histogram.stdDeviation / MICROSECONDS,
    min: percentileMs(histogram, 0),
    max: histogram.maxValue / MICROSECONDS,
    percentiles: PERCENTILES.map((percentile) => ({
      percentile,
      value: percentileMs(histogram, percentile),
    })),
  };
}

/**
 * @param id a row of METRICS
 * @param samples one a repetition, at least one
 */
export function toMetric(id: string, samples: readonly number[]): Metric {
  if (findMetric(id)?.id !== id) throw new BugError(`${id} is no metric`);
  if (samples.length === 0 || !samples.every(Number.isFinite)) {
    throw new BugError(`${id} has samples [${samples.join(', ')}]`);
  }
  const values = [...samples];
  return {
    id,
    value: mean(values),
    samples: values,
    std: values.length < 2 ? 0 : sampleStandardDeviation(values),
    interval: meanInterval(values),
  };
}

/** 95 % confidence interval of the mean by Student's t; null of fewer than two samples. */
export function meanInterval(samples: readonly number[]): readonly [low: number, high: number] | null {
  if (samples.length < 2) return null;
  const values = [...samples];
  const center = mean(values);
  const half =
    (studentT(CONFIDENCE, values.length - 1) * sampleStandardDeviation(values)) / Math.sqrt(values.length);
  return [center - half, center + half];
}

/**
 * The t that a Student-distributed value stays within, on both sides of zero, with the probability `confidence`.
 * Bisects the closed form of the distribution for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4).
 */
export function studentT(confidence: number, degrees: number): number {
  let [low, high] = [0, Math.PI / 2];
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2;
    if (probabilityWithin(middle, degrees) < confidence) low = middle;
    else high = middle;
  }
  return Math.tan(low) * Math.sqrt(degrees);
}

/** @param angle atan(t / sqrt(degrees)) */
function probabilityWithin(angle: number, degrees: number): number {
  const [sine, cosine] = [Math.sin(angle), Math.cos(angle)];
  const isOdd = degrees % 2 === 1;
  let term = isOdd ? cosine : 1;
  let sum = 0;
  for (let k = isOdd ? 1 : 0; k <= degrees - 2; k += 2) {
    sum += term;
    term *= ((k + 1) / (k + 2)) * cosine ** 2;
  }
  return isOdd ? (2 / Math.PI) * (angle + sine * sum) : sine * sum;
}
