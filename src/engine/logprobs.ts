import type { SamplingResult } from '../runtime/addon.js';
import type { TokenLogprob } from './types.js';

/** Row `row` of a step's result with at most `numTop` alternatives. */
export function readLogprob(result: SamplingResult, row: number, numTop: number): TokenLogprob {
  const top: { id: number; logprob: number }[] = [];
  const start = row * result.topStride;
  for (let place = start; place < start + Math.min(numTop, result.topStride); place++) {
    const id = result.topIds[place] ?? -1;
    if (id < 0) break;
    top.push({ id, logprob: result.topLogprobs[place] ?? Number.NEGATIVE_INFINITY });
  }
  return {
    id: result.ids[row] ?? -1,
    logprob: result.logprobs[row] ?? Number.NEGATIVE_INFINITY,
    rank: result.ranks[row] ?? 0,
    top,
  };
}
