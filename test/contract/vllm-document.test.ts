import { describe, expect, it } from 'vitest';
import { computeFigures } from '../../src/bench/client/figures.js';
import {
  DOCUMENT_LATENCY_NAMES,
  documentFileName,
  toDocument,
  type DocumentHead,
} from '../../src/bench/client/vllm-document.js';

/** Keys of `vllm bench serve --save-result` for generation, of its main branch in 2026. */
const KEYS = [
  'backend',
  'burstiness',
  'completed',
  'date',
  'duration',
  'endpoint_type',
  'failed',
  'label',
  'max_concurrency',
  'max_concurrent_requests',
  'max_output_tokens_per_s',
  'model_id',
  'num_prompts',
  'output_throughput',
  'request_goodput',
  'request_rate',
  'request_throughput',
  'tokenizer_id',
  'total_input_tokens',
  'total_output_tokens',
  'total_token_throughput',
];

/** Added by --save-detailed; all have an entry a request. */
const DETAILED_KEYS = [
  'errors',
  'generated_texts',
  'input_lens',
  'itls',
  'latencies',
  'output_lens',
  'queue_times',
  'start_times',
  'ttfts',
];

const HEAD: DocumentHead = {
  date: new Date(2026, 7, 2, 9, 5, 7),
  backend: 'openai',
  label: 'openai',
  modelId: 'org/name',
  tokenizerId: 'org/name',
  numPrompts: 2,
  requestRate: Infinity,
  burstiness: 1,
  maxConcurrency: null,
  metadata: {},
};

const answer = {
  scheduledMs: null,
  sentMs: 1000,
  chunksMs: [1200, 1250, 1300],
  endMs: 1300,
  text: 'abc',
  usage: { inputTokens: 10, outputTokens: 3 },
  retries: 0,
  outcome: 'ok',
} as const;
const failed = {
  ...answer,
  chunksMs: [],
  endMs: null,
  text: '',
  usage: null,
  outcome: { kind: 'status 503', message: 'busy' },
} as const;

const FIGURES = computeFigures(
  { records: [answer, failed], durationMs: 500 },
  { requests: [{ prompt: 'p', inputTokens: 10, maxTokens: 3 }], goodput: {}, lagMs: 0 },
);

const BRIEF = { latencies: ['ttft', 'tpot', 'itl'], percentiles: [99], isDetailed: false } as const;

const latencyKeys = (name: string, percentiles: readonly string[]): string[] =>
  ['mean', 'median', 'std', ...percentiles].map((part) => `${part}_${name}_ms`);

describe("vLLM's document", () => {
  it('has its keys', () => {
    const expected = [...KEYS, ...BRIEF.latencies.flatMap((name) => latencyKeys(name, ['p99']))];
    expect(Object.keys(toDocument(FIGURES, HEAD, BRIEF)).sort()).toEqual(expected.sort());
  });

  it('has its keys with everything asked for', () => {
    const latencies = ['ttft', 'tpot', 'itl', 'e2el', 'client_queue_time', 'e2el_including_client_queue'];
    expect(DOCUMENT_LATENCY_NAMES).toEqual(latencies);
    const detail = { latencies: DOCUMENT_LATENCY_NAMES, percentiles: [50, 99.9], isDetailed: true };
    const head = { ...HEAD, metadata: { tp: '1' } };
    const expected = [
      ...KEYS,
      ...DETAILED_KEYS,
      'tp',
      ...latencies.flatMap((name) => latencyKeys(name, ['p50', 'p99.9'])),
    ];
    expect(Object.keys(toDocument(FIGURES, head, detail)).sort()).toEqual(expected.sort());
  });

  it('has seconds in lists and milliseconds elsewhere', () => {
    const document = toDocument(FIGURES, HEAD, { ...BRIEF, isDetailed: true });
    expect(document).toMatchObject({
      date: '20260802-090507',
      endpoint_type: 'openai',
      request_rate: 'inf',
      max_concurrency: null,
      duration: 0.5,
      completed: 1,
      failed: 1,
      total_input_tokens: 10,
      total_output_tokens: 3,
      request_throughput: 2,
      request_goodput: null,
      output_throughput: 6,
      total_token_throughput: 26,
      mean_ttft_ms: 200,
      p99_ttft_ms: 200,
      mean_tpot_ms: 50,
      median_itl_ms: 50,
      std_itl_ms: 0,
      input_lens: [10, 0],
      output_lens: [3, 0],
      ttfts: [0.2, 0],
      itls: [[0.05, 0.05], []],
      latencies: [0.3, 0],
      start_times: [1, 1],
      generated_texts: ['abc', ''],
      errors: ['', 'status 503: busy'],
    });
  });

  it('survives JSON unchanged', () => {
    const document = toDocument(FIGURES, { ...HEAD, requestRate: 2.5, maxConcurrency: 8 }, BRIEF);
    expect(JSON.parse(JSON.stringify(document))).toEqual(document);
    expect(document).toMatchObject({ request_rate: 2.5, max_concurrency: 8 });
  });

  it('is written to a file of the same name', () => {
    expect(documentFileName(HEAD)).toBe('openai-infqps-name-20260802-090507.json');
    const head = { ...HEAD, label: 'a/b', requestRate: 2.5, maxConcurrency: 8 };
    expect(documentFileName(head)).toBe('a_b-2.5qps-concurrency8-name-20260802-090507.json');
  });
});
