import { describe, expect, it } from 'vitest';
import { pairedShift, rankSumShift, signedRankCentre } from '../../../../src/bench/gate/statistics.js';

/** Every subset of 0..n-1 as a bit mask. */
function subsets(n: number): readonly number[] {
  return Array.from({ length: 2 ** n }, (_, mask) => mask);
}

/** P(W <= w) of Wilcoxon's signed rank sum, by enumeration. */
function signedRankTail(n: number, w: number): number {
  const sums = subsets(n).map((mask) =>
    Array.from({ length: n }, (_, i) => ((mask >> i) & 1) * (i + 1)).reduce((a, b) => a + b, 0),
  );
  return sums.filter((sum) => sum <= w).length / sums.length;
}

/** P(U <= u) of the Mann-Whitney statistic, by enumeration. */
function rankSumTail(m: number, n: number, u: number): number {
  const orders = subsets(m + n).filter((mask) => mask.toString(2).replaceAll('0', '').length === m);
  const statistics = orders.map((mask) => {
    let smaller = 0;
    let statistic = 0;
    for (let i = 0; i < m + n; i++) {
      if (((mask >> i) & 1) === 0) smaller++;
      else statistic += smaller;
    }
    return statistic;
  });
  return statistics.filter((value) => value <= u).length / statistics.length;
}

/** Samples of which all pairwise means (or differences to `others`) are distinct. */
const distinct = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => 2 ** i);

describe('signedRankCentre', () => {
  it.each([6, 8, 10, 12])('leaves out what is rarer than 2.5 %% of either side of %i samples', (n) => {
    const samples = distinct(n);
    const means = samples.flatMap((a, i) => samples.slice(i).map((b) => (a + b) / 2)).sort((a, b) => a - b);
    const { interval } = signedRankCentre(samples, 0.05);
    const skipped = means.indexOf(interval[0]) + 1;
    expect(skipped).toBeGreaterThan(0);
    expect(interval[1]).toBe(means[means.length - skipped]);
    expect(signedRankTail(n, skipped - 1)).toBeLessThanOrEqual(0.025);
    expect(signedRankTail(n, skipped)).toBeGreaterThan(0.025);
  });

  it('knows no interval of five samples, as all of one sign are no rarer than 6 %', () => {
    expect(signedRankCentre([1, 2, 3, 4, 5], 0.05)).toEqual({ value: 3, interval: [-Infinity, Infinity] });
  });

  it('goes over to the normal approximation without a jump', () => {
    const width = (n: number): number => {
      const [low, high] = signedRankCentre(
        Array.from({ length: n }, (_, i) => i / (n - 1)),
        0.05,
      ).interval;
      return high - low;
    };
    expect(width(40) / width(41)).toBeCloseTo(Math.sqrt(41 / 40), 1);
  });

  it('is not moved by a wild sample', () => {
    const samples = Array.from({ length: 20 }, (_, i) => i / 100);
    const { value, interval } = signedRankCentre([...samples.slice(1), 1e9], 0.05);
    expect(value).toBeCloseTo(0.105, 2);
    expect(interval[1]).toBeLessThan(0.15);
  });
});

describe('rankSumShift', () => {
  it.each([
    [5, 5],
    [4, 7],
    [7, 4],
    [6, 8],
  ])('leaves out what is rarer than 2.5 %% of either side of %i and %i samples', (m, n) => {
    const first = distinct(m + n)
      .filter((_, i) => i % 2 === 0 || i >= 2 * n)
      .slice(0, m);
    const second = Array.from({ length: n }, (_, i) => 3 ** i * 0.7);
    const differences = first.flatMap((a) => second.map((b) => a - b)).sort((a, b) => a - b);
    const { interval } = rankSumShift(first, second, 0.05);
    const skipped = differences.indexOf(interval[0]) + 1;
    expect(skipped).toBeGreaterThan(0);
    expect(interval[1]).toBe(differences[differences.length - skipped]);
    expect(rankSumTail(m, n, skipped - 1)).toBeLessThanOrEqual(0.025);
    expect(rankSumTail(m, n, skipped)).toBeGreaterThan(0.025);
  });

  it.each([5, 20])('counts orders of %i samples against any number of others', (few) => {
    const stored = Array.from({ length: few }, (_, i) => i / 100);
    const widthOf = (many: number): number => {
      const { interval } = rankSumShift(
        Array.from({ length: many }, (_, i) => i / many),
        stored,
        0.0009,
      );
      return interval[1] - interval[0];
    };
    // More samples of the same spread make no interval wider.
    expect(widthOf(41)).toBeLessThan(widthOf(40) + 0.01);
    expect(widthOf(200)).toBeLessThan(widthOf(40));
  });

  it('knows no interval of three and three samples', () => {
    expect(rankSumShift([4, 5, 6], [1, 2, 3], 0.05).interval).toEqual([-Infinity, Infinity]);
  });

  it('finds a shift', () => {
    const before = [1.01, 0.99, 1, 1.02, 0.98];
    const { value, interval } = rankSumShift(
      before.map((sample) => sample + 0.5),
      before,
      0.05,
    );
    expect(value).toBeCloseTo(0.5, 6);
    expect(interval[0]).toBeGreaterThan(0.45);
    expect(interval[1]).toBeLessThan(0.55);
  });
});

describe('pairedShift', () => {
  const launch = (centre: number): readonly number[] =>
    Array.from({ length: 12 }, (_, i) => centre + (i - 5.5) / 1000);

  it('is the signed rank interval where launches do not differ', () => {
    const launches = [launch(0.1), launch(0.1), launch(0.1)];
    expect(pairedShift(launches, 0.05)).toEqual(signedRankCentre(launches.flat(), 0.05));
  });

  it('is wider where each launch has a speed of its own', () => {
    const { value, interval } = pairedShift([launch(0.05), launch(0.1), launch(0.15)], 0.05);
    expect(value).toBeCloseTo(0.1, 3);
    // t of 2 degrees of freedom is 4.303.
    expect(interval[0]).toBeCloseTo(0.1 - (4.303 * 0.05) / Math.sqrt(3), 3);
    expect(interval[1]).toBeCloseTo(0.1 + (4.303 * 0.05) / Math.sqrt(3), 3);
  });

  it('does not learn from a launch that was cut short what launches differ by', () => {
    const launches = [launch(0.1), launch(0.1), launch(0.1), [0.5]];
    expect(pairedShift(launches, 0.05)).toEqual(signedRankCentre(launches.flat(), 0.05));
    expect(pairedShift(launches.slice(1), 0.05).interval).toEqual([-Infinity, Infinity]);
  });

  it('knows no interval of two launches', () => {
    expect(pairedShift([launch(0.1), launch(0.1)], 0.05).interval).toEqual([-Infinity, Infinity]);
  });
});
