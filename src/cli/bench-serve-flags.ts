import { BENCH_GATE_FLAGS } from './bench-gate-flags.js';
import { BENCH_REPORT_FLAGS } from './bench-report-flags.js';
import { CACHE_FLAGS } from './cache-flags.js';
import type { FlagTable } from './flag-row.js';
import { AUTO_FLAGS, GLOBAL_FLAGS, MEMORY_FLAGS, MODEL_FLAGS, QUANTIZATION_FLAGS } from './flags.js';

const { seed: _seed, ...SERVED_MODEL_FLAGS } = MODEL_FLAGS;

/** Settings of the `fdq serve` that `fdq bench serve` starts for --model. */
export const BENCHED_SERVER_FLAGS = {
  ...SERVED_MODEL_FLAGS,
  ...QUANTIZATION_FLAGS,
  ...AUTO_FLAGS,
  ...CACHE_FLAGS,
  ...MEMORY_FLAGS,
} as const satisfies FlagTable;

/** Where requests go. */
const TARGET_FLAGS = {
  url: {
    kind: 'text',
    group: 'SERVER',
    aliases: ['base-url'],
    summary:
      'Server to load, without /v1, e.g. http://127.0.0.1:8000; with it, --model is a name in requests.',
  },
  host: {
    kind: 'text',
    group: 'SERVER',
    summary: 'Host of the server, in place of --url; default with --port: 127.0.0.1.',
    commandLineOnly: true,
  },
  port: {
    kind: 'port',
    group: 'SERVER',
    summary: 'Port of the server, in place of --url; default with --host: 8000.',
    commandLineOnly: true,
  },
  backend: {
    kind: 'choice',
    group: 'SERVER',
    summary: 'API to use: completions or chat; default: as --endpoint says, else openai.',
    options: ['openai', 'openai-chat'],
    spellings: { vllm: 'openai' },
    refused: {
      tgi: 'only the OpenAI API is spoken',
      'openai-audio': 'only text is sent',
      'openai-embeddings': 'only text generation is measured',
      'vllm-pooling': 'only text generation is measured',
    },
  },
  endpoint: {
    kind: 'text',
    group: 'SERVER',
    summary: 'Path of the route; default: /v1/completions, or /v1/chat/completions with openai-chat.',
  },
  'served-model-name': {
    kind: 'text',
    group: 'SERVER',
    takesFirst: true,
    summary: 'Name of the model in requests; default: --model with --url, else the first of /v1/models.',
  },
  'api-key': {
    kind: 'text',
    group: 'SERVER',
    takesFirst: true,
    secret: true,
    summary: 'Key that is sent as a bearer token.',
  },
  header: {
    kind: 'list',
    group: 'SERVER',
    greedy: true,
    secret: true,
    separator: 'lines',
    summary: 'Header of every request, NAME=VALUE; may be repeated. In one text, a line each.',
  },
  insecure: {
    kind: 'boolean',
    group: 'SERVER',
    summary: 'Accept a TLS certificate that nobody vouches for.',
  },
  'ready-check-timeout-sec': {
    kind: 'number',
    group: 'SERVER',
    min: 0,
    default: '0',
    summary: 'Seconds to wait for the server to answer a first request; 0: it is expected to be ready.',
  },
  'request-timeout-sec': {
    kind: 'number',
    group: 'SERVER',
    min: 0.001,
    default: '21600',
    summary: 'Seconds after which a request counts as failed.',
  },
  'max-retries': {
    kind: 'integer',
    group: 'SERVER',
    min: 0,
    default: '0',
    summary:
      'Times a request is sent again when it was refused, lost before any answer, or told to come back (429 or 503 with Retry-After).',
  },
} as const satisfies FlagTable;

