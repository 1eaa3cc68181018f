import { Counter, Gauge, Histogram } from 'prom-client';
import type { Registry } from 'prom-client';
import type { EngineObserver, EngineStats } from '../engine/types.js';
import {
  INTER_TOKEN_BUCKETS,
  N_BUCKETS,
  PHASE_BUCKETS,
  STEP_TOKEN_BUCKETS,
  TTFT_BUCKETS,
  tokenBuckets,
} from './metric-buckets.js';
import type { LoadedInfo, MetricsOptions } from './metrics.js';

interface Labels {
  readonly model_name: string;
  readonly engine: string;
}

/** Bound of the token histograms: the port is open, and scraped, before the context length is known. */
const DEFAULT_MAX_TOKENS = 131072;

const LABEL_NAMES = ['model_name', 'engine'] as const;

/** Makes each metric under `fdq:` and, for dashboards made for it, under `vllm:`. */
class Family {
  readonly #registry: Registry;
  readonly #prefixes: readonly string[];
  readonly #labels: Labels;

  constructor(registry: Registry, options: MetricsOptions) {
    this.#registry = registry;
    this.#prefixes = options.vllmNames === false ? ['fdq:'] : ['fdq:', 'vllm:'];
    this.#labels = { model_name: options.modelName, engine: '0' };
  }

  counter(name: string, help: string): (count: number) => void {
    const children = this.#prefixes.map((prefix) => {
      const counter = new Counter({
        name: prefix + name,
        help,
        labelNames: LABEL_NAMES,
        registers: [this.#registry],
      });
      const child = counter.labels(this.#labels);
      child.inc(0);
      return child;
    });
    return (count) => {
      for (const child of children) child.inc(count);
    };
  }

