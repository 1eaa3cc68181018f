import { describe, expect, it } from 'vitest';
import {
  createHistogram,
  meanInterval,
  percentileMs,
  recordMs,
  studentT,
  toDistribution,
  toMetric,
} from '../../../src/bench/summarize.js';

/** Two-sided 95 % quantiles, as printed in tables of the distribution. */
const T_TABLE: readonly (readonly [degrees: number, t: number])[] = [
  [1, 12.706],
  [2, 4.303],
  [3, 3.182],
  [4, 2.776],
  [5, 2.571],
  [9, 2.262],
  [10, 2.228],
  [29, 2.045],
  [30, 2.042],
  [120, 1.98],
];
const NORMAL = 1.95996;
/** Three significant digits. */
const HISTOGRAM_ERROR = 1e-3;

/** Numbers that look random and are the same every time. */
function* numbers(): Generator<number> {
  let state = 12345;
  while (true) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    yield state / 2 ** 32;
  }
}

describe('Student t', () => {
  it.each(T_TABLE)('has the tabulated quantile for %i degrees of freedom', (degrees, t) => {
    expect(studentT(0.95, degrees)).toBeCloseTo(t, 3);
  });

  it('approaches the normal distribution', () => {
    expect(studentT(0.95, 100_000)).toBeCloseTo(NORMAL, 4);
  });

  it('gives an interval that covers the mean 95 times in 100', () => {
    const source = numbers();
    const next = (): number => source.next().value as number;
    const rounds = 2000;
    let covered = 0;
    for (let round = 0; round < rounds; round++) {
      const samples = Array.from({ length: 5 }, () => next() + next() + next() + next());
      const [low, high] = meanInterval(samples) ?? [NaN, NaN];
      if (low <= 2 && 2 <= high) covered++;
    }
    expect(covered / rounds).toBeGreaterThan(0.93);
    expect(covered / rounds).toBeLessThan(0.97);
  });
});

describe('toMetric', () => {
  it('is mean, sample standard deviation and interval', () => {
    const metric = toMetric('decode', [10, 12, 14]);
    expect(metric).toMatchObject({ id: 'decode', value: 12, samples: [10, 12, 14], std: 2 });
    const half = (4.30265 * 2) / Math.sqrt(3);
    expect(metric.interval?.[0]).toBeCloseTo(12 - half, 4);
    expect(metric.interval?.[1]).toBeCloseTo(12 + half, 4);
  });

  it('has no interval of one sample', () => {
    expect(toMetric('weight_bytes', [7])).toEqual({
      id: 'weight_bytes',
      value: 7,
      samples: [7],
      std: 0,
      interval: null,
    });
  });

  it.each([
    ['rss', [1]], // an alias
    ['nothing', [1]],
    ['decode', []],
    ['decode', [1, Number.NaN]],
  ] as const)('refuses %s of %j', (id, samples) => {
    expect(() => toMetric(id, samples)).toThrow(id);
  });
});

describe('toDistribution', () => {
  it('has no percentile beyond the largest value', () => {
    const histogram = createHistogram();
    for (const ms of [2.07, 8.9313]) recordMs(histogram, ms);
    const { max, percentiles } = toDistribution('ttft', histogram);
    expect(Math.max(...percentiles.map(({ value }) => value))).toBe(max);
  });

  it('is within three digits of exact percentiles', () => {
    const source = numbers();
    const values = Array.from({ length: 5000 }, () => 0.05 + 400 * (source.next().value as number) ** 8);
    const histogram = createHistogram();
    for (const value of values) recordMs(histogram, value);
    const sorted = [...values].sort((a, b) => a - b);
    const distribution = toDistribution('itl', histogram);
    expect(distribution).toMatchObject({ id: 'itl', unit: 'ms', count: 5000 });
    expect(distribution.percentiles.map(({ percentile }) => percentile)).toEqual(
      expect.arrayContaining([50, 90, 99]),
    );
    for (const { percentile, value } of distribution.percentiles) {
      const exact = sorted[Math.ceil((percentile / 100) * sorted.length) - 1] ?? NaN;
      // Half a microsecond more where values are as small as the unit.
      expect(Math.abs(value - exact), `p${percentile}`).toBeLessThan(exact * HISTOGRAM_ERROR + 0.0011);
    }
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    expect(distribution.mean / mean).toBeCloseTo(1, 2);
    expect(distribution.min).toBeCloseTo(sorted[0] ?? NaN, 2);
    expect(distribution.max / (sorted.at(-1) ?? NaN)).toBeCloseTo(1, 2);
  });

  it('takes nothing and more than it can count', () => {
    const histogram = createHistogram();
    expect(toDistribution('ttft', histogram).count).toBe(0);
    recordMs(histogram, 5 * 3_600_000);
    recordMs(histogram, -1);
    expect(percentileMs(histogram, 0)).toBe(0);
    expect(percentileMs(histogram, 100) / 3_600_000).toBeCloseTo(1, 2);
  });
});