/** How many requests are sent when. */
const LOAD_FLAGS = {
  'num-prompts': {
    kind: 'integer',
    group: 'MEASUREMENT',
    char: 'n',
    min: 1,
    max: 10_000_000,
    default: '1000',
    summary: 'Requests of each scenario.',
  },
  'request-rate': {
    kind: 'text',
    group: 'MEASUREMENT',
    default: 'inf',
    summary:
      'Requests a second, due at random times; inf: each is sent as soon as --max-concurrency lets it.',
  },
  burstiness: {
    kind: 'number',
    group: 'MEASUREMENT',
    min: 0.001,
    default: '1',
    summary:
      'Shape of the gamma distribution of the gaps: 1 is a Poisson process, less is burstier, more is steadier.',
  },
  'max-concurrency': {
    kind: 'list',
    group: 'MEASUREMENT',
    summary: 'Most requests under way; several, e.g. 1,4,16, are a scenario each. Default: no limit.',
  },
  'num-warmups': {
    kind: 'integer',
    group: 'MEASUREMENT',
    min: 0,
    default: '0',
    summary: 'Requests sent before anything is measured.',
  },
  repetitions: {
    kind: 'integer',
    group: 'MEASUREMENT',
    char: 'r',
    min: 1,
    max: 10_000,
    default: '1',
    summary: 'Times each scenario is measured, with other random prompts each time.',
  },
  seed: {
    kind: 'integer',
    group: 'MEASUREMENT',
    min: 0,
    default: '0',
    summary: 'Seed of prompts and due times.',
  },
  goodput: {
    kind: 'list',
    group: 'MEASUREMENT',
    greedy: true,
    summary:
      'Limits in milliseconds that a request has to keep to count as good: ttft:500 tpot:50 e2el:10000.',
  },
} as const satisfies FlagTable;

/** What is asked. */
const DATASET_FLAGS = {
  'dataset-name': {
    kind: 'choice',
    group: 'DATASET',
    options: ['random', 'sharegpt', 'custom'],
    default: 'random',
    summary: 'Random tokens, conversations in the form of ShareGPT, or JSON lines of prompts.',
    refused: Object.fromEntries(
      ['burstgpt', 'sonnet', 'hf', 'random-mm', 'prefix_repetition', 'spec_bench'].map((name) => [
        name,
        'write its prompts to a file of JSON lines and name it with --dataset-name custom',
      ]),
    ),
  },
  'dataset-path': {
    kind: 'text',
    group: 'DATASET',
    summary: 'File of sharegpt (a JSON array) or custom (JSON lines of {"prompt": "..."}).',
  },
  'random-input-len': {
    kind: 'integer',
    group: 'DATASET',
    aliases: ['input-len'],
    min: 0,
    default: '1024',
    summary: 'Tokens of a random prompt.',
  },
  'random-output-len': {
    kind: 'integer',
    group: 'DATASET',
    aliases: ['output-len'],
    min: 1,
    default: '128',
    summary: 'Tokens to generate for a random prompt.',
  },
  'random-range-ratio': {
    kind: 'number',
    group: 'DATASET',
    min: 0,
    max: 0.999999,
    default: '0',
    summary: 'Draw both lengths from 1 - x to 1 + x times those given.',
  },
  'random-prefix-len': {
    kind: 'integer',
    group: 'DATASET',
    min: 0,
    default: '0',
    summary: 'Tokens that all random prompts begin with, on top of --random-input-len.',
  },
  'sharegpt-output-len': {
    kind: 'integer',
    group: 'DATASET',
    min: 1,
    summary: 'Tokens to generate for a prompt of sharegpt; default: as many as the answer in the file.',
  },
  'custom-output-len': {
    kind: 'integer',
    group: 'DATASET',
    min: -1,
    default: '256',
    summary: 'Tokens to generate for a prompt of custom; -1: "output_tokens" of its line.',
  },
  'disable-shuffle': {
    kind: 'boolean',
    group: 'DATASET',
    summary: 'Take the prompts of a file in their order.',
  },
  'no-oversample': {
    kind: 'boolean',
    group: 'DATASET',
    summary: 'Send fewer requests than --num-prompts rather than prompts of a file twice.',
  },
} as const satisfies FlagTable;

