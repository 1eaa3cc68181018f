import { BENCH_MODEL_FLAGS, BENCH_QUANTIZATION_FLAGS, BENCH_SPEED_FLAGS } from './bench-flags.js';
import { BENCH_GATE_FLAGS } from './bench-gate-flags.js';
import { BENCH_REPORT_FLAGS } from './bench-report-flags.js';
import type { FlagTable } from './flag-row.js';
import { GLOBAL_FLAGS, MEMORY_FLAGS, MODEL_FLAGS } from './flags.js';

/** Flags of `fdq bench quality`. */
export const BENCH_QUALITY_FLAGS = {
  ...BENCH_MODEL_FLAGS,
  tokenizer: MODEL_FLAGS.tokenizer,
  'chat-template': MODEL_FLAGS['chat-template'],
  threads: MODEL_FLAGS.threads,
  ...BENCH_QUANTIZATION_FLAGS,
  'kv-cache-dtype': BENCH_SPEED_FLAGS['kv-cache-dtype'],
  text: {
    kind: 'text',
    group: 'MEASUREMENT',
    summary:
      "UTF-8 file to score. Default, unless --prompts is given: eval.txt in the model's folder, as the demo model has it.",
  },
  window: {
    kind: 'length',
    group: 'MEASUREMENT',
    min: 2,
    default: '256',
    summary: 'Tokens of a window; each is scored from an empty context.',
  },
  stride: {
    kind: 'length',
    group: 'MEASUREMENT',
    min: 1,
    summary:
      'Tokens from one window to the next; less than --window: windows overlap and each scores only its new tokens. Default: --window.',
  },
  'max-windows': {
    kind: 'integer',
    group: 'MEASUREMENT',
    min: 1,
    summary: 'Windows to score, from the beginning of the text; default: all.',
  },
  prompts: {
    kind: 'text',
    group: 'MEASUREMENT',
    summary:
      'File of prompts with expected answers, one JSON object a line. Default, unless --text is given: eval.jsonl of the model.',
  },
  'max-prompts': {
    kind: 'integer',
    group: 'MEASUREMENT',
    min: 1,
    summary: 'Prompts to answer, from the beginning of the file; default: all.',
  },
  'max-tokens': {
    kind: 'length',
    group: 'MEASUREMENT',
    min: 1,
    default: '96',
    summary: 'Longest answer to a prompt.',
  },
  'max-num-seqs': {
    kind: 'integer',
    group: 'MEASUREMENT',
    min: 1,
    default: '16',
    summary: 'Prompts answered together.',
  },
  layers: {
    kind: 'boolean',
    group: 'MEASUREMENT',
    summary: 'Measure what quantizing loses of the weights of each layer, too.',
  },
  reference: {
    kind: 'text',
    group: 'MEASUREMENT',
    summary:
      'Unquantized checkpoint that the model is compared with, or none. Default: the model itself, unquantized.',
  },
  'reference-logits': {
    kind: 'text',
    group: 'MEASUREMENT',
    summary:
      "File for the unquantized model's logits: made by the first run, read by later ones; then models need not fit into memory together.",
  },
  'max-reference-bytes': {
    kind: 'size',
    group: 'MEASUREMENT',
    min: 1,
    default: '16GiB',
    summary: 'Most bytes that file may take; a run that needs more is refused before it begins.',
  },
  'gpu-memory-utilization': MEMORY_FLAGS['gpu-memory-utilization'],
  ...BENCH_GATE_FLAGS,
  ...BENCH_REPORT_FLAGS,
  ...GLOBAL_FLAGS,
} as const satisfies FlagTable;
