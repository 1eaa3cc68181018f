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
  /** Commands that may report it. */
  readonly kinds: readonly BenchKind[];
}

const row = (
  id: string,
  title: string,
  [unit, better, noise, ...kinds]: readonly [
    MetricUnit,
    MetricInfo['better'],
    'noisy' | 'exact',
    ...(readonly BenchKind[]),
  ],
  aliases: readonly string[] = [],
): MetricInfo => ({ id, title, unit, better, noisy: noise === 'noisy', kinds, aliases });

/** Every figure that some `fdq bench` command reports, in the order of tables. */
export const METRICS: readonly MetricInfo[] = [
  row('prefill', 'Prompt speed', ['tok/s', 'higher', 'noisy', 'speed'], ['pp', 'prompt']),
  row('decode', 'Decode speed, all sequences', ['tok/s', 'higher', 'noisy', 'speed'], ['tg', 'generation']),
  row('bandwidth_share', 'Decode, share of read bandwidth', ['share', 'higher', 'noisy', 'speed']),
  row('read_bandwidth', 'Read bandwidth of the machine', ['bytes/s', 'neither', 'noisy', 'speed']),
  row('ttft', 'Time to first token, mean', ['ms', 'lower', 'noisy', 'speed', 'serve']),
  row('ttft_p50', 'Time to first token, median', ['ms', 'lower', 'noisy', 'serve']),
  row('ttft_p99', 'Time to first token, 99th percentile', ['ms', 'lower', 'noisy', 'serve']),
  row('tpot', 'Time per output token after the first, mean', ['ms', 'lower', 'noisy', 'serve']),
  row('tpot_p99', 'Time per output token, 99th percentile', ['ms', 'lower', 'noisy', 'serve']),
  row('itl_min', 'Inter-token latency, fastest step', ['ms', 'lower', 'noisy', 'speed']),
  row('itl_p50', 'Inter-token latency, median', ['ms', 'lower', 'noisy', 'speed', 'serve'], ['itl']),
  row('itl_p90', 'Inter-token latency, 90th percentile', ['ms', 'lower', 'noisy', 'speed', 'serve']),
  row('itl_p99', 'Inter-token latency, 99th percentile', ['ms', 'lower', 'noisy', 'speed', 'serve']),
  row('e2el', 'End-to-end latency, mean', ['ms', 'lower', 'noisy', 'serve']),
  row('e2el_p99', 'End-to-end latency, 99th percentile', ['ms', 'lower', 'noisy', 'serve']),
  row('e2el_queued', 'Due time to end of the answer, mean', ['ms', 'lower', 'noisy', 'serve']),
  row('e2el_queued_p99', 'Due time to end of the answer, 99th percentile', ['ms', 'lower', 'noisy', 'serve']),
  row('queue', 'Due time to sending, mean', ['ms', 'lower', 'noisy', 'serve']),
  row('queue_p99', 'Due time to sending, 99th percentile', ['ms', 'lower', 'noisy', 'serve']),
  row('client_lag_p99', "Lag of the client's event loop, 99th percentile", ['ms', 'lower', 'noisy', 'serve']),
  row('request_throughput', 'Requests', ['req/s', 'higher', 'noisy', 'serve']),
  row('output_throughput', 'Generated tokens', ['tok/s', 'higher', 'noisy', 'serve']),
  row('total_token_throughput', 'Prompt and generated tokens', ['tok/s', 'higher', 'noisy', 'serve']),
  row('request_goodput', 'Requests within their limits', ['req/s', 'higher', 'noisy', 'serve'], ['goodput']),
  row('error_rate', 'Requests that failed', ['share', 'lower', 'exact', 'serve'], ['errors']),
  row('retries', 'Requests sent again', ['count', 'lower', 'exact', 'serve']),
  row('load', 'Load time', ['s', 'lower', 'noisy', 'speed']),
  row('load_locate', 'Load: find files', ['s', 'lower', 'noisy', 'speed']),
  row('load_plan', 'Load: plan', ['s', 'lower', 'noisy', 'speed']),
  row('load_quantize', 'Load: read and quantize', ['s', 'lower', 'noisy', 'speed']),
  row('load_build', 'Load: build the session', ['s', 'lower', 'noisy', 'speed']),
  row('load_warm_up', 'Load: warm up', ['s', 'lower', 'noisy', 'speed']),
  row('peak_rss', 'Peak resident memory', ['bytes', 'lower', 'noisy', 'speed'], ['rss']),
  row('weight_bytes', 'Weights in memory', ['bytes', 'lower', 'exact', 'speed', 'quality'], ['bytes']),
  row('kv_bytes_per_token', 'KV cache a token', ['bytes', 'lower', 'exact', 'speed']),
  row('perplexity', 'Perplexity', ['none', 'lower', 'exact', 'quality'], ['ppl']),
  row('nll', 'Negative log likelihood a token', ['nats', 'lower', 'exact', 'quality']),
  row('kl', 'KL divergence from the unquantized model', ['nats', 'lower', 'exact', 'quality'], ['kld']),
  row('kl_p99', 'KL divergence, 99th percentile of tokens', ['nats', 'lower', 'exact', 'quality']),
  row('top1', 'Same most likely token', ['share', 'higher', 'exact', 'quality'], ['top1_agreement']),
  row('accuracy', 'Exact-match accuracy', ['share', 'higher', 'exact', 'quality'], ['acc']),
  row(
    'layer_frobenius',
    'Relative error of the weights',
    ['share', 'lower', 'exact', 'quality'],
    ['frobenius'],
  ),
  row('layer_sqnr_min', 'Worst layer, signal to noise', ['dB', 'higher', 'exact', 'quality'], ['sqnr']),
];

/** By id or alias; undefined for none. */
export function findMetric(name: string): MetricInfo | undefined {
  const wanted = name.toLowerCase();
  return METRICS.find(({ id, aliases }) => id === wanted || aliases.includes(wanted));
}
