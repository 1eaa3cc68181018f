import { divideFloat32 } from './rounding.js';

/** Which scales to try for a group of weights, and what a scale makes of them. */
export interface ScaleSearch {
  /** The first candidate, of the largest magnitude; 0 where all weights are 0 or the scale underflows. */
  readonly first: (values: Float32Array) => number;
  /** Candidates: (STEPS - c) / STEPS of the first for c = 0 .. candidates - 1. */
  readonly candidates: number;
  /** A candidate as the format can hold it; 0 or not finite: it is skipped. */
  readonly round: (scale: number) => number;
  /** The code of w / scale, and its value. */
  readonly encode: (quotient: number) => number;
  readonly decode: (code: number) => number;
  /** Where no candidate is left: all weights are 0, or the scale underflows. */
  readonly fallback: number;
}

/** Candidates are this many to the full range. */
const STEPS = 64;

/**
 * The scale with the smallest squared error of a group: sum over its weights in order of
 * (w - code * scale)^2 in double precision, each operation rounded once. Of equal errors the earlier candidate wins,
 * which is the larger scale. This is the grid search for a clipping range by mean squared error of Nagel et al. 2021 (arXiv:2106.08295, section 3.1).
 * @param values one group, finite
 */
export function searchScale(values: Float32Array, search: ScaleSearch): number {
  const first = search.first(values);
  let best = search.fallback;
  let bestError = Infinity;
  for (let c = 0; c < search.candidates; c++) {
    const scale = search.round(Math.fround(first * ((STEPS - c) / STEPS)));
    if (scale === 0 || !Number.isFinite(scale)) continue;
    const error = squaredError(values, scale, search);
    if (error < bestError) {
      best = scale;
      bestError = error;
    }
  }
  return best;
}

/** The element of the largest magnitude, the first of several; 0 of none. */
export function extremeOf(values: Float32Array): number {
  let extreme = 0;
  for (const value of values) if (Math.abs(value) > Math.abs(extreme)) extreme = value;
  return extreme;
}

function squaredError(values: Float32Array, scale: number, { encode, decode }: ScaleSearch): number {
  let sum = 0;
  for (const value of values) {
    const difference = value - decode(encode(divideFloat32(value, scale))) * scale;
    sum += difference * difference;
  }
  return sum;
}