  /** A counter with one more label, whose known values are exposed as 0 from the start. */
  counterBy(name: string, help: string, label: string, values: readonly string[]): (value: string) => void {
    const counters = this.#prefixes.map((prefix) => {
      const labelNames = [...LABEL_NAMES, label];
      const counter = new Counter({ name: prefix + name, help, labelNames, registers: [this.#registry] });
      for (const value of values) counter.inc({ ...this.#labels, [label]: value }, 0);
      return counter;
    });
    return (value) => {
      for (const counter of counters) counter.inc({ ...this.#labels, [label]: value });
    };
  }

  histogram(name: string, help: string, buckets: readonly number[]): (value: number) => void {
    const children = this.#prefixes.map((prefix) => {
      const configuration = { name: prefix + name, help, labelNames: LABEL_NAMES, buckets: [...buckets] };
      const histogram = new Histogram({ ...configuration, registers: [this.#registry] });
      histogram.zero(this.#labels);
      return histogram.labels(this.#labels);
    });
    return (value) => {
      for (const child of children) child.observe(Math.max(0, value));
    };
  }

  gauge(name: string, help: string, read: () => number): void {
    for (const prefix of this.#prefixes) {
      const labels = this.#labels;
      new Gauge({
        name: prefix + name,
        help,
        labelNames: LABEL_NAMES,
        registers: [this.#registry],
        collect() {
          this.set(labels, read());
        },
      });
    }
  }

  info(name: string, help: string, details: Readonly<Record<string, string>>): void {
    for (const prefix of this.#prefixes) {
      const labelNames = [...LABEL_NAMES, ...Object.keys(details)];
      const gauge = new Gauge({ name: prefix + name, help, labelNames, registers: [this.#registry] });
      gauge.set({ ...this.#labels, ...details }, 1);
    }
  }
}

function addGauges(family: Family, stats: () => EngineStats | null): void {
  const kvUsage = (): number => {
    const now = stats();
    return now === null || now.kvBlocksTotal === 0 ? 0 : now.kvBlocksUsed / now.kvBlocksTotal;
  };
  family.gauge('num_requests_running', 'Requests in the running batch.', () => stats()?.running ?? 0);
  family.gauge('num_requests_waiting', 'Requests waiting to be scheduled.', () => stats()?.waiting ?? 0);
  family.gauge('kv_cache_usage_perc', 'KV cache in use, 1 is all of it.', kvUsage);
  family.gauge('gpu_cache_usage_perc', 'KV cache in use, 1 is all of it (older name).', kvUsage);
}

const EVENTS = ['accepted', 'finished', 'cancelled', 'failed'] as const;

/** The engine's own books, for whoever checks that no request is lost. */
function addBalance(registry: Registry, stats: () => EngineStats | null): void {
  const registers = [registry];
  new Counter({
    name: 'fdq:engine_requests_total',
    help: 'Prompts the engine took and ended: accepted = finished + cancelled + failed + live.',
    labelNames: ['event'],
    registers,
    collect() {
      const requests = stats()?.requests;
      this.reset();
      for (const event of EVENTS) this.inc({ event }, requests?.[event] ?? 0);
    },
  });
  new Gauge({
    name: 'fdq:engine_requests_live',
    help: 'Prompts the engine took and has not ended.',
    registers,
    collect() {
      this.set(stats()?.requests?.live ?? 0);
    },
  });
}

type Finish = Parameters<EngineObserver['onFinish']>[0];

function finishObserver(family: Family, maxModelLen: number): (finish: Finish) => void {
  const phase = (name: string, help: string): ((value: number) => void) =>
    family.histogram(name, help, PHASE_BUCKETS);
  const tokens = (name: string, help: string): ((value: number) => void) =>
    family.histogram(name, help, tokenBuckets(maxModelLen));
  const finished = family.counterBy('request_success_total', 'Finished requests.', 'finished_reason', [
    'stop',
    'length',
    'abort',
    'error',
  ]);
  const e2e = phase('e2e_request_latency_seconds', 'From arrival to the last token.');
  const queue = phase('request_queue_time_seconds', 'From arrival to the first schedule.');
  const inference = phase('request_inference_time_seconds', 'From the first schedule to the last token.');
  const prefill = phase('request_prefill_time_seconds', 'From the first schedule to the first token.');
  const decode = phase('request_decode_time_seconds', 'From the first to the last token.');
  const perToken = family.histogram(
    'request_time_per_output_token_seconds',
    'Mean time per token after the first, by request.',
    INTER_TOKEN_BUCKETS,
  );
  const promptTokens = tokens('request_prompt_tokens', 'Prompt tokens of a request.');
  const generated = tokens('request_generation_tokens', 'Generated tokens of a request.');
  const maxTokens = tokens('request_params_max_tokens', 'max_tokens of a request.');
  const maxGenerated = tokens(
    'request_max_num_generation_tokens',
    'Most tokens of a choice that a request may have.',
  );
  const choices = family.histogram('request_params_n', 'n of a request.', N_BUCKETS);
  return ({ reason, promptTokens: inTokens, generatedTokens, params, timings }) => {
    const { arrival, scheduled, firstToken, finished: end } = timings;
    finished(reason);
    e2e(end - arrival);
    queue(scheduled - arrival);
    inference(end - scheduled);
    if (firstToken !== null) {
      prefill(firstToken - scheduled);
      decode(end - firstToken);
      if (generatedTokens > 1) perToken((end - firstToken) / (generatedTokens - 1));
    }
    promptTokens(inTokens);
    generated(generatedTokens);
    maxTokens(params.maxTokens);
    maxGenerated(params.maxTokens);
    choices(params.n);
  };
}

/** The engine's metrics, fed by the observer; gauges are read from the engine at each scrape. */
export function addEngineMetrics(
  registry: Registry,
  options: MetricsOptions,
): { readonly observer: EngineObserver; setLoaded(info: LoadedInfo): void } {
  const family = new Family(registry, options);
  let stats: (() => EngineStats) | null = null;
  addGauges(family, () => stats?.() ?? null);
  addBalance(registry, () => stats?.() ?? null);
  const promptTokens = family.counter('prompt_tokens_total', 'Prompt tokens computed.');
  const generationTokens = family.counter('generation_tokens_total', 'Tokens generated.');
  const prefixQueries = family.counter('prefix_cache_queries_total', 'Tokens looked up in the prefix cache.');
  const prefixHits = family.counter('prefix_cache_hits_total', 'Tokens found in the prefix cache.');
  const preemptions = family.counter(
    'num_preemptions_total',
    'Requests that had to give up their KV blocks.',
  );
  const stepTokens = family.histogram('iteration_tokens_total', 'Tokens of a step.', STEP_TOKEN_BUCKETS);
  const stepSeconds = family.histogram('step_seconds', 'Time of a step.', INTER_TOKEN_BUCKETS);
  const ttft = family.histogram('time_to_first_token_seconds', 'Time to the first token.', TTFT_BUCKETS);
  const interToken = family.histogram(
    'inter_token_latency_seconds',
    'Time between tokens.',
    INTER_TOKEN_BUCKETS,
  );
  const perToken = family.histogram(
    'time_per_output_token_seconds',
    'Time between tokens (older name).',
    INTER_TOKEN_BUCKETS,
  );
  const onFinish = finishObserver(family, options.maxModelLen ?? DEFAULT_MAX_TOKENS);
  return {
    observer: {
      onStep(step) {
        promptTokens(step.promptTokens);
        generationTokens(step.generatedTokens);
        stepTokens(step.promptTokens + step.generatedTokens);
        stepSeconds(step.seconds);
      },
      onFirstToken: ttft,
      onInterToken(seconds) {
        interToken(seconds);
        perToken(seconds);
      },
      onPreemption: () => preemptions(1),
      onPrefixQuery(queried, hit) {
        prefixQueries(queried);
        prefixHits(hit);
      },
      onFinish,
    },
    setLoaded(info) {
      stats = info.stats;
      family.info('cache_config_info', 'Always 1; the labels describe the KV cache.', {
        block_size: String(info.blockSize),
        num_gpu_blocks: String(info.numBlocks),
      });
    },
  };
}
