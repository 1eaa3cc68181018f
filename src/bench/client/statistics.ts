/** Mean, spread and percentiles of single events, as NumPy computes them, so that figures compare with vLLM's. */
export interface Spread {
  readonly mean: number;
  readonly median: number;
  /** Population standard deviation. */
  readonly std: number;
  readonly percentile: (percentile: number) => number;
}

/** All are 0 of no values, as in vLLM's documents. */
export function describeSpread(values: readonly number[]): Spread {
  const sorted = Float64Array.from(values).sort();
  const count = sorted.length;
  const mean = count === 0 ? 0 : sorted.reduce((sum, value) => sum + value, 0) / count;
  const variance = count === 0 ? 0 : sorted.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count;
  const percentile = (wanted: number): number => interpolate(sorted, wanted / 100);
  return { mean, median: percentile(50), std: Math.sqrt(variance), percentile };
}

/** Linear between the two nearest ranks. */
function interpolate(sorted: Float64Array, share: number): number {
  const at = share * (sorted.length - 1);
  const low = sorted[Math.floor(at)] ?? 0;
  const high = sorted[Math.ceil(at)] ?? 0;
  return low + (high - low) * (at - Math.floor(at));
}
