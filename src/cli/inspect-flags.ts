import type { FlagTable } from './flag-row.js';
import { AUTO_FLAGS, GLOBAL_FLAGS, MEMORY_FLAGS, MODEL_FLAGS, QUANTIZATION_FLAGS } from './flags.js';

/** Flags of `fdq inspect`: those of `serve` that decide what would run, and how it is shown. */
export const INSPECT_FLAGS = {
  model: MODEL_FLAGS.model,
  revision: MODEL_FLAGS.revision,
  dtype: MODEL_FLAGS.dtype,
  threads: MODEL_FLAGS.threads,
  offline: MODEL_FLAGS.offline,
  ...QUANTIZATION_FLAGS,
  ...AUTO_FLAGS,
  'max-model-len': MEMORY_FLAGS['max-model-len'],
  'max-num-seqs': MEMORY_FLAGS['max-num-seqs'],
  'max-num-batched-tokens': MEMORY_FLAGS['max-num-batched-tokens'],
  'gpu-memory-utilization': MEMORY_FLAGS['gpu-memory-utilization'],
  'kv-cache-memory': MEMORY_FLAGS['kv-cache-memory'],
  'kv-cache-dtype': MEMORY_FLAGS['kv-cache-dtype'],
  measure: {
    kind: 'boolean',
    group: 'OUTPUT',
    summary: 'Quantize every layer, one after the other, and show what it loses.',
    commandLineOnly: true,
  },
  'fail-if': {
    kind: 'list',
    group: 'OUTPUT',
    summary:
      "Exit with 4 when a layer is so, e.g. 'sqnr<15dB', 'frobenius>5%' or 'bytes>64MiB'; may be repeated.",
    commandLineOnly: true,
  },
  sort: {
    kind: 'text',
    group: 'OUTPUT',
    summary: 'Column to order the table by, e.g. sqnr:asc or bytes; default: the order of the graph.',
    commandLineOnly: true,
  },
  filter: {
    kind: 'list',
    group: 'OUTPUT',
    summary: "Rows to show, e.g. name~down_proj, scheme=wint4 or 'bytes>1MiB'; repeated: all must hold.",
    commandLineOnly: true,
  },
  explain: {
    kind: 'text',
    group: 'OUTPUT',
    summary: 'Layer (name, glob or re:pattern) of which every rule is shown, instead of the table.',
    commandLineOnly: true,
  },
  diff: {
    kind: 'text',
    group: 'OUTPUT',
    summary: 'Model, or report saved with --json, that MODEL is compared with, instead of the table.',
    commandLineOnly: true,
  },
  markdown: {
    kind: 'boolean',
    group: 'OUTPUT',
    summary: 'Print the report as Markdown.',
    commandLineOnly: true,
  },
  html: {
    kind: 'text',
    group: 'OUTPUT',
    summary: 'File for the report as one page with a picture of bytes and errors.',
    commandLineOnly: true,
  },
  ...GLOBAL_FLAGS,
} as const satisfies FlagTable;
