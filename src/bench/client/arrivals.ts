import type { RandomSource } from './random-source.js';

export interface ArrivalOptions {
  readonly count: number;
  /** Requests a second, above 0; Infinity: all at once. */
  readonly rate: number;
  /** Shape of the gamma distribution of the gaps, above 0: 1 is a Poisson process, Infinity is even spacing. */
  readonly burstiness: number;
  readonly random: RandomSource;
}

/**
 * When each request is due, in milliseconds from the start, ascending. As in vLLM's client the gaps are stretched so that
 * the last one is due after count / rate seconds: another seed is another order of gaps, not another load.
 */
export function scheduleArrivals({ count, rate, burstiness, random }: ArrivalOptions): readonly number[] {
  if (rate === Infinity) return Array.from({ length: count }, () => 0);
  const gaps = Array.from({ length: count }, () => (burstiness === Infinity ? 1 : random.gamma(burstiness)));
  const total = gaps.reduce((sum, gap) => sum + gap, 0);
  const scale = (1000 * count) / rate / total;
  let at = 0;
  return gaps.map((gap) => (at += gap * scale));
}
