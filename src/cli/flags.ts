import { CACHE_FLAGS } from './cache-flags.js';
import type { FlagTable } from './flag-row.js';

const NO_WORKER_PORTS = 'fdq runs in one process and needs no queue port; the value is not used';

/** Flags of every command that reads settings. */
export const GLOBAL_FLAGS = {
  config: {
    kind: 'text',
    group: 'GLOBAL',
    summary:
      'YAML or JSON file whose keys are long flag names; default $XDG_CONFIG_HOME/fdq/config.yaml if present.',
  },
  'print-config': {
    kind: 'boolean',
    group: 'GLOBAL',
    summary: 'Print every setting and where it came from, then exit.',
    commandLineOnly: true,
  },
  'no-color': {
    kind: 'boolean',
    group: 'GLOBAL',
    summary: 'Never colour the output (NO_COLOR does the same).',
    commandLineOnly: true,
  },
} as const satisfies FlagTable;

/** Which model is served, and what its requests get when they say nothing. */
export const MODEL_FLAGS = {
  model: {
    kind: 'text',
    group: 'MODEL',
    char: 'm',
    summary: 'Model folder, or Hugging Face id (org/name or org/name@revision).',
  },
  revision: { kind: 'text', group: 'MODEL', summary: 'Branch, tag or commit of a Hugging Face model.' },
  tokenizer: {
    kind: 'text',
    group: 'MODEL',
    summary: 'Folder with tokenizer.json; default: the model.',
  },
  dtype: {
    kind: 'choice',
    group: 'MODEL',
    summary: 'How activations travel between layers.',
    options: ['auto', 'float32', 'bfloat16'],
    default: 'auto',
    refused: {
      float16: 'fdq computes in float32 or bfloat16',
      half: 'fdq computes in float32 or bfloat16',
    },
  },
  device: {
    kind: 'choice',
    group: 'MODEL',
    summary: 'Where the model runs.',
    options: ['auto', 'cpu'],
    default: 'auto',
    refused: {
      cuda: 'this version of fdq runs on the CPU only',
      gpu: 'this version of fdq runs on the CPU only',
      tensorrt: 'this version of fdq runs on the CPU only',
    },
  },
  threads: {
    kind: 'integer',
    group: 'MODEL',
    min: 1,
    max: 1024,
    summary: 'Threads of reading, quantizing and computing; default: one per CPU this process may use.',
  },
  seed: {
    kind: 'integer',
    group: 'MODEL',
    min: 0,
    summary: 'Seed of requests that bring none; default: drawn at random for each.',
  },
  'trust-remote-code': {
    kind: 'boolean',
    group: 'MODEL',
    summary: 'Refused: fdq never runs code that comes with a model.',
  },
  offline: { kind: 'boolean', group: 'MODEL', summary: 'Never download; use what is in the cache.' },
  'chat-template': {
    kind: 'text',
    group: 'MODEL',
    summary: "Jinja file, or the template itself, in place of the model's.",
  },
  'chat-template-content-format': {
    kind: 'choice',
    group: 'MODEL',
    summary: 'What the template gets as message content: always text, in which text parts are joined.',
    options: ['auto', 'string'],
    default: 'auto',
  },
  'generation-config': {
    kind: 'text',
    group: 'MODEL',
    summary:
      "Source of default sampling: auto (the model's generation_config.json), vllm (none), or a folder.",
    default: 'auto',
  },
  'override-generation-config': {
    kind: 'json',
    group: 'MODEL',
    summary: 'Default sampling parameters, over those of the generation config.',
  },
} as const satisfies FlagTable;

export const QUANTIZATION_FLAGS = {
  quantization: {
    kind: 'text',
    group: 'QUANTIZATION',
    char: 'q',
    summary:
      'Scheme (wint8, wint4:g128, w8a8 ...) or precision name (W4A16C8) the weights are quantized to while loading, or a JSON object, or @file.',
  },
  'quantization-config': {
    kind: 'json',
    group: 'QUANTIZATION',
    nameKeys: ['targets'],
    summary:
      'What is quantized how: {"linear": "wint8", "moe": "wint4", "ignore": ["re:.*o_proj"], "targets": {...}}; also key by key: --quantization-config.ignore+ o_proj.',
  },
  'quantize-lm-head': {
    kind: 'boolean',
    group: 'QUANTIZATION',
    summary: 'Quantize the output head too; with tied weights that is the embedding as well.',
  },
  'quantize-embeddings': {
    kind: 'boolean',
    group: 'QUANTIZATION',
    summary: 'Quantize the token embeddings too; with tied weights that is the output head as well.',
  },
} as const satisfies FlagTable;