const SAMPLING_NUMBERS = {
  temperature: 'Temperature of sampling; default: as the server has it.',
  'top-p': 'Share of the probability that tokens are drawn from.',
  'min-p': 'Least probability of a token, relative to the most likely one.',
  'frequency-penalty': 'Penalty on tokens by how often they occurred.',
  'presence-penalty': 'Penalty on tokens that occurred.',
  'repetition-penalty': 'Factor by which tokens that occurred get less likely.',
} as const;

const numberFlag = <S extends string>(summary: S) => ({ kind: 'number', group: 'DATASET', summary }) as const;

/** What every request carries besides its prompt. */
const REQUEST_FLAGS = {
  'ignore-eos': {
    kind: 'boolean',
    group: 'DATASET',
    negatable: true,
    summary: 'Generate the whole length whatever the model says; default for random prompts.',
  },
  temperature: numberFlag(SAMPLING_NUMBERS.temperature),
  'top-p': numberFlag(SAMPLING_NUMBERS['top-p']),
  'top-k': { kind: 'integer', group: 'DATASET', summary: 'Most likely tokens that one is drawn from.' },
  'min-p': numberFlag(SAMPLING_NUMBERS['min-p']),
  'frequency-penalty': numberFlag(SAMPLING_NUMBERS['frequency-penalty']),
  'presence-penalty': numberFlag(SAMPLING_NUMBERS['presence-penalty']),
  'repetition-penalty': numberFlag(SAMPLING_NUMBERS['repetition-penalty']),
  'extra-body': {
    kind: 'json',
    group: 'DATASET',
    summary: 'Fields of every request; null takes a field out, e.g. {"stream_options": null}.',
  },
} as const satisfies FlagTable;

/** vLLM's document of the run. */
const RESULT_FLAGS = {
  'save-result': {
    kind: 'boolean',
    group: 'OUTPUT',
    summary: 'Write the flat JSON document of vllm bench serve, a file for each scenario.',
    commandLineOnly: true,
  },
  'save-detailed': {
    kind: 'boolean',
    group: 'OUTPUT',
    summary: 'With --save-result: also the times, lengths, texts and errors of single requests.',
    commandLineOnly: true,
  },
  'result-dir': {
    kind: 'text',
    group: 'OUTPUT',
    summary: 'With --save-result: folder of the files, made if missing; default: the current one.',
    commandLineOnly: true,
  },
  'result-filename': {
    kind: 'text',
    group: 'OUTPUT',
    summary:
      'With --save-result: name of the file; default: made of label, rate, concurrency, model and date.',
    commandLineOnly: true,
  },
  'percentile-metrics': {
    kind: 'text',
    group: 'OUTPUT',
    default: 'ttft,tpot,itl',
    summary:
      'Latencies of the document: ttft, tpot, itl, e2el, client_queue_time, e2el_including_client_queue.',
  },
  'metric-percentiles': {
    kind: 'text',
    group: 'OUTPUT',
    default: '99',
    summary: 'Percentiles of the document and of the distributions, e.g. 50,95,99.9.',
  },
  label: { kind: 'text', group: 'OUTPUT', summary: 'Name of the run in the document; default: --backend.' },
  metadata: {
    kind: 'list',
    group: 'OUTPUT',
    greedy: true,
    summary: 'Key of the document, KEY=VALUE; may be repeated.',
    commandLineOnly: true,
  },
} as const satisfies FlagTable;

/** Flags of `fdq bench serve`, with the names that they have in vLLM. */
export const BENCH_SERVE_FLAGS = {
  ...TARGET_FLAGS,
  ...LOAD_FLAGS,
  ...DATASET_FLAGS,
  ...REQUEST_FLAGS,
  ...BENCHED_SERVER_FLAGS,
  ...RESULT_FLAGS,
  ...BENCH_GATE_FLAGS,
  ...BENCH_REPORT_FLAGS,
  ...GLOBAL_FLAGS,
} as const satisfies FlagTable;
