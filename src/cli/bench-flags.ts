import type { FlagTable } from './flag-row.js';
import { MEMORY_FLAGS, MODEL_FLAGS, QUANTIZATION_FLAGS } from './flags.js';

/** Which model the `fdq bench` commands load. */
export const BENCH_MODEL_FLAGS = {
  model: MODEL_FLAGS.model,
  revision: MODEL_FLAGS.revision,
  dtype: MODEL_FLAGS.dtype,
  offline: MODEL_FLAGS.offline,
} as const satisfies FlagTable;

/** `--quantization` with several values, and what holds for all of them. */
export const BENCH_QUANTIZATION_FLAGS = {
  quantization: {
    kind: 'list',
    group: 'QUANTIZATION',
    separator: 'commas next to objects',
    char: 'q',
    summary:
      'Schemes to measure, e.g. none,wint8,wint4:g128; a JSON object or @file is one. Default: the weights as they are.',
  },
  'quantization-config': QUANTIZATION_FLAGS['quantization-config'],
  'quantize-lm-head': QUANTIZATION_FLAGS['quantize-lm-head'],
  'quantize-embeddings': QUANTIZATION_FLAGS['quantize-embeddings'],
} as const satisfies FlagTable;

/** Flags of `fdq bench` itself: every combination of the lists is measured. */
export const BENCH_SPEED_FLAGS = {
  'n-prompt': {
    kind: 'list',
    group: 'MEASUREMENT',
    char: 'p',
    default: '512',
    summary: 'Prompt tokens to measure; 0: no prompt speed.',
  },
  'n-gen': {
    kind: 'list',
    group: 'MEASUREMENT',
    char: 'n',
    default: '128',
    summary: 'Decode steps to measure; 0: no decode speed.',
  },
  'n-depth': {
    kind: 'list',
    group: 'MEASUREMENT',
    char: 'd',
    default: '0',
    summary: 'Tokens in the cache before anything is measured, multiples of 16, e.g. 0,4096.',
  },
  'batch-size': {
    kind: 'list',
    group: 'MEASUREMENT',
    char: 'b',
    default: '1',
    summary: 'Sequences decoded together.',
  },
  'kv-cache-dtype': {
    kind: 'list',
    group: 'MEASUREMENT',
    default: 'auto',
    summary: 'How keys and values are cached: auto, float32, bfloat16, int8, fp8 or int4.',
  },
  threads: {
    kind: 'list',
    group: 'MEASUREMENT',
    char: 't',
    summary: 'Threads of loading and computing; default: one per CPU this process may use.',
  },
  repetitions: {
    kind: 'integer',
    group: 'MEASUREMENT',
    char: 'r',
    min: 1,
    max: 10_000,
    default: '5',
    summary: 'Times each combination is measured, after one warm-up that does not count.',
  },
  'max-num-batched-tokens': MEMORY_FLAGS['max-num-batched-tokens'],
  'gpu-memory-utilization': MEMORY_FLAGS['gpu-memory-utilization'],
  'rounds-from-stdin': {
    kind: 'boolean',
    group: 'MEASUREMENT',
    summary: 'Measure one repetition for each JSON line of stdin and answer with one: see docs/bench.md.',
    commandLineOnly: true,
  },
} as const satisfies FlagTable;