/** Limits of `--quantization auto`. */
export const AUTO_FLAGS = {
  'max-weight-bytes': {
    kind: 'size',
    group: 'QUANTIZATION',
    min: 1,
    summary:
      'With --quantization auto: bytes all weights may take, e.g. 400MiB, at the least measured error.',
  },
  'max-error': {
    kind: 'number',
    group: 'QUANTIZATION',
    min: 0,
    summary: 'With --quantization auto: largest relative error of any layer, e.g. 0.05, at the least bytes.',
  },
  'save-quantization-config': {
    kind: 'text',
    group: 'QUANTIZATION',
    summary:
      'With --quantization auto: file for the schemes chosen, to be given as --quantization-config @FILE.',
  },
} as const satisfies FlagTable;

export const MEMORY_FLAGS = {
  'max-model-len': {
    kind: 'length',
    group: 'MEMORY',
    min: 1,
    aliases: ['max-seq-len'],
    summary: 'Longest prompt plus answer in tokens, e.g. 4096 or 32k; default: what model and memory allow.',
  },
  'max-num-seqs': {
    kind: 'integer',
    group: 'MEMORY',
    min: 1,
    summary: 'Sequences computed together; default: computed and printed.',
  },
  'max-num-batched-tokens': {
    kind: 'length',
    group: 'MEMORY',
    min: 1,
    summary: 'Tokens computed in one step; default: computed and printed.',
  },
  'gpu-memory-utilization': {
    kind: 'number',
    group: 'MEMORY',
    min: 0.01,
    max: 1,
    default: '0.9',
    summary: "Share of the machine's memory fdq may use for weights and KV cache (on a CPU: of its RAM).",
  },
  'kv-cache-memory': {
    kind: 'size',
    group: 'MEMORY',
    min: 1,
    aliases: ['kv-cache-memory-bytes'],
    summary: 'Memory of the KV cache, e.g. 8GiB; overrides --gpu-memory-utilization.',
  },
  'kv-cache-dtype': {
    kind: 'choice',
    group: 'MEMORY',
    summary:
      'How keys and values are cached; auto: as --quantization says, else bfloat16 (float32 with --dtype float32).',
    options: ['auto', 'float32', 'bfloat16', 'int8', 'fp8', 'int4'],
    spellings: {
      bf16: 'bfloat16',
      c16: 'bfloat16',
      c8: 'int8',
      fp8_e4m3: 'fp8',
      float8_e4m3fn: 'fp8',
      cfp8: 'fp8',
      c4: 'int4',
    },
    default: 'auto',
    refused: {
      fp8_e5m2: 'eight-bit floats of the cache are e4m3; write fp8',
      fp8_inc: 'it is for Gaudi; write fp8',
      fp16: 'the cache is float32, bfloat16 or quantized; write bfloat16',
      float16: 'the cache is float32, bfloat16 or quantized; write bfloat16',
      int8_zp: 'scales of the cache are symmetric; write int8',
      int4_zp: 'scales of the cache are symmetric; write int4',
      float8_e4m3fn_zp: 'scales of the cache are symmetric; write fp8',
      block_wise_fp8: 'scales of the cache are per token and head; write fp8',
    },
  },
  'block-size': {
    kind: 'choice',
    group: 'MEMORY',
    summary: 'Positions of a KV block.',
    options: ['16'],
    default: '16',
  },
  'num-gpu-blocks-override': {
    kind: 'integer',
    group: 'MEMORY',
    min: 1,
    summary: 'Number of KV blocks, whatever the memory; for tests.',
  },
  'enable-prefix-caching': {
    kind: 'boolean',
    group: 'MEMORY',
    summary: 'Reuse the cached keys and values of shared prompt beginnings.',
    negatable: true,
    default: 'true',
  },
  'enable-chunked-prefill': {
    kind: 'boolean',
    group: 'MEMORY',
    summary: 'Split long prompts over steps; always on.',
    negatable: true,
    default: 'true',
  },
  'long-prefill-token-threshold': {
    kind: 'length',
    group: 'MEMORY',
    min: 0,
    summary: 'Most prompt tokens of one request in a step; 0: no limit.',
    default: '0',
  },
  'max-num-partial-prefills': {
    kind: 'integer',
    group: 'MEMORY',
    min: 1,
    summary: 'Prompts that may be partly computed at the same time; default: no limit.',
  },
  'tensor-parallel-size': {
    kind: 'choice',
    group: 'MEMORY',
    summary: 'Processes the model is split over.',
    options: ['1'],
    default: '1',
    refused: {
      '2': 'this version of fdq runs a model in one process',
      '4': 'this version of fdq runs a model in one process',
      '8': 'this version of fdq runs a model in one process',
    },
  },
} as const satisfies FlagTable;

