import { mean, standardDeviation } from 'simple-statistics';
import { describe, expect, it } from 'vitest';
import { scheduleArrivals } from '../../../../src/bench/client/arrivals.js';
import { RandomSource } from '../../../../src/bench/client/random-source.js';

const COUNT = 20_000;
const RATE = 50;

function gapsOf(burstiness: number, seed = 1): number[] {
  const due = scheduleArrivals({ count: COUNT, rate: RATE, burstiness, random: new RandomSource(seed) });
  return due.map((at, i) => at - (due[i - 1] ?? 0));
}

describe('scheduleArrivals', () => {
  // The coefficient of variation of a gamma distribution is 1 / sqrt(shape); its sample error here is below 2 %.
  it.each([
    [1, 1],
    [0.25, 2],
    [4, 0.5],
    [Infinity, 0],
  ])('with burstiness %d varies by %d of the mean gap', (burstiness, variation) => {
    const gaps = gapsOf(burstiness);
    expect(mean(gaps)).toBeCloseTo(1000 / RATE, 6);
    expect(standardDeviation(gaps) / mean(gaps)).toBeCloseTo(variation, 1);
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(0);
  });

  it('is a Poisson process at 1: as many gaps exceed t as e^-t says', () => {
    const gaps = gapsOf(1).map((gap) => (gap * RATE) / 1000);
    for (const t of [0.1, 0.5, 1, 2, 3]) {
      expect(gaps.filter((gap) => gap > t).length / COUNT).toBeCloseTo(Math.exp(-t), 1.7);
    }
  });

  it('ends after count / rate whatever the seed, and repeats with the same one', () => {
    const make = (seed: number): readonly number[] =>
      scheduleArrivals({ count: 10, rate: 4, burstiness: 1, random: new RandomSource(seed) });
    expect(make(1).at(-1)).toBeCloseTo(2500, 9);
    expect(make(2).at(-1)).toBeCloseTo(2500, 9);
    expect(make(1)).toEqual(make(1));
    expect(make(1)).not.toEqual(make(2));
    expect(make(1)).toEqual([...make(1)].sort((a, b) => a - b));
  });

  it('is all at once at an infinite rate', () => {
    const random = new RandomSource(1);
    expect(scheduleArrivals({ count: 3, rate: Infinity, burstiness: 1, random })).toEqual([0, 0, 0]);
  });
});

describe('RandomSource', () => {
  it.each([0.3, 1, 2.5, 9])('draws gamma(%d) with its mean, variance and third moment', (shape) => {
    const random = new RandomSource(7);
    const values = Array.from({ length: COUNT * 3 }, () => random.gamma(shape));
    const average = mean(values);
    const variance = mean(values.map((value) => (value - average) ** 2));
    const skewness = mean(values.map((value) => (value - average) ** 3)) / variance ** 1.5;
    expect(average / shape).toBeCloseTo(1, 1);
    expect(variance / shape).toBeCloseTo(1, 1);
    expect(skewness / (2 / Math.sqrt(shape))).toBeGreaterThan(0.85);
    expect(skewness / (2 / Math.sqrt(shape))).toBeLessThan(1.15);
  });

  it('reaches both ends of a range and shuffles without losing anything', () => {
    const random = new RandomSource(3);
    const seen = new Set(Array.from({ length: 200 }, () => random.integer(2, 5)));
    expect([...seen].sort()).toEqual([2, 3, 4, 5]);
    const items = Array.from({ length: 50 }, (_, i) => i);
    const shuffled = random.shuffle(items);
    expect(shuffled).not.toEqual(items);
    expect([...shuffled].sort((a, b) => a - b)).toEqual(items);
  });
});
