import type { BenchKind } from './report.js';

/** How a figure is printed. */
export type MetricUnit =
  'tok/s' | 'req/s' | 'ms' | 's' | 'bytes' | 'bytes/s' | 'share' | 'nats' | 'count' | 'none' | 'dB';

export interface MetricInfo {
  readonly id: string;
  /** Other spellings that --fail-if takes. */
  readonly aliases: readonly string[];
  readonly title: string;
  readonly unit: MetricUnit;
  /** Which way is an improvement. */
  readonly better: 'higher' | 'lower' | 'neither';
  /** Repeating gives other figures, so a verdict needs statistics. */
  readonly noisy: boolean;
}

const row = (
  id: string,
  title: string,
  [unit, better, noise]: readonly [MetricUnit, MetricInfo['better'], 'noisy' | 'exact'],
  aliases: readonly string[] = [],
): MetricInfo => ({ id, title, unit, better, noisy: noise === 'noisy', aliases });

/** Every figure that some `fdq bench` command reports, in the order of tables. */
export const METRICS: readonly MetricInfo[] = [
  row('prefill', 'Prompt speed', ['tok/s', 'higher', 'noisy'], ['pp', 'prompt']),
  row('decode', 'Decode speed, all sequences', ['tok/s', 'higher', 'noisy'], ['tg', 'generation']),
  row('bandwidth_share', 'Decode, share of read bandwidth', ['share', 'higher', 'noisy']),
  row('read_bandwidth', 'Read bandwidth of the machine', ['bytes/s', 'neither', 'noisy']),
  row('ttft', 'Time to first token, mean', ['ms', 'lower', 'noisy']),
  row('ttft_p50', 'Time to first token, median', ['ms', 'lower', 'noisy']),
  row('ttft_p99', 'Time to first token, 99th percentile', ['ms', 'lower', 'noisy']),
  row('tpot', 'Time per output token after the first, mean', ['ms', 'lower', 'noisy']),
  row('tpot_p99', 'Time per output token, 99th percentile', ['ms', 'lower', 'noisy']),
  row('itl_p50', 'Inter-token latency, median', ['ms', 'lower', 'noisy'], ['itl']),
  row('itl_p90', 'Inter-token latency, 90th percentile', ['ms', 'lower', 'noisy']),
  row('itl_p99', 'Inter-token latency, 99th percentile', ['ms', 'lower', 'noisy']),
  row('e2el', 'End-to-end latency, mean', ['ms', 'lower', 'noisy']),
  row('e2el_p99', 'End-to-end latency, 99th percentile', ['ms', 'lower', 'noisy']),
  row('e2el_queued', 'Due time to end of the answer, mean', ['ms', 'lower', 'noisy']),
  row('e2el_queued_p99', 'Due time to end of the answer, 99th percentile', ['ms', 'lower', 'noisy']),
  row('queue', 'Due time to sending, mean', ['ms', 'lower', 'noisy']),
  row('queue_p99', 'Due time to sending, 99th percentile', ['ms', 'lower', 'noisy']),
  row('client_lag_p99', "Lag of the client's event loop, 99th percentile", ['ms', 'lower', 'noisy']),
  row('request_throughput', 'Requests', ['req/s', 'higher', 'noisy']),
  row('output_throughput', 'Generated tokens', ['tok/s', 'higher', 'noisy']),
  row('total_token_throughput', 'Prompt and generated tokens', ['tok/s', 'higher', 'noisy']),
  row('request_goodput', 'Requests within their limits', ['req/s', 'higher', 'noisy'], ['goodput']),
  row('error_rate', 'Requests that failed', ['share', 'lower', 'exact'], ['errors']),
  row('retries', 'Requests sent again', ['count', 'lower', 'exact']),
  row('load', 'Load time', ['s', 'lower', 'noisy']),
  row('load_locate', 'Load: find files', ['s', 'lower', 'noisy']),
  row('load_plan', 'Load: plan', ['s', 'lower', 'noisy']),
  row('load_quantize', 'Load: read and quantize', ['s', 'lower', 'noisy']),
  row('load_build', 'Load: build the session', ['s', 'lower', 'noisy']),
  row('load_warm_up', 'Load: warm up', ['s', 'lower', 'noisy']),
  row('peak_rss', 'Peak resident memory', ['bytes', 'lower', 'noisy'], ['rss']),
  row('weight_bytes', 'Weights in memory', ['bytes', 'lower', 'exact'], ['bytes']),
  row('kv_bytes_per_token', 'KV cache a token', ['bytes', 'lower', 'exact']),
  row('perplexity', 'Perplexity', ['none', 'lower', 'exact'], ['ppl']),
  row('nll', 'Negative log likelihood a token', ['nats', 'lower', 'exact']),
  row('kl', 'KL divergence from the unquantized model', ['nats', 'lower', 'exact'], ['kld']),
  row('kl_p99', 'KL divergence, 99th percentile of tokens', ['nats', 'lower', 'exact']),
  row('top1', 'Same most likely token', ['share', 'higher', 'exact'], ['top1_agreement']),
  row('accuracy', 'Exact-match accuracy', ['share', 'higher', 'exact'], ['acc']),
  row('layer_frobenius', 'Relative error of the weights', ['share', 'lower', 'exact'], ['frobenius']),
  row('layer_sqnr_min', 'Worst layer, signal to noise', ['dB', 'higher', 'exact'], ['sqnr']),
];

const SPEED =
  'prefill decode bandwidth_share read_bandwidth ttft itl_p50 itl_p90 itl_p99 load load_locate load_plan';
const MEMORY = 'load_quantize load_build load_warm_up peak_rss weight_bytes kv_bytes_per_token';
const QUALITY = 'weight_bytes perplexity nll kl kl_p99 top1 accuracy layer_frobenius layer_sqnr_min';
const LATENCY =
  'ttft ttft_p50 ttft_p99 tpot tpot_p99 itl_p50 itl_p90 itl_p99 e2el e2el_p99 e2el_queued e2el_queued_p99';
const LOAD = 'queue queue_p99 client_lag_p99 request_throughput output_throughput total_token_throughput';
const REQUESTS = 'request_goodput error_rate retries';

/** Ids that a report of each command may hold. */
export const MEASURED: Readonly<Record<BenchKind, readonly string[]>> = {
  speed: `${SPEED} ${MEMORY}`.split(' '),
  serve: `${LATENCY} ${LOAD} ${REQUESTS}`.split(' '),
  quality: QUALITY.split(' '),
};

/** By id or alias; undefined for none. */
export function findMetric(name: string): MetricInfo | undefined {
  const wanted = name.toLowerCase();
  return METRICS.find(({ id, aliases }) => id === wanted || aliases.includes(wanted));
}
