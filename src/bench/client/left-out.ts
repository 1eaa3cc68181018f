import type { LeftOut } from '../gate/left-out.js';
import type { DatasetOptions } from './dataset.js';
import type { ServeBenchOptions } from './options.js';

const QUEUEING = ['queue', 'queue_p99', 'e2el_queued', 'e2el_queued_p99'];
const BETWEEN_TOKENS = ['tpot', 'tpot_p99', 'itl_p50', 'itl_p90', 'itl_p99'];

/** Figures that no request of a load test can have. */
export function leftOutOfLoad(
  options: Pick<ServeBenchOptions, 'goodput' | 'requestRate' | 'dataset'>,
): readonly LeftOut[] {
  const leftOut: LeftOut[] = [];
  if (Object.keys(options.goodput).length === 0) {
    leftOut.push({
      metrics: ['request_goodput'],
      reason: 'no --goodput says what is fast enough',
      suggestion: 'Give limits in milliseconds: --goodput ttft:500 tpot:50.',
    });
  }
  if (options.requestRate === Infinity) {
    leftOut.push({
      metrics: QUEUEING,
      reason: 'without --request-rate no request is due before it is sent',
      suggestion: 'Give a rate: --request-rate 4.',
    });
  }
  if (longestAnswer(options.dataset) === 1) {
    leftOut.push({
      metrics: BETWEEN_TOKENS,
      reason: 'an answer of one token has no time between tokens',
      suggestion: 'Ask for longer answers, for example --random-output-len 128.',
    });
  }
  return leftOut;
}

/** Where flags alone decide about it. */
function longestAnswer({ name, random, sharegptOutputLen, customOutputLen }: DatasetOptions): number {
  if (name === 'random') return Math.ceil(random.outputLen * (1 + random.rangeRatio));
  return (name === 'sharegpt' ? sharegptOutputLen : customOutputLen) ?? Infinity;
}
