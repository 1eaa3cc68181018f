import type { Latencies, LoadFigures } from './figures.js';
import { failureOf } from './record.js';
import { describeSpread } from './statistics.js';

/** Latencies by the names that vLLM's documents have for them. */
const DOCUMENT_LATENCIES = {
  ttft: 'ttft',
  tpot: 'tpot',
  itl: 'itl',
  e2el: 'e2el',
  client_queue_time: 'queue',
  e2el_including_client_queue: 'e2elQueued',
} as const satisfies Record<string, keyof Latencies>;

export type DocumentLatency = keyof typeof DOCUMENT_LATENCIES;

export const DOCUMENT_LATENCY_NAMES = Object.keys(DOCUMENT_LATENCIES) as readonly DocumentLatency[];

/** What is written beside the figures. */
export interface DocumentHead {
  readonly date: Date;
  readonly backend: string;
  readonly label: string;
  readonly modelId: string;
  readonly tokenizerId: string | null;
  readonly numPrompts: number;
  readonly requestRate: number;
  readonly burstiness: number;
  readonly maxConcurrency: number | null;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface DocumentDetail {
  readonly latencies: readonly DocumentLatency[];
  readonly percentiles: readonly number[];
  /** The figures of single requests, texts included. */
  readonly isDetailed: boolean;
}

/** `20260821-141502`, local time. */
export function documentDate(date: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = `${date.getFullYear()}${two(date.getMonth() + 1)}${two(date.getDate())}`;
  return `${day}-${two(date.getHours())}${two(date.getMinutes())}${two(date.getSeconds())}`;
}

/** File name that vLLM's client gives to a result. */
export function documentFileName(head: DocumentHead): string {
  const { label, requestRate, maxConcurrency, modelId, date } = head;
  const rate = requestRate === Infinity ? 'inf' : String(requestRate);
  const concurrency = maxConcurrency === null ? '' : `-concurrency${maxConcurrency}`;
  const model = modelId.split('/').at(-1) ?? modelId;
  return `${label.replaceAll('/', '_')}-${rate}qps${concurrency}-${model}-${documentDate(date)}.json`;
}

/**
 * The flat JSON document of `vllm bench serve --save-result`, key for key, so that scripts made for it read ours. Times in
 * lists are seconds, all others milliseconds.
 */
export function toDocument(
  figures: LoadFigures,
  head: DocumentHead,
  detail: DocumentDetail,
): Readonly<Record<string, unknown>> {
  const seconds = figures.durationMs / 1000;
  const perSecond = (count: number): number => (seconds > 0 ? count / seconds : 0);
  return {
    date: documentDate(head.date),
    endpoint_type: head.backend,
    backend: head.backend,
    label: head.label,
    model_id: head.modelId,
    tokenizer_id: head.tokenizerId,
    num_prompts: head.numPrompts,
    ...head.metadata,
    request_rate: head.requestRate === Infinity ? 'inf' : head.requestRate,
    burstiness: head.burstiness,
    max_concurrency: head.maxConcurrency,
    duration: seconds,
    completed: figures.completed,
    failed: figures.failed,
    total_input_tokens: figures.inputTokens,
    total_output_tokens: figures.outputTokens,
    request_throughput: perSecond(figures.completed),
    request_goodput: figures.good === null ? null : perSecond(figures.good),
    output_throughput: perSecond(figures.outputTokens),
    total_token_throughput: perSecond(figures.inputTokens + figures.outputTokens),
    max_output_tokens_per_s: figures.maxOutputTokensPerSecond,
    max_concurrent_requests: figures.maxConcurrentRequests,
    ...(detail.isDetailed ? detailFields(figures) : {}),
    ...Object.fromEntries(
      detail.latencies.flatMap((name) => latencyFields(name, figures.latencies, detail.percentiles)),
    ),
  };
}

function latencyFields(
  name: DocumentLatency,
  latencies: Latencies,
  percentiles: readonly number[],
): readonly (readonly [string, number])[] {
  const values = latencies[DOCUMENT_LATENCIES[name]];
  const { mean, median, std, percentile } = describeSpread(values);
  return [
    [`mean_${name}_ms`, mean],
    [`median_${name}_ms`, median],
    [`std_${name}_ms`, std],
    ...percentiles.map((wanted) => [`p${wanted}_${name}_ms`, percentile(wanted)] as const),
  ];
}

function detailFields({ requests }: LoadFigures): Readonly<Record<string, unknown>> {
  const seconds = (ms: number): number => ms / 1000;
  return {
    input_lens: requests.map(({ inputTokens }) => inputTokens),
    output_lens: requests.map(({ outputTokens }) => outputTokens),
    ttfts: requests.map(({ ttftMs }) => seconds(ttftMs)),
    itls: requests.map(({ itlMs }) => itlMs.map(seconds)),
    latencies: requests.map(({ e2elMs }) => seconds(e2elMs)),
    start_times: requests.map(({ record }) => seconds(record.sentMs)),
    queue_times: requests.map(({ record }) => seconds(record.sentMs - (record.scheduledMs ?? record.sentMs))),
    generated_texts: requests.map(({ record }) => record.text),
    errors: requests.map(({ record }) => errorOf(record)),
  };
}

function errorOf(record: Parameters<typeof failureOf>[0]): string {
  if (record.outcome === 'aborted') return 'aborted';
  const failure = failureOf(record);
  return failure === undefined ? '' : `${failure.kind}: ${failure.message}`;
}