export const SERVER_FLAGS = {
  host: { kind: 'text', group: 'SERVER', summary: 'Address to listen on.', default: '127.0.0.1' },
  port: {
    kind: 'port',
    group: 'SERVER',
    char: 'p',
    summary: 'Port to listen on; 0: any free one.',
    default: '8000',
  },
  'served-model-name': {
    kind: 'list',
    group: 'SERVER',
    greedy: true,
    summary:
      "Names requests may use; metrics and the ready line carry the first. Default: last part of the model's name.",
  },
  'api-key': {
    kind: 'list',
    group: 'SERVER',
    secret: true,
    summary: 'Key that requests must bring as a bearer token; may be repeated.',
  },
  'allow-remote-without-key': {
    kind: 'boolean',
    group: 'SERVER',
    summary: 'Listen on an address other machines can reach although no --api-key is set.',
  },
  'allowed-origins': {
    kind: 'list',
    group: 'SERVER',
    greedy: true,
    summary: 'Web origins that browsers may call from (CORS), or *.',
  },
  'ssl-keyfile': { kind: 'text', group: 'SERVER', summary: 'PEM file of the TLS private key.' },
  'ssl-certfile': { kind: 'text', group: 'SERVER', summary: 'PEM file of the TLS certificate.' },
  'root-path': { kind: 'text', group: 'SERVER', summary: 'Path prefix a reverse proxy leaves in the URL.' },
  'metrics-port': {
    kind: 'port',
    group: 'SERVER',
    summary: 'Serve /metrics on this port instead of the main one.',
  },
  'max-waiting-time': {
    kind: 'number',
    group: 'SERVER',
    min: -1,
    default: '-1',
    summary: 'Seconds a request may wait for its turn before it gets a 429; -1: no limit.',
  },
  'max-concurrency': {
    kind: 'integer',
    group: 'SERVER',
    min: 1,
    default: '512',
    summary: 'Requests under way or waiting; one more gets a 429.',
  },
  'max-logprobs': {
    kind: 'integer',
    group: 'SERVER',
    min: -1,
    default: '20',
    summary: 'Most alternatives a request may ask for; -1: the whole vocabulary.',
  },
  'timeout-graceful-shutdown': {
    kind: 'number',
    group: 'SERVER',
    min: 0,
    default: '30',
    summary: 'Seconds running requests may take to finish after SIGTERM or Ctrl-C.',
  },
  'ready-file': {
    kind: 'text',
    group: 'SERVER',
    summary: 'File that gets the URL when the server is ready; removed when it stops.',
  },
  'engine-worker-queue-port': {
    kind: 'text',
    group: 'SERVER',
    summary: 'Accepted and not used.',
    ignored: NO_WORKER_PORTS,
  },
  'cache-queue-port': {
    kind: 'text',
    group: 'SERVER',
    summary: 'Accepted and not used.',
    ignored: NO_WORKER_PORTS,
  },
} as const satisfies FlagTable;

export const OUTPUT_FLAGS = {
  'log-level': {
    kind: 'choice',
    group: 'OUTPUT',
    aliases: ['uvicorn-log-level'],
    summary: 'Least important log lines to print.',
    options: ['trace', 'debug', 'info', 'warning', 'error', 'critical'],
    default: 'info',
  },
  'log-format': {
    kind: 'choice',
    group: 'OUTPUT',
    summary: 'Log lines for people, or one JSON object each.',
    options: ['text', 'json'],
    default: 'text',
  },
  'log-requests': {
    kind: 'boolean',
    group: 'OUTPUT',
    summary: 'Log the bodies of requests too, prompts included.',
    negatable: true,
    default: 'false',
  },
  'disable-log-requests': { kind: 'boolean', group: 'OUTPUT', summary: 'Log no line for each request.' },
} as const satisfies FlagTable;

/** Everything `fdq serve` takes. */
export const SERVE_FLAGS = {
  ...MODEL_FLAGS,
  ...QUANTIZATION_FLAGS,
  ...AUTO_FLAGS,
  ...CACHE_FLAGS,
  ...MEMORY_FLAGS,
  ...SERVER_FLAGS,
  ...OUTPUT_FLAGS,
  ...GLOBAL_FLAGS,
} as const satisfies FlagTable;
