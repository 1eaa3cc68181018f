import { mean, probit, sampleStandardDeviation } from 'simple-statistics';
import { studentT } from '../summarize.js';

/** A figure with a confidence interval, whose ends may be infinite where the samples are too few for one. */
export interface Estimate {
  readonly value: number;
  readonly interval: readonly [low: number, high: number];
}

/** Up to so many samples, on the larger side or alone, ranks are counted; above it the normal distribution stands in. */
const EXACT_SIZE = 40;
/** However large the other side is: the normal distribution's tails are far too wide for a few samples against many. */
const EXACT_SMALLER_SIZE = 20;

/**
 * How far the first samples are above the second: the Hodges-Lehmann median of all differences, with the interval that
 * inverts the Wilcoxon-Mann-Whitney test (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 2014,
 * sections 4.2 and 4.3). Holds for any two distributions of the same shape. The interval is infinite where no order of
 * so few samples is rare enough: three and three at 5 %.
 * @param alpha how often the interval may miss
 */
export function rankSumShift(first: readonly number[], second: readonly number[], alpha: number): Estimate {
  const differences = Float64Array.from(first.flatMap((a) => second.map((b) => a - b))).sort();
  return orderInterval(differences, rankSumQuantile(first.length, second.length, alpha));
}

/** Whether `rankSumShift` knows an interval of m and n samples, whatever they are. */
export function hasRankSumInterval(m: number, n: number, alpha: number): boolean {
  return rankSumQuantile(m, n, alpha) > 0;
}

function rankSumQuantile(m: number, n: number, alpha: number): number {
  const [fewer, more] = [Math.min(m, n), Math.max(m, n)];
  if (more <= EXACT_SIZE || fewer <= EXACT_SMALLER_SIZE)
    return exactQuantile(rankSumCounts(fewer, more), alpha);
  return normalQuantile((m * n) / 2, Math.sqrt((m * n * (m + n + 1)) / 12), alpha);
}

/**
 * The centre of samples symmetric around it: the Hodges-Lehmann median of all pairwise means, with the interval that
 * inverts Wilcoxon's signed rank test (same book, sections 3.2 and 3.3). Heavy tails do no harm. Of log ratios of two
 * measurements whose order a fair coin decided, it holds whatever else happens on the machine: the coins make the
 * signs of the noise independent.
 * @param alpha how often the interval may miss
 */
export function signedRankCentre(samples: readonly number[], alpha: number): Estimate {
  const n = samples.length;
  const means = new Float64Array((n * (n + 1)) / 2);
  let at = 0;
  for (const [i, a] of samples.entries())
    for (let j = i; j < n; j++) means[at++] = (a + (samples[j] as number)) / 2;
  means.sort();
  const mean = (n * (n + 1)) / 4;
  const deviation = Math.sqrt((n * (n + 1) * (2 * n + 1)) / 24);
  const skipped =
    n <= EXACT_SIZE ? exactQuantile(signedRankCounts(n), alpha) : normalQuantile(mean, deviation, alpha);
  return orderInterval(means, skipped);
}

/** Ways to reach each sum of ranks: how many subsets of 1..n have the sum of the index. */
function signedRankCounts(n: number): Float64Array {
  const counts = new Float64Array((n * (n + 1)) / 2 + 1);
  counts[0] = 1;
  for (let rank = 1; rank <= n; rank++) {
    for (let sum = counts.length - 1; sum >= rank; sum--)
      counts[sum] = countAt(counts, sum) + countAt(counts, sum - rank);
  }
  return counts;
}

/** How many of the orders of m and n samples have the Mann-Whitney statistic of the index: a Gaussian binomial. */
function rankSumCounts(m: number, n: number): Float64Array {
  const counts = new Float64Array(m * n + 1);
  counts[0] = 1;
  for (let i = 1; i <= m; i++) {
    for (let sum = counts.length - 1; sum >= n + i; sum--)
      counts[sum] = countAt(counts, sum) - countAt(counts, sum - n - i);
    for (let sum = i; sum < counts.length; sum++)
      counts[sum] = countAt(counts, sum) + countAt(counts, sum - i);
  }
  return counts;
}

function countAt(counts: Float64Array, index: number): number {
  return counts[index] ?? 0;
}

/** How many of the smallest and of the largest values an interval leaves out: the largest c with P(T < c) <= alpha / 2. */
function exactQuantile(counts: Float64Array, alpha: number): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let below = 0;
  let skipped = 0;
  while (skipped < counts.length) {
    below += countAt(counts, skipped);
    if (below > (alpha / 2) * total) break;
    skipped++;
  }
  return skipped;
}

function normalQuantile(mean: number, deviation: number, alpha: number): number {
  return Math.max(0, Math.floor(mean + 0.5 + probit(alpha / 2) * deviation));
}

/** The median of sorted values, and what is left when `skipped` are taken off both ends; 0: everything. */
function orderInterval(sorted: Float64Array, skipped: number): Estimate {
  const middle = sorted.length / 2;
  const value = ((sorted[Math.ceil(middle) - 1] ?? NaN) + (sorted[Math.floor(middle)] ?? NaN)) / 2;
  const low = sorted[skipped - 1] ?? -Infinity;
  const high = sorted[sorted.length - skipped] ?? Infinity;
  return { value, interval: [low, high] };
}

/** Log ratios of the pairs of one launch of both builds. */
export type Launch = readonly number[];

/** Fewer do not tell what a process keeps for life from a change. */
export const MIN_LAUNCHES = 3;
/** Pairs below which the end of the time has cut a launch short: it does not tell what its processes keep. */
export const MIN_PAIRS_PER_LAUNCH = 8;

/**
 * The change between two builds that were measured in pairs, as a log ratio. Two intervals have to agree, so the wider
 * end counts on both sides: that of all pairs, which meets the noise of rounds, and that of the launches' centres. What
 * a process keeps for life (where its memory lies, which core it is put on) is the same in all pairs of a launch, and
 * only other launches average it out. Infinite of fewer than three whole launches.
 * @param alpha how often the interval may miss
 */
export function pairedShift(launches: readonly Launch[], alpha: number): Estimate {
  const { value, interval } = signedRankCentre(launches.flat(), alpha);
  const whole = launches.filter(({ length }) => length >= MIN_PAIRS_PER_LAUNCH);
  if (whole.length < MIN_LAUNCHES) return { value, interval: [-Infinity, Infinity] };
  const [low, high] = launchInterval(
    whole.map((pairs) => signedRankCentre(pairs, alpha).value),
    alpha,
  );
  return { value, interval: [Math.min(interval[0], low), Math.max(interval[1], high)] };
}

/** Student's interval of the mean until there are enough for ranks, which stalls that last for a launch do not stretch. */
function launchInterval(centres: readonly number[], alpha: number): Estimate['interval'] {
  const { interval } = signedRankCentre(centres, alpha);
  if (interval.every(Number.isFinite)) return interval;
  const centre = mean([...centres]);
  const error = sampleStandardDeviation([...centres]) / Math.sqrt(centres.length);
  const half = studentT(1 - alpha, centres.length - 1) * error;
  return [centre - half, centre + half];
}
